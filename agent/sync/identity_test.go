package sync

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/coordinatortest"
	"github.com/certctl/certctl/shared/wire"
)

var errCrash = errors.New("the process ended here")

// faultyIdentities fails reads, or the nth write before or after it is stored.
type faultyIdentities struct {
	identities
	read   error
	failAt int // 1 is the first write; 0 is none
	after  bool
	writes int
}

func (f *faultyIdentities) Identity() (*store.Identity, error) {
	if f.read != nil {
		return nil, f.read
	}
	return f.identities.Identity()
}

func (f *faultyIdentities) UpdateIdentity(fn func(*store.Identity) (*store.Identity, error), events ...wire.Event) error {
	f.writes++
	if f.writes != f.failAt {
		return f.identities.UpdateIdentity(fn, events...)
	}
	if f.after {
		if err := f.identities.UpdateIdentity(fn, events...); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %w", store.ErrStateUnknown, errCrash)
}

func keyFiles(t *testing.T, h *host) int {
	entries, err := os.ReadDir(filepath.Join(h.dir, "keys"))
	require.NoError(t, err)
	return len(entries)
}

// A crash before or after each write of a renewal, and a lost answer of each
// request of it, lead to one new identity that is in use, and one fact.
func TestIdentityRenewalSurvivesACrashAnywhere(t *testing.T) {
	const writes = 3 // key, certificate, switch
	type point struct {
		write int
		after bool
		fault coordinatortest.Fault
		path  string
	}
	points := []point{{}}
	for w := 1; w <= writes; w++ {
		points = append(points, point{write: w}, point{write: w, after: true})
	}
	for _, path := range []string{wire.IdentityPath, wire.SyncPath} {
		for _, fault := range []coordinatortest.Fault{coordinatortest.Drop, coordinatortest.Lose, coordinatortest.Truncate, coordinatortest.Repeat} {
			points = append(points, point{fault: fault, path: path})
		}
	}
	for _, p := range points {
		t.Run(fmt.Sprintf("%+v", p), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				h.coord.Pause, h.coord.IdentityLifetime = 10*time.Minute, 4*time.Hour
				h.enrol()
				first := h.identity()
				faulty := &faultyIdentities{identities: h.store, failAt: p.write, after: p.after}
				if p.write > 0 {
					client, err := New(Config{Store: h.store, Keys: h.keys, Log: h.log})
					require.NoError(t, err)
					client.dial = h.network.Dial
					client.identities = faulty
					crashed := make(chan error, 1)
					go func() { crashed <- client.Run(t.Context()) }()
					h.pass(3 * time.Hour)
					require.ErrorIs(t, <-crashed, errCrash)
					h.crash()
					h.open()
				}
				once := p.fault
				h.coord.Change(func() {
					h.coord.Fault = func(r *http.Request) coordinatortest.Fault {
						if r.URL.Path == p.path && (p.path == wire.IdentityPath || h.client.link.pending) {
							fault := once
							once = coordinatortest.None
							return fault
						}
						return coordinatortest.None
					}
				})
				h.start()
				if p.write > 0 {
					h.pass(30 * time.Minute)
				} else {
					h.pass(3 * time.Hour)
				}
				identity := h.identity()
				assert.NotEqual(t, first.KeyID, identity.KeyID)
				assert.NotEqual(t, first.ChainPEM, identity.ChainPEM)
				assert.Nil(t, identity.Pending)
				assert.Equal(t, Connected, h.client.State().Standing)
				assert.True(t, identity.RenewAt.After(time.Now()))
				facts := 0
				for _, e := range h.agent().Events {
					if e.Kind == wire.EventIdentityRenewed {
						facts++
					}
				}
				assert.Equal(t, h.agent().Promoted, facts)
				// Only a crash can leave a file: the sweep of the key directory
				// is for those.
				left := 1
				if p.write > 0 {
					left = 2
				}
				assert.LessOrEqual(t, keyFiles(t, h), left)
				_, err := h.keys.Load(identity.KeyID)
				assert.NoError(t, err)
			})
		})
	}
}

