package file

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"testing"

	"github.com/certctl/certctl/shared/pki"
)

// FuzzDecodeRecord: whatever is accepted names only absolute paths and files of the snapshot.
func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"id":"a","files":[{"kind":"key","path":"/etc/tls/key.pem","content":"0-key","mode":384,"uid":0,"gid":0}]}`))
	f.Add([]byte(`{"version":1,"id":"a","link":{"path":"/etc/tls","target":".tls.certctl-x"}}`))
	f.Add([]byte(`{"version":1,"id":"a","files":[{"path":"/etc/tls/key.pem","content":"../../passwd"}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data)
		if err != nil {
			return
		}
		if r.Version != recordVersion || (len(r.Files) == 0) == (r.Link == nil) {
			t.Fatalf("accepted %+v", r)
		}
		for _, file := range r.Files {
			if file.Path == "" || file.Path[0] != '/' && file.Path[1] != ':' || file.Content == ".." {
				t.Fatalf("accepted %+v", file)
			}
		}
	})
}

// FuzzFilesThatAreThere: what operators keep in their files must never stop the agent.
func FuzzFilesThatAreThere(f *testing.F) {
	p := newPair(f)
	contents := p.contents(f)
	for _, content := range contents {
		f.Add(content)
	}
	block, _ := pem.Decode(contents[kindKey])
	encoded := []byte(base64.StdEncoding.EncodeToString(block.Bytes))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if cert := firstCertificate(data); cert != nil && len(pki.Fingerprint(cert)) != 64 {
			t.Fatal("a certificate without a fingerprint")
		}
		// Only the key itself matches, which has one encoding here.
		if keyMatches(data, p.chain[0]) == nil && !bytes.Contains(squeeze(data), encoded) {
			t.Fatalf("%d octets hold the key and do not", len(data))
		}
	})
}

// squeeze removes the white space that PEM allows anywhere.
func squeeze(data []byte) []byte { return bytes.Join(bytes.Fields(data), nil) }
