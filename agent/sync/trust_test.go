package sync

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/coordinatortest"
	"github.com/certctl/certctl/shared/wire"
)

// A host that is there learns of each generation with its syncs, and says so at
// once, because a rotation waits for it.
func TestSyncFollowsRotations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.coord.Pause = 10 * time.Minute
		h.enrol()
		h.start()
		h.pass(time.Second)
		first := h.identity()
		assert.EqualValues(t, 1, first.TrustGeneration, "whoever was enrolled learns the number of what it trusts")
		h.coord.Publish()
		h.pass(12 * time.Minute)
		second := h.identity()
		assert.EqualValues(t, 2, second.TrustGeneration)
		assert.NotEqual(t, first.RootsPEM, second.RootsPEM)
		assert.EqualValues(t, 2, h.agent().Trust.Generation, "it has said so")
		assert.Equal(t, Connected, h.client.State().Standing)
		assert.Zero(t, h.coord.Requests(wire.TrustPath))
		h.restart()
		h.pass(time.Second)
		assert.Equal(t, second.TrustDigest, h.identity().TrustDigest)
	})
}

// Off for a year, with an identity of four hours: three rotations of the root
// later the host knows no root that the server's certificate leads to, and comes
// back by itself. What it had to say arrives, each fact once.
func TestAYearOffAndThreeRotations(t *testing.T) {
	for _, known := range []bool{true, false} { // whether the host knew its generation
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			h.coord.Pause, h.coord.IdentityLifetime = 10*time.Minute, 4*time.Hour
			h.enrol()
			if known {
				h.start()
				h.pass(time.Second)
				h.crash()
				h.open()
			}
			h.order("order-0001", "web")
			h.certificate("web", "coordinator")
			h.fact("long ago")
			for range 3 {
				h.pass(100 * 24 * time.Hour)
				h.coord.Rotate()
			}
			h.pass(65 * 24 * time.Hour)
			h.start()
			h.pass(time.Minute)
			assert.Equal(t, Connected, h.client.State().Standing)
			require.NoError(t, h.converged())
			assert.Equal(t, []string{"long ago"}, details(h.agent()))
			assert.Equal(t, 1, h.coord.Requests(wire.TrustPath))
			assert.Equal(t, 1, h.agent().Promoted)
			assert.Equal(t, 2, h.coord.IdentitiesIssued())
			assert.EqualValues(t, 7, h.identity().TrustGeneration)
			h.pass(time.Hour)
			assert.Equal(t, 1, h.coord.Requests(wire.TrustPath), "and then it knows")
			order, _, err := h.store.Order("order-0001")
			require.NoError(t, err)
			assert.True(t, order.Result == nil || order.Result.State == wire.OrderIssued)
		})
	}
}

// A host that was retired meanwhile learns so, and stays away.
func TestRetiredWhileAwayAndRotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.coord.IdentityLifetime = 4 * time.Hour
		h.enrol()
		h.pass(365 * 24 * time.Hour)
		h.coord.Rotate()
		h.coord.Change(func() { h.coord.AgentLocked(h.agentID).Retired = true })
		h.fact("nobody wants to know")
		h.start()
		h.pass(24 * time.Hour)
		assert.Equal(t, Retired, h.client.State().Standing)
		assert.True(t, h.identity().Retired)
		assert.Empty(t, details(h.agent()))
		assert.Equal(t, 1, h.coord.IdentitiesIssued())
	})
}

// The key of an identity that expired long ago is gone: it says so, with the
// mend, and goes on saying it.
func TestLostKeyAfterAYear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.coord.IdentityLifetime = 4 * time.Hour
		h.enrol()
		h.pass(365 * 24 * time.Hour)
		h.coord.Rotate()
		require.NoError(t, h.keys.Remove(h.identity().KeyID))
		h.start()
		h.pass(time.Hour)
		assert.Equal(t, CutOff, h.client.State().Standing)
		assert.Contains(t, h.client.State().LastError, "restore the key directory from a backup, or enrol again with --replace")
		assert.Equal(t, h.client.State().LastError, h.client.State().IdentityProblem, "a person has to mend it")
		assert.Zero(t, h.coord.Requests(wire.TrustPath))
	})
}