// Off for a year: the expired identity may do one thing, and does it.
func TestExpiredIdentityRenewsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.coord.Pause, h.coord.IdentityLifetime = 10*time.Minute, 4*time.Hour
		h.enrol()
		h.pass(365 * 24 * time.Hour)
		h.fact("long ago")
		h.start()
		h.pass(time.Minute)
		assert.Equal(t, Connected, h.client.State().Standing)
		assert.Equal(t, []string{"long ago"}, details(h.agent()))
		assert.Equal(t, 2, h.coord.IdentitiesIssued())
		assert.Equal(t, 1, h.agent().Promoted)
	})
}

// The same with a renewal under way: its certificate has expired unused.
func TestExpiredPendingIdentityIsRenewed(t *testing.T) {
	for _, promoted := range []bool{false, true} {
		t.Run(fmt.Sprint(promoted), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				h.coord.Pause, h.coord.IdentityLifetime = 10*time.Minute, 4*time.Hour
				h.enrol()
				reached := false
				h.coord.Fault = func(*http.Request) coordinatortest.Fault {
					// From the first use of the new certificate on.
					if reached = reached || h.client.link.pending; !reached {
						return coordinatortest.None
					}
					if promoted {
						return coordinatortest.Lose
					}
					return coordinatortest.Drop
				}
				h.start()
				h.pass(3 * time.Hour)
				h.crash()
				h.coord.Change(func() { require.True(t, reached) })
				h.coord.Change(func() { h.coord.Fault = nil })
				h.pass(365 * 24 * time.Hour)
				h.open()
				require.NotEmpty(t, h.identity().Pending.ChainPEM)
				h.start()
				h.pass(10 * time.Minute)
				assert.Equal(t, Connected, h.client.State().Standing)
				assert.Nil(t, h.identity().Pending)
			})
		})
	}
}

// The coordinator was restored from a backup that is older than the renewal.
func TestUnknownNewIdentityFallsBackToTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.coord.Pause, h.coord.IdentityLifetime = 10*time.Minute, 4*time.Hour
		h.enrol()
		h.coord.Fault = func(*http.Request) coordinatortest.Fault {
			if h.client.link.pending {
				return coordinatortest.Drop
			}
			return coordinatortest.None
		}
		h.start()
		h.pass(3 * time.Hour)
		require.NotNil(t, h.identity().Pending)
		h.coord.Change(func() { h.coord.AgentLocked(h.agentID).Pending = "" })
		h.coord.Change(func() { h.coord.Fault = nil })
		h.pass(50 * time.Minute)
		assert.Equal(t, Connected, h.client.State().Standing)
		assert.Nil(t, h.identity().Pending)
		assert.Equal(t, 1, h.agent().Promoted, "and then it was renewed")
	})
}

// A key file that is gone: the new one is made again, the present one is
// reported with its mend.
func TestMissingKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.coord.Pause, h.coord.IdentityLifetime = 10*time.Minute, 4*time.Hour
		h.enrol()
		require.NoError(t, h.store.UpdateIdentity(func(i *store.Identity) (*store.Identity, error) {
			i.Pending = &store.PendingIdentity{KeyID: "0123456789abcdef0123456789abcdef", ChainPEM: i.ChainPEM}
			return i, nil
		}))
		h.start()
		h.pass(time.Minute)
		assert.Equal(t, Connected, h.client.State().Standing)
		assert.Nil(t, h.identity().Pending)

		require.NoError(t, h.keys.Remove(h.identity().KeyID))
		h.restart()
		h.pass(time.Minute)
		assert.Equal(t, CutOff, h.client.State().Standing)
		assert.Contains(t, h.client.State().LastError, "enrol again with --replace")
	})
}
