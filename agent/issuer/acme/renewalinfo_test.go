package acme

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/testca/pebble"
)

func TestRenewalInfoAndReplaces(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	i := open(t, configFor(ca, newDisk()))
	first, err := i.Issue(deadline(t, 60*time.Second), newOrder(t, "a.example"))
	require.NoError(t, err)
	expectIssued(t, ca, 1)
	leaf := first.Chain[0]

	info, err := i.RenewalInfo(t.Context(), leaf)
	require.NoError(t, err)
	require.NotNil(t, info)
	assert.True(t, info.WindowEnd.After(info.WindowStart))
	assert.True(t, info.WindowStart.After(leaf.NotBefore) && info.WindowEnd.Before(leaf.NotAfter), "%+v", info)
	assert.GreaterOrEqual(t, info.RetryAfter, time.Minute)

	renewal := newOrder(t, "a.example")
	renewal.Replaces = leaf
	second, err := i.Issue(deadline(t, 60*time.Second), renewal)
	require.NoError(t, err)
	checkIssued(t, renewal, second)
	require.Eventually(t, func() bool { return ca.Ledger().Replacements == 1 }, 60*time.Second, 5*time.Millisecond)

	// The CA now refuses replaces for the first one; the order must go on without.
	expectIssued(t, ca, 2)
	again := newOrder(t, "a.example")
	again.Replaces = leaf
	require.Eventually(t, func() bool { return ca.Ledger().Replaced == 1 }, 60*time.Second, 5*time.Millisecond)
	third, err := i.Issue(deadline(t, 60*time.Second), again)
	require.NoError(t, err)
	checkIssued(t, again, third)
	assert.Equal(t, 1, ca.Ledger().Replacements)

	foreign := selfSigned(t)
	info, err = i.RenewalInfo(t.Context(), foreign)
	require.NoError(t, err)
	assert.Nil(t, info, "another authority's certificate")
	order := newOrder(t, "a.example")
	order.Replaces = foreign
	issued, err := i.Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err)
	checkIssued(t, order, issued)

	// An answer that makes no sense is an error here and no obstacle to a renewal.
	newest := issued.Chain[0]
	expectIssued(t, ca, 4)
	require.NoError(t, ca.SetRenewalInfo(t.Context(), newest, `{"suggestedWindow":{"start":"2026-01-02T00:00:00Z","end":"2026-01-01T00:00:00Z"}}`))
	_, err = i.RenewalInfo(t.Context(), newest)
	require.ErrorContains(t, err, "malformed renewal information")
	order = newOrder(t, "a.example")
	order.Replaces = newest
	issued, err = i.Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err)
	checkIssued(t, order, issued)
}

func selfSigned(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: pkix.Name{CommonName: "foreign"}, AuthorityKeyId: []byte{1, 2, 3},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	cert.AuthorityKeyId = []byte{1, 2, 3} // left out of self-signed ones by crypto/x509
	return cert
}
