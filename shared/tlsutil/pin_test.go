package tlsutil_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
)

func TestParsePinForms(t *testing.T) {
	var want tlsutil.PinnedRoot
	var pairs []string
	for i := range want {
		want[i] = byte(i*37 + 11)
		pairs = append(pairs, hex.EncodeToString(want[i:i+1]))
	}
	digits := hex.EncodeToString(want[:])
	for _, text := range []string{
		digits, strings.ToUpper(digits), strings.Join(pairs, ":"),
		base64.StdEncoding.EncodeToString(want[:]), base64.RawStdEncoding.EncodeToString(want[:]),
		base64.URLEncoding.EncodeToString(want[:]), base64.RawURLEncoding.EncodeToString(want[:]),
	} {
		for _, prefix := range []string{"", "sha256:", "SHA256:"} {
			got, err := tlsutil.ParsePin(prefix + text)
			require.NoError(t, err, prefix+text)
			assert.Equal(t, want, got)
		}
	}
	assert.Equal(t, "sha256:"+digits, want.String())
	for _, bad := range []string{
		"", "sha256:", digits[:62], digits + "00", digits[:63] + "g", "sha1:" + digits,
		strings.Join(pairs, "-"), strings.Repeat("!", 43), strings.Repeat("A", 44), strings.Repeat("A", 42) + "B",
	} {
		_, err := tlsutil.ParsePin(bad)
		assert.ErrorContains(t, err, "want the SHA-256 of the certificate as 64 hexadecimal digits or in base64: ", bad)
		assert.NotContains(t, err.Error(), "%!")
	}

	data, err := json.Marshal(want)
	require.NoError(t, err)
	var back tlsutil.PinnedRoot
	require.NoError(t, json.Unmarshal(data, &back))
	assert.Equal(t, want, back)
	require.Error(t, json.Unmarshal([]byte(`"x"`), &back))
	assert.Equal(t, want, back)
}

func TestPinnedRootOverTheWire(t *testing.T) {
	root := newRoot(t, "root")
	issuer := root.newIssuer(t, "issuer")
	full := serve(t, serverConfig(t, tlsutil.ServerOptions{Source: issuer.serverSource(t, issuer.cert, root.cert)}))
	rootless := serve(t, serverConfig(t, tlsutil.ServerOptions{Source: issuer.serverSource(t, issuer.cert)}))
	good, other := tlsutil.PinOf(root.cert), tlsutil.PinOf(newRoot(t, "root").cert)

	for _, name := range []string{"server.example.com", "127.0.0.1"} {
		_, state, err := call(t, full, clientConfig(t, tlsutil.ClientOptions{Pin: &good, ServerName: name}))
		require.NoError(t, err, name)
		assert.Len(t, state.PeerCertificates, 3)
	}
	for _, name := range []string{"other.example.com", "127.0.0.2"} {
		_, _, err := call(t, full, clientConfig(t, tlsutil.ClientOptions{Pin: &good, ServerName: name}))
		var wrongName x509.HostnameError
		require.ErrorAs(t, err, &wrongName, name)
	}
	_, _, err := call(t, full, clientConfig(t, tlsutil.ClientOptions{Pin: &other, ServerName: "127.0.0.1"}))
	require.ErrorIs(t, err, tlsutil.ErrPinMismatch)
	assert.ErrorContains(t, err, "wanted "+other.String()+", the last of 3 it presents is "+good.String())
	_, _, err = call(t, rootless, clientConfig(t, tlsutil.ClientOptions{Pin: &good, ServerName: "127.0.0.1"}))
	require.ErrorIs(t, err, tlsutil.ErrPinMismatch)

	// Whoever knows the true root can present it; without a leaf from it that is worth nothing.
	impostor := serve(t, serverConfig(t, tlsutil.ServerOptions{Source: newRoot(t, "root").serverSource(t, root.cert)}))
	_, _, err = call(t, impostor, clientConfig(t, tlsutil.ClientOptions{Pin: &good, ServerName: "127.0.0.1"}))
	var unknown x509.UnknownAuthorityError
	require.ErrorAs(t, err, &unknown)
}

func TestPinnedRootVerify(t *testing.T) {
	root := newRoot(t, "root")
	leaf := root.serverSource(t).Leaf()
	pin, now := tlsutil.PinOf(root.cert), time.Now()
	assert.Equal(t, "sha256:"+pki.Fingerprint(root.cert), pin.String())

	got, err := pin.Verify([]*x509.Certificate{leaf, root.cert}, "server.example.com", now)
	require.NoError(t, err)
	assert.Same(t, root.cert, got)

	_, err = pin.Verify(nil, "server.example.com", now)
	require.ErrorIs(t, err, tlsutil.ErrPinMismatch)
	_, err = pin.Verify([]*x509.Certificate{leaf, root.cert}, "", now)
	require.ErrorContains(t, err, "no server name")
	_, err = tlsutil.PinOf(leaf).Verify([]*x509.Certificate{leaf, root.cert}, "server.example.com", now)
	require.ErrorContains(t, err, "is no root")

	var invalid x509.CertificateInvalidError
	_, err = pin.Verify([]*x509.Certificate{leaf, root.cert}, "server.example.com", leaf.NotAfter.Add(time.Second))
	require.ErrorAs(t, err, &invalid)
	assert.Equal(t, x509.Expired, invalid.Reason)
	_, err = pin.Verify([]*x509.Certificate{root.clientSource(t, func(c *x509.Certificate) {
		c.DNSNames = []string{"server.example.com"}
	}).Leaf(), root.cert}, "server.example.com", now)
	require.ErrorAs(t, err, &invalid)
	assert.Equal(t, x509.IncompatibleUsage, invalid.Reason)
}

func FuzzParsePin(f *testing.F) {
	f.Add("sha256:" + strings.Repeat("0f", 32))
	f.Add(strings.Repeat("0f:", 31) + "0f")
	f.Add(strings.Repeat("A", 43) + "=")
	f.Add(strings.Repeat("_-", 21) + "A")
	f.Add("sha256:\xff\xff")
	f.Fuzz(func(t *testing.T, s string) {
		pin, err := tlsutil.ParsePin(s)
		if err != nil {
			return
		}
		again, err := tlsutil.ParsePin(pin.String())
		require.NoError(t, err)
		require.Equal(t, pin, again)
	})
}