// Whatever does not continue what the host trusts changes nothing, is told with
// its mend, and is not asked for in a hurry.
func TestChainsThatAreRefused(t *testing.T) {
	other := func(h *host) [][]byte {
		foreign := coordinatortest.New(h.t)
		foreign.Rotate()
		return *foreign.Chain()
	}
	for name, spoil := range map[string]func(h *host, chain [][]byte) [][]byte{
		"another coordinator": func(h *host, _ [][]byte) [][]byte { return other(h) },
		"a gap":               func(_ *host, chain [][]byte) [][]byte { return append(copied(chain[:2]), chain[3:]...) },
		"another order":       func(_ *host, chain [][]byte) [][]byte { return [][]byte{chain[0], chain[2], chain[1]} },
		"an altered one": func(_ *host, chain [][]byte) [][]byte {
			chain[1] = bytes.Clone(chain[1])
			chain[1][len(chain[1])-1] ^= 1
			return chain
		},
		"rubbish":  func(*host, [][]byte) [][]byte { return [][]byte{[]byte("rubbish")} },
		"the past": func(_ *host, chain [][]byte) [][]byte { return chain[:1] },
		"nothing":  func(*host, [][]byte) [][]byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				h.enrol()
				h.start()
				h.pass(time.Second)
				h.crash()
				h.open()
				before := h.identity()
				h.coord.Rotate()
				h.coord.Rotate()
				h.coord.Change(func() { *h.coord.Chain() = spoil(h, copied(*h.coord.Chain())) })
				syncs := h.coord.Requests(wire.SyncPath)
				h.start()
				h.pass(time.Hour)
				assert.Equal(t, before, h.identity(), "what is trusted stays")
				state := h.client.State()
				assert.Equal(t, CutOff, state.Standing)
				assert.Contains(t, state.LastError, "unknown authority")
				if name != "nothing" && name != "the past" {
					assert.Contains(t, state.LastError, "nothing was told to it")
					assert.Contains(t, state.LastError, "--replace")
				}
				assert.Equal(t, syncs, h.coord.Requests(wire.SyncPath), "nothing was sent")
				assert.Less(t, h.coord.Requests(wire.TrustPath), 100)
			})
		})
	}
}

func copied(chain [][]byte) [][]byte { return append([][]byte(nil), chain...) }

// A chain that comes with an answer and is refused keeps nothing else away, and
// is asked for again an hour later.
func TestARefusedChainInAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		right := copied(*h.coord.Chain())
		foreign := coordinatortest.New(t)
		h.coord.Change(func() { *h.coord.Chain() = *foreign.Chain() })
		h.certificate("a", "issuer")
		h.start()
		h.pass(10 * time.Minute)
		require.NoError(t, h.converged())
		assert.Equal(t, Connected, h.client.State().Standing)
		assert.Nil(t, h.agent().Trust, "it does not ask for it")
		h.coord.Change(func() { *h.coord.Chain() = right })
		h.pass(2 * time.Hour)
		assert.EqualValues(t, 1, h.identity().TrustGeneration)
	})
}

// A crash around the write that takes over new roots, a lost answer, and a
// rotation of the root in the middle of the renewal of the identity.
func TestFollowingSurvivesACrash(t *testing.T) {
	for _, after := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			h.enrol()
			h.coord.Rotate()
			client, err := New(Config{Store: h.store, Keys: h.keys, Log: h.log})
			require.NoError(t, err)
			client.dial = h.network.Dial
			client.identities = &faultyIdentities{identities: h.store, failAt: 1, after: after}
			crashed := make(chan error, 1)
			go func() { crashed <- client.Run(t.Context()) }()
			h.pass(time.Minute)
			require.ErrorIs(t, <-crashed, errCrash)
			h.restart()
			h.pass(time.Minute)
			assert.Equal(t, Connected, h.client.State().Standing)
			assert.EqualValues(t, 3, h.identity().TrustGeneration)
		})
	}
	for _, fault := range []coordinatortest.Fault{coordinatortest.Drop, coordinatortest.Lose, coordinatortest.Truncate, coordinatortest.Unavailable, coordinatortest.Proxy} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			h.enrol()
			h.coord.Rotate()
			once := fault
			h.coord.Fault = func(r *http.Request) (f coordinatortest.Fault) {
				if r.URL.Path == wire.TrustPath {
					f, once = once, coordinatortest.None
				}
				return f
			}
			h.start()
			h.pass(10 * time.Minute)
			assert.Equal(t, Connected, h.client.State().Standing)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.coord.Pause, h.coord.IdentityLifetime = 10*time.Minute, 4*time.Hour
		h.enrol()
		rotated := false
		h.coord.Body = func([]byte) {
			if h.client.link != nil && h.client.link.pending && !rotated {
				rotated = true
				go h.coord.Publish() // before the new identity is used for the first time
			}
		}
		h.start()
		h.pass(4 * time.Hour)
		require.True(t, rotated)
		identity := h.identity()
		assert.EqualValues(t, 2, identity.TrustGeneration)
		assert.Equal(t, 2, strings.Count(identity.RootsPEM, "BEGIN CERTIFICATE"), "the roots are those of the generation")
		assert.Equal(t, Connected, h.client.State().Standing)
	})
}

func TestDistrusted(t *testing.T) {
	assert.True(t, distrusted(errors.Join(x509.UnknownAuthorityError{})))
	assert.True(t, distrusted(x509.CertificateInvalidError{Reason: x509.Expired}))
	assert.False(t, distrusted(x509.CertificateInvalidError{Reason: x509.NameMismatch}))
	assert.False(t, distrusted(x509.HostnameError{}))
	assert.False(t, distrusted(nil))
	_, err := heldBy(&store.Identity{RootsPEM: "x"})
	assert.ErrorContains(t, err, "roots")
}
