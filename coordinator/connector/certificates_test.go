package connector_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
)

func certificates(t testing.TB, count int) [][]byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ders := make([][]byte, count)
	for i := range ders {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: "one of them"},
			NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(1_800_000_000, 0),
		}
		ders[i], err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		require.NoError(t, err)
	}
	return ders
}

func inPEM(kind string, ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	return out
}

func degenerate(t testing.TB, ders ...[]byte) []byte {
	t.Helper()
	message, err := pkcs7.DegenerateCertificate(slices.Concat(ders...))
	require.NoError(t, err)
	return message
}

func TestEveryFormOfCertificates(t *testing.T) {
	ders := certificates(t, 3)
	message := degenerate(t, ders...)
	for name, data := range map[string][]byte{
		"PEM":                  inPEM("CERTIFICATE", ders...),
		"PEM with blank lines": append([]byte("\r\n\n"), bytes.ReplaceAll(inPEM("CERTIFICATE", ders...), []byte("\n"), []byte("\r\n"))...),
		"PKCS#7 in PEM":        inPEM("PKCS7", message),
		"PKCS#7 in DER":        message,
		"PKCS#7 in base64":     []byte(base64.StdEncoding.EncodeToString(message)),
		"one in each block":    append(inPEM("CERTIFICATE", ders[0]), inPEM("PKCS7", degenerate(t, ders[1:]...))...),
	} {
		t.Run(name, func(t *testing.T) {
			bundle, err := connector.ParseBundle(data)
			require.NoError(t, err)
			require.Len(t, bundle.Certificates, 3)
			for i, der := range ders {
				assert.Equal(t, der, bundle.Certificates[i].Raw)
			}
			if name == "PKCS#7 in DER" {
				return // half of it is told from the whole by its own length, below
			}
			// Half of an answer is none: not fewer certificates.
			for _, cut := range []int{len(data) / 4, len(data) / 2, len(data) * 9 / 10} {
				_, err := connector.ParseBundle(data[:cut])
				assert.Error(t, err, "cut at %d of %d", cut, len(data))
			}
		})
	}
	for _, data := range [][]byte{ders[0], []byte(base64.StdEncoding.EncodeToString(ders[0]))} {
		bundle, err := connector.ParseBundle(data)
		require.NoError(t, err)
		assert.Len(t, bundle.Certificates, 1)
	}
}

func TestWhatAreNoCertificates(t *testing.T) {
	ders := certificates(t, 33)
	for name, c := range map[string]struct {
		data  []byte
		class connector.Class
	}{
		"nothing":           {nil, connector.ClassNotReady},
		"blanks":            {[]byte(" \r\n"), connector.ClassNotReady},
		"a page":            {[]byte("<html>"), connector.ClassAnswer},
		"a key":             {inPEM("EC PRIVATE KEY", ders[0]), connector.ClassAnswer},
		"no certificate":    {degenerate(t), connector.ClassAnswer},
		"too many":          {inPEM("CERTIFICATE", ders...), connector.ClassAnswer},
		"text after it":     {append(inPEM("CERTIFICATE", ders[0]), "and more"...), connector.ClassAnswer},
		"a damaged block":   {append([]byte("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"), inPEM("CERTIFICATE", ders[0])...), connector.ClassAnswer},
		"half of a message": {degenerate(t, ders[:3]...)[:400], connector.ClassAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := connector.ParseBundle(c.data)
			assert.Equal(t, c.class, failure(t, err).Class, "%v", err)
		})
	}
}

func FuzzParseBundle(f *testing.F) {
	ders := certificates(f, 2)
	f.Add(inPEM("CERTIFICATE", ders...))
	f.Add(degenerate(f, ders...))
	f.Add(inPEM("PKCS7", degenerate(f, ders...)))
	f.Add([]byte(base64.StdEncoding.EncodeToString(ders[0])))
	f.Fuzz(func(t *testing.T, data []byte) {
		bundle, err := connector.ParseBundle(data)
		if err != nil {
			failed := failure(t, err)
			assert.Contains(t, []connector.Class{connector.ClassAnswer, connector.ClassNotReady}, failed.Class)
			return
		}
		assert.NotEmpty(t, bundle.Certificates)
		assert.LessOrEqual(t, len(bundle.Certificates), 32)
	})
}
