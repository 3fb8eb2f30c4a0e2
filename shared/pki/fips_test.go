package pki_test

import (
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/pki"
)

// An authority may send its root along, and old roots are signed with SHA-1. Where
// the toolchain ends a program that computes one, such a chain still must not.
func TestAnOldRootInFIPSOnlyMode(t *testing.T) {
	const chainFile = "TEST_FIPS_CHAIN"
	if path := os.Getenv(chainFile); path != "" {
		require.True(t, fips140.Enforced())
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		chain, err := pki.ParseChainPEM(text)
		require.NoError(t, err)
		checked, err := pki.CheckIssued(chain, chain[0].PublicKey, pki.MustParseNames("a.example.com"), time.Now())
		require.NoError(t, err)
		assert.Equal(t, []string{"leaf"}, subjects(checked), "the root is left out, as ever")
		return
	}
	rootKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Old Root"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SignatureAlgorithm: x509.SHA1WithRSA,
	}
	root, err := x509.CreateCertificate(rand.Reader, template, template, rootKey.Public(), rootKey)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(root)
	require.NoError(t, err)
	require.Equal(t, x509.SHA1WithRSA, parsed.SignatureAlgorithm)
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"a.example.com"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}, parsed, newKey(t).Public(), rootKey)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "chain.pem")
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root})...)
	require.NoError(t, os.WriteFile(path, text, 0o600))

	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	again.Env = append(os.Environ(), "GODEBUG=fips140=only", chainFile+"="+path)
	out, err := again.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
