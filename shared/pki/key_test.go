package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/pki"
)

// rsa2048 is made once: an RSA key costs more than everything else in these tests.
var rsa2048 = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := pki.GenerateKey(pki.DefaultKeyAlgorithm)
	require.NoError(t, err)
	return key
}

func TestGenerateKeyAndPEMRoundTrip(t *testing.T) {
	for _, c := range []struct {
		algorithm pki.KeyAlgorithm
		check     func(pub crypto.PublicKey) bool
	}{
		{pki.ECDSAP256, func(pub crypto.PublicKey) bool { return pub.(*ecdsa.PublicKey).Curve == elliptic.P256() }},
		{pki.ECDSAP384, func(pub crypto.PublicKey) bool { return pub.(*ecdsa.PublicKey).Curve == elliptic.P384() }},
		{pki.RSA2048, func(pub crypto.PublicKey) bool { return pub.(*rsa.PublicKey).N.BitLen() == 2048 }},
		{pki.RSA3072, func(pub crypto.PublicKey) bool { return pub.(*rsa.PublicKey).N.BitLen() == 3072 }},
		{pki.Ed25519, func(pub crypto.PublicKey) bool { return len(pub.(ed25519.PublicKey)) == 32 }},
	} {
		t.Run(c.algorithm.String(), func(t *testing.T) {
			key, err := pki.GenerateKey(c.algorithm)
			require.NoError(t, err)
			assert.True(t, c.check(key.Public()))
			text, err := pki.MarshalKeyPEM(key)
			require.NoError(t, err)
			assert.True(t, strings.HasPrefix(string(text), "-----BEGIN PRIVATE KEY-----\n"))
			back, err := pki.ParseKeyPEM(text)
			require.NoError(t, err)
			assert.True(t, pki.SamePublicKey(key.Public(), back.Public()))
		})
	}
	_, err := pki.GenerateKey("dsa-1024")
	require.ErrorContains(t, err, `key algorithm "dsa-1024": want one of ecdsa-p256, ecdsa-p384, rsa-2048`)
}

func TestKeyAlgorithmText(t *testing.T) {
	var v struct{ Key pki.KeyAlgorithm }
	require.NoError(t, json.Unmarshal([]byte(`{"Key":"rsa-4096"}`), &v))
	assert.Equal(t, pki.RSA4096, v.Key)
	require.Error(t, json.Unmarshal([]byte(`{"Key":"RSA-4096"}`), &v))
	assert.Equal(t, pki.RSA4096, v.Key)
	_, err := json.Marshal(struct{ Key pki.KeyAlgorithm }{})
	require.Error(t, err, "an empty algorithm must not be written")
	assert.Equal(t, pki.DefaultKeyAlgorithm, pki.KeyAlgorithms()[0])
}

func TestParseKeyPEMForms(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	sec1, err := x509.MarshalECPrivateKey(ec)
	require.NoError(t, err)
	params := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 5, 0x2b, 0x81, 4, 0, 0x22}})
	openssl := append(params, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...)
	key, err := pki.ParseKeyPEM(openssl)
	require.NoError(t, err)
	assert.True(t, pki.SamePublicKey(ec.Public(), key.Public()))

	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsa2048())})
	key, err = pki.ParseKeyPEM(append([]byte("a comment before it\n"), pkcs1...))
	require.NoError(t, err)
	assert.True(t, pki.SamePublicKey(rsa2048().Public(), key.Public()))
}

