package ca

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/pki"
)

func request(t testing.TB, key any, template *x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	require.NoError(t, err)
	return der
}

func TestParseIdentityRequest(t *testing.T) {
	for _, algorithm := range pki.KeyAlgorithms() {
		if algorithm == pki.RSA4096 || algorithm == pki.RSA3072 {
			continue // slow to make, and no different
		}
		key, err := pki.GenerateKey(algorithm)
		require.NoError(t, err)
		pub, err := ParseIdentityRequest(request(t, key, &x509.CertificateRequest{}))
		require.NoError(t, err)
		assert.True(t, pki.SamePublicKey(pub, key.Public()))
	}
	key := newKey(t)
	pub, err := ParseIdentityRequest(request(t, key, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "root", Organization: []string{"Evil"}}, DNSNames: []string{"pki.example.com"},
	}))
	require.NoError(t, err, "what it says beside the key is not looked at")
	assert.True(t, pki.SamePublicKey(pub, key.Public()))
}

func TestParseIdentityRequestRefuses(t *testing.T) {
	key := newKey(t)
	good := request(t, key, &x509.CertificateRequest{})
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	strong, err := pki.GenerateKey(pki.RSA2048)
	require.NoError(t, err)
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1

	for name, c := range map[string]struct {
		der  []byte
		weak bool
	}{
		"nothing":          {der: nil},
		"garbage":          {der: []byte("-----BEGIN CERTIFICATE REQUEST-----")},
		"truncated":        {der: good[:len(good)-5]},
		"trailing octets":  {der: append(append([]byte(nil), good...), 0)},
		"forged signature": {der: forged},
		"too large":        {der: make([]byte, pki.MaxCSR+1)},
		"a weak key":       {der: request(t, weak, &x509.CertificateRequest{}), weak: true},
		"SHA-1":            {der: request(t, strong, &x509.CertificateRequest{SignatureAlgorithm: x509.SHA1WithRSA})},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseIdentityRequest(c.der)
			require.ErrorIs(t, err, ErrRequest)
			assert.Equal(t, c.weak, errors.Is(err, pki.ErrWeakKey))
		})
	}
}

func FuzzParseIdentityRequest(f *testing.F) {
	f.Add(request(f, newKey(f), &x509.CertificateRequest{}))
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		pub, err := ParseIdentityRequest(der)
		if err != nil {
			require.ErrorIs(t, err, ErrRequest)
			return
		}
		require.NoError(t, pki.CheckPublicKey(pub))
	})
}

func TestSealKeyText(t *testing.T) {
	key := NewSealKey()
	parsed, err := ParseSealKey(" " + key.Reveal() + "\n")
	require.NoError(t, err)
	assert.Equal(t, key, parsed)

	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("made", "key", key)
	for _, shown := range []string{fmt.Sprintf("%v %+v %#v %s", key, key, key, key), logged.String()} {
		assert.NotContains(t, shown, key.Reveal())
		assert.NotContains(t, shown, fmt.Sprint(key.key))
		assert.Contains(t, shown, "seal key")
	}
}

func FuzzParseSealKey(f *testing.F) {
	f.Add(NewSealKey().Reveal())
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := ParseSealKey(text)
		if err != nil {
			require.ErrorIs(t, err, ErrSealKeyMalformed)
			return
		}
		require.Equal(t, strings.TrimSpace(text), key.Reveal())
	})
}
