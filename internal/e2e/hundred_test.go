//go:build linux

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/testca/pebble"
	"github.com/certctl/certctl/shared/pki"
)

// A hundred certificates come from an authority that refuses every second good
// nonce and takes its time to validate: none is ordered twice, all are
// deployed.
func TestHundredCertificates(t *testing.T) {
	t.Parallel()
	const n = 100
	ca := pebble.Run(t, pebble.Options{NonceReject: 50, ValidationSleep: 2 * time.Second})
	// Several accounts, since the agent keeps each to ten new orders in ten seconds.
	accounts := []string{"one", "two", "three", "four"}
	issuers := section{}
	for _, name := range accounts {
		issuers[name] = acmeIssuer(ca)
	}
	dir := t.TempDir()
	file := func(i int, kind string) string { return filepath.Join(dir, fmt.Sprintf("%03d.%s", i, kind)) }
	var certificates []section
	for i := range n {
		certificates = append(certificates, certificate(
			fmt.Sprintf("c%03d", i), accounts[i%len(accounts)], fmt.Sprintf("c%03d.example", i),
			section{"files": section{"fullchain": file(i, "pem"), "key": file(i, "key")}},
		))
	}
	a := newAgent(t, "the agent", section{"issuers": issuers, "certificates": certificates})
	a.startAndAwait()
	// Half of all nonces refused makes a request fail for good now and then;
	// such an order goes on a minute later.
	status := a.awaitSettled(5 * time.Minute)
	require.Len(t, status.Certificates, n)

	roots, err := ca.IssuerRoots(t.Context())
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(roots[0])
	serials := make(map[string]bool)
	for i := range n {
		pair, err := tls.LoadX509KeyPair(file(i, "pem"), file(i, "key"))
		require.NoErrorf(t, err, "certificate and key %d match", i)
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		require.NoError(t, err)
		intermediates := x509.NewCertPool()
		for _, der := range pair.Certificate[1:] {
			issuer, err := x509.ParseCertificate(der)
			require.NoError(t, err)
			intermediates.AddCert(issuer)
		}
		_, err = leaf.Verify(x509.VerifyOptions{DNSName: fmt.Sprintf("c%03d.example", i), Roots: pool, Intermediates: intermediates})
		require.NoError(t, err)
		own := status.Certificates[i]
		assert.Equal(t, pki.Fingerprint(leaf), own.Fingerprint)
		assert.EqualValues(t, 1, own.Renewals)
		serials[pki.SerialHex(leaf)] = true
	}
	assert.Len(t, serials, n)

	ledger := ca.Ledger()
	assert.Equal(t, n, ledger.Orders, "orders at the authority")
	assert.Len(t, ledger.Issued, n, "certificates at the authority")
	assert.Equal(t, len(accounts), ledger.Accounts)
	leftovers, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	assert.Empty(t, leftovers, "temporary files")
}
