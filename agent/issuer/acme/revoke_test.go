package acme

import (
	"crypto/x509"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/internal/testca/pebble"
	"github.com/certctl/certctl/shared/pki"
)

func issueOne(t *testing.T, i *Issuer) (*issuer.Order, *x509.Certificate) {
	t.Helper()
	order := newOrder(t, uniqueName())
	issued, err := i.Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err)
	return order, issued.Chain[0]
}

func requireStatus(t *testing.T, ca *pebble.Server, leaf *x509.Certificate, want string, wantReason int) {
	t.Helper()
	status, reason, err := ca.Status(t.Context(), leaf)
	require.NoError(t, err)
	assert.Equal(t, want, status)
	assert.Equal(t, wantReason, reason)
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	i := open(t, configFor(ca, newDisk()))

	order, leaf := issueOne(t, i)
	requireStatus(t, ca, leaf, "Valid", 0)
	require.NoError(t, i.Revoke(deadline(t, 60*time.Second), leaf, order.Key, 4))
	requireStatus(t, ca, leaf, "Revoked", 4)
	require.NoError(t, i.Revoke(deadline(t, 60*time.Second), leaf, order.Key, 4), "it is revoked, which is what was asked for")
	require.NoError(t, i.Revoke(deadline(t, 60*time.Second), leaf, nil, pki.ReasonKeyCompromise))

	_, leaf = issueOne(t, i)
	require.NoError(t, i.Revoke(deadline(t, 60*time.Second), leaf, nil, pki.ReasonUnspecified), "the account needs no key")
	requireStatus(t, ca, leaf, "Revoked", 0)
}

// A compromised key asks itself, which proves it; otherwise the account does.
func TestWhoAsksForARevocation(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	log := new(logBuffer)
	config := configFor(ca, newDisk())
	config.Log = slog.New(slog.NewTextHandler(log, nil))
	i := open(t, config)
	for reason, byAccount := range map[int]string{pki.ReasonKeyCompromise: "by_account=false", 4: "by_account=true"} {
		order, leaf := issueOne(t, i)
		require.NoError(t, i.Revoke(deadline(t, 60*time.Second), leaf, order.Key, reason))
		requireStatus(t, ca, leaf, "Revoked", reason)
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		assert.Contains(t, lines[len(lines)-1], byAccount)
	}
}

func TestRevokingWhatAnotherAccountGot(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	order, leaf := issueOne(t, open(t, configFor(ca, newDisk())))
	other := open(t, configFor(ca, newDisk()))

	err := other.Revoke(deadline(t, 60*time.Second), leaf, nil, 4)
	requireClass(t, issuer.ClassRefused, err)
	requireStatus(t, ca, leaf, "Valid", 0)
	wrong, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	requireClass(t, issuer.ClassRefused, other.Revoke(deadline(t, 60*time.Second), leaf, wrong, pki.ReasonKeyCompromise))

	require.NoError(t, other.Revoke(deadline(t, 60*time.Second), leaf, order.Key, 4), "the certificate's key may")
	requireStatus(t, ca, leaf, "Revoked", 4)
}

func TestRevocationsThatFail(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	i := open(t, configFor(ca, newDisk()))
	order, leaf := issueOne(t, i)

	failure := requireClass(t, issuer.ClassRefused, i.Revoke(deadline(t, 60*time.Second), leaf, order.Key, 7))
	assert.Contains(t, failure.Mend, "reason")

	require.NoError(t, ca.Restart(t.Context()))
	err := i.Revoke(deadline(t, 60*time.Second), leaf, nil, 4)
	requireClass(t, issuer.ClassRefused, err)
	assert.Equal(t, 2, ca.Ledger().Accounts, "the account was registered again")

	i.current.directory.RevokeCert = ""
	failure = requireClass(t, issuer.ClassRefused, i.Revoke(deadline(t, 60*time.Second), leaf, order.Key, 4))
	assert.NotEmpty(t, failure.Mend)

	ca.Kill()
	down := open(t, configFor(ca, newDisk()))
	failure = requireClass(t, issuer.ClassRetry, down.Revoke(deadline(t, 60*time.Second), leaf, order.Key, 4))
	assert.NotEmpty(t, failure.Mend)
	requireClass(t, issuer.ClassRetry, classify(t.Context(), stepRevoke, http.StatusServiceUnavailable, 0, assert.AnError))
}