func TestParseKeyPEMRefuses(t *testing.T) {
	good, err := pki.MarshalKeyPEM(newKey(t))
	require.NoError(t, err)
	body := strings.Split(string(good), "\n")[1]
	encode := func(b *pem.Block) string { return string(pem.EncodeToMemory(b)) }
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	weak, err := x509.MarshalPKCS8PrivateKey(p224)
	require.NoError(t, err)
	for _, c := range []struct{ name, text, wants string }{
		{"empty", "", "no PEM block found"},
		{"not PEM", "hello", "no PEM block found"},
		{"too large", strings.Repeat("x", 65<<10), "more than the 65536"},
		{"truncated", string(good[:len(good)/2]), "PEM is damaged: 1 blocks begin but 0 are whole"},
		{"two keys", string(good) + string(good), "found 2 PEM blocks; want exactly one"},
		{"certificate", encode(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), `is a "CERTIFICATE"`},
		{"only parameters", encode(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte("x")}), `is a "EC PARAMETERS"`},
		{"encrypted PKCS #8", encode(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}), "is encrypted; decrypt it first"},
		{"encrypted SEC 1", encode(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: []byte("x")}), "is encrypted"},
		{"damaged DER", encode(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), `the "PRIVATE KEY" block is damaged`},
		{"weak curve", encode(&pem.Block{Type: "PRIVATE KEY", Bytes: weak}), "key refused: ECDSA on another curve"},
	} {
		t.Run(c.name, func(t *testing.T) {
			key, err := pki.ParseKeyPEM([]byte(c.text))
			require.ErrorContains(t, err, c.wants)
			assert.Nil(t, key)
			assert.NotContains(t, err.Error(), body, "an error must not show key material")
		})
	}
}

func TestCheckPublicKey(t *testing.T) {
	good := rsa2048().PublicKey
	modulus := func(bits uint) *big.Int {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return n.SetBit(n, 0, 1)
	}
	point := newKey(t).Public().(*ecdsa.PublicKey)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	require.NoError(t, err)

	for _, pub := range []crypto.PublicKey{&good, point, p521.Public(), &rsa.PublicKey{N: modulus(8192), E: 65537}, make(ed25519.PublicKey, 32)} {
		assert.NoError(t, pki.CheckPublicKey(pub))
	}
	for name, c := range map[string]struct {
		pub   crypto.PublicKey
		wants string
	}{
		"nil":         {nil, "unknown kind of key"},
		"RSA nil":     {(*rsa.PublicKey)(nil), "empty"},
		"RSA 1024":    {&rsa.PublicKey{N: modulus(1024), E: 65537}, "RSA of 1024 bits; want RSA of 2048 to 8192 bits, ECDSA on P-256"},
		"RSA 2047":    {&rsa.PublicKey{N: modulus(2047), E: 65537}, "RSA of 2047 bits"},
		"RSA 8193":    {&rsa.PublicKey{N: modulus(8193), E: 65537}, "RSA of 8193 bits"},
		"RSA e 3":     {&rsa.PublicKey{N: good.N, E: 3}, "RSA exponent 3"},
		"RSA e even":  {&rsa.PublicKey{N: good.N, E: 65538}, "RSA exponent 65538"},
		"RSA even":    {&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65537}, "modulus is even"},
		"ECDSA nil":   {(*ecdsa.PublicKey)(nil), "empty"},
		"ECDSA P-224": {p224.Public(), "another curve"},
		//nolint:staticcheck // the only way to make a point that is off its curve
		"ECDSA off":     {&ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}, "not on its curve"},
		"Ed25519 short": {ed25519.PublicKey("short"), "5 octets"},
		"private key":   {rsa2048(), "unknown kind of key"},
	} {
		t.Run(name, func(t *testing.T) {
			err := pki.CheckPublicKey(c.pub)
			require.ErrorIs(t, err, pki.ErrWeakKey)
			assert.ErrorContains(t, err, c.wants)
		})
	}
}

func FuzzParseKeyPEM(f *testing.F) {
	good, err := pki.MarshalKeyPEM(newKey(f))
	require.NoError(f, err)
	f.Add(good)
	f.Add(good[:60])
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := pki.ParseKeyPEM(data)
		if err != nil {
			return
		}
		require.NoError(t, pki.CheckPublicKey(key.Public()))
		text, err := pki.MarshalKeyPEM(key)
		require.NoError(t, err)
		back, err := pki.ParseKeyPEM(text)
		require.NoError(t, err)
		require.True(t, pki.SamePublicKey(key.Public(), back.Public()))
	})
}
