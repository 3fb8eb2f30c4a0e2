package pki_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	serial atomic.Int64
	noon   = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
)

// authority is a CA for tests: a certificate and the key that it signs with.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func template(cn string, isCA bool) *x509.Certificate {
	t := &x509.Certificate{
		SerialNumber:          big.NewInt(serial.Add(1)),
		Subject:               pkix.Name{CommonName: cn},
		NotBefore:             noon.Add(-time.Hour),
		NotAfter:              noon.Add(time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  isCA,
		KeyUsage:              x509.KeyUsageDigitalSignature,
	}
	if isCA {
		t.KeyUsage = x509.KeyUsageCertSign
	}
	return t
}

func sign(t testing.TB, tmpl *x509.Certificate, pub crypto.PublicKey, by authority) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, by.cert, pub, by.key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

func newRoot(t testing.TB, cn string) authority {
	t.Helper()
	key, tmpl := newKey(t), template(cn, true)
	return authority{cert: sign(t, tmpl, key.Public(), authority{cert: tmpl, key: key}), key: key}
}

func (a authority) newIssuer(t testing.TB, cn string) authority {
	t.Helper()
	key := newKey(t)
	return authority{cert: sign(t, template(cn, true), key.Public(), a), key: key}
}

func (a authority) issue(t testing.TB, pub crypto.PublicKey, dns ...string) *x509.Certificate {
	t.Helper()
	tmpl := template("", false)
	tmpl.DNSNames = dns
	return sign(t, tmpl, pub, a)
}
