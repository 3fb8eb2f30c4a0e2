package acme

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/internal/testca/pebble"
	"github.com/certctl/certctl/shared/settings"
)

func TestExternalAccountBinding(t *testing.T) {
	t.Parallel()
	const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	ca := pebble.Run(t, pebble.Options{EAB: map[string]string{"kid-1": key}})

	_, err := open(t, configFor(ca, newDisk())).Issue(deadline(t, 60*time.Second), newOrder(t, "a.example"))
	assert.Contains(t, requireClass(t, issuer.ClassRefused, err).Mend, "eab.key_id")

	config := configFor(ca, newDisk())
	config.EAB = &EAB{KeyID: "kid-2", HMACKey: settings.NewSecret(key)}
	_, err = open(t, config).Issue(deadline(t, 60*time.Second), newOrder(t, "a.example"))
	requireClass(t, issuer.ClassRefused, err)
	assert.NotContains(t, err.Error(), key)

	config.EAB = &EAB{KeyID: "kid-1", HMACKey: settings.NewSecret(key + "==")}
	order := newOrder(t, "a.example")
	issued, err := open(t, config).Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err)
	checkIssued(t, order, issued)
}

func TestTheAccountIsReusedAndFoundAgain(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	d := newDisk()
	_, err := open(t, configFor(ca, d)).Issue(deadline(t, 60*time.Second), newOrder(t, uniqueName()))
	require.NoError(t, err)

	second := open(t, configFor(ca, d))
	_, err = second.Issue(deadline(t, 60*time.Second), newOrder(t, uniqueName()))
	require.NoError(t, err)
	assert.Equal(t, 1, ca.Ledger().Accounts, "a restart uses the account that is stored")
	assert.Len(t, d.keys, 1)

	// The answer to newAccount was lost: the key is known there, the URL not here.
	state, err := parseAccountState(d.states["pebble"])
	require.NoError(t, err)
	state.Accounts[0].URL = ""
	d.states["pebble"], err = json.Marshal(state)
	require.NoError(t, err)
	_, err = open(t, configFor(ca, d)).Issue(deadline(t, 60*time.Second), newOrder(t, uniqueName()))
	require.NoError(t, err)
	assert.Equal(t, 1, ca.Ledger().Accounts, "the same key is the same account")

	ids, err := AccountKeyIDs(d.states["pebble"])
	require.NoError(t, err)
	assert.Equal(t, []string{"key-1"}, ids)

	config := configFor(ca, d)
	config.Contact = []string{"new@certctl.test"}
	_, err = open(t, config).Issue(deadline(t, 60*time.Second), newOrder(t, uniqueName()))
	require.NoError(t, err)
	state, err = parseAccountState(d.states["pebble"])
	require.NoError(t, err)
	assert.Equal(t, []string{"new@certctl.test"}, state.Accounts[0].Contact, "accepted by the authority")

	delete(d.keys, "key-1")
	_, err = open(t, configFor(ca, d)).Issue(deadline(t, 60*time.Second), newOrder(t, uniqueName()))
	assert.Contains(t, requireClass(t, issuer.ClassConfig, err).Mend, "restore the key file")
}

func TestAnAuthorityThatForgotEverything(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	d := newDisk()
	i := open(t, configFor(ca, d))
	old := newOrder(t, uniqueName())
	_, err := i.Issue(deadline(t, 60*time.Second), old)
	require.NoError(t, err)

	require.NoError(t, ca.Restart(t.Context()))
	order := newOrder(t, uniqueName())
	issued, err := i.Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err, "the key is registered again")
	checkIssued(t, order, issued)
	assert.Equal(t, 2, ca.Ledger().Accounts)
	assert.Len(t, d.keys, 1, "with the same key")

	_, err = i.Issue(deadline(t, 60*time.Second), old)
	requireClass(t, issuer.ClassOrderGone, err)
}
