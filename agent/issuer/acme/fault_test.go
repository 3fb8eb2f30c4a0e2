package acme

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/internal/testca/pebble"
)

func TestOrdersThatCannotBeContinued(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	i := open(t, configFor(ca, newDisk()))
	base := ca.DirectoryURL[:len(ca.DirectoryURL)-len("/dir")]
	for name, text := range map[string]string{
		"unknown order":       fmt.Sprintf(`{"directory":%q,"order":"%s/my-order/none"}`, ca.DirectoryURL, base),
		"unknown certificate": fmt.Sprintf(`{"directory":%q,"order":"%s/my-order/none","certificate":"%s/certZ/none"}`, ca.DirectoryURL, base, base),
		"another directory":   `{"directory":"https://elsewhere.example/dir","order":"https://elsewhere.example/o/1"}`,
		"damaged":             `{"order":1}`,
		"empty":               `{}`,
	} {
		t.Run(name, func(t *testing.T) {
			order := newOrder(t, "a.example")
			order.State = json.RawMessage(text)
			_, err := i.Issue(deadline(t, 60*time.Second), order)
			requireClass(t, issuer.ClassOrderGone, err)
		})
	}
}

func TestAFailedChallengeEndsTheOrderAndSaysWhatTheAuthoritySaw(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	d := newDisk()
	config := configFor(ca, d)
	config.Solver = HTTP01Webroot{Path: t.TempDir()} // nobody serves it
	order := newOrder(t, "a.example")
	_, err := open(t, config).Issue(deadline(t, 60*time.Second), order)
	failure := requireClass(t, issuer.ClassOrderGone, err)
	assert.Contains(t, failure.Error(), "could not validate a.example by http-01")
	assert.NotEmpty(t, failure.Mend)

	_, err = open(t, config).Issue(deadline(t, 60*time.Second), order)
	failure = requireClass(t, issuer.ClassOrderGone, err)
	assert.NotEmpty(t, failure.Mend, "the same after a restart")
	assert.Empty(t, ca.Ledger().Issued)
}

func TestNamesThatAreRefused(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{Blocklist: []string{"blocked.example"}})
	i := open(t, configFor(ca, newDisk()))
	_, err := i.Issue(deadline(t, 60*time.Second), newOrder(t, "www.blocked.example"))
	assert.Contains(t, requireClass(t, issuer.ClassRefused, err).Mend, "remove the name")
	_, err = i.Issue(deadline(t, 60*time.Second), newOrder(t, "*.a.example"))
	requireClass(t, issuer.ClassConfig, err)
	assert.Zero(t, ca.Ledger().Orders)
}

func TestAPortInUseIsNamedAndTheOrderGoesOnLater(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	i := open(t, configFor(ca, newDisk()))
	taken, err := net.Listen("tcp", loopback(ca.HTTPPort))
	require.NoError(t, err)
	order := newOrder(t, "a.example")
	_, err = i.Issue(deadline(t, 60*time.Second), order)
	failure := requireClass(t, issuer.ClassConfig, err)
	assert.Contains(t, failure.Error(), loopback(ca.HTTPPort))
	assert.Contains(t, failure.Mend, "free the port")
	require.NoError(t, taken.Close())

	issued, err := i.Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err)
	checkIssued(t, order, issued)
	assert.Equal(t, 1, ca.Ledger().Orders, "the same order")
}

func TestFaultsOfTheStore(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	full := errors.New("disk full")

	d := newDisk()
	d.fail = full
	_, err := open(t, configFor(ca, d)).Issue(deadline(t, 60*time.Second), newOrder(t, "a.example"))
	require.ErrorIs(t, err, full)
	assert.Zero(t, ca.Ledger().Accounts, "no account before its key is on disk")

	order := newOrder(t, "a.example")
	order.Save = func(json.RawMessage) error { return full }
	_, err = open(t, configFor(ca, newDisk())).Issue(deadline(t, 60*time.Second), order)
	require.ErrorIs(t, err, full)
	assert.Empty(t, ca.Ledger().Issued)
}

func TestAnUntrustedAuthority(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	config := configFor(ca, newDisk())
	config.RootCAs = x509.NewCertPool()
	_, err := open(t, config).Issue(deadline(t, 60*time.Second), newOrder(t, "a.example"))
	assert.Contains(t, requireClass(t, issuer.ClassConfig, err).Mend, "set ca_file ")

	ca.Kill()
	_, err = open(t, configFor(ca, newDisk())).Issue(deadline(t, 60*time.Second), newOrder(t, "a.example"))
	requireClass(t, issuer.ClassRetry, err)
}
