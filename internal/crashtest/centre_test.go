//go:build unix

package crashtest

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	agentsync "github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/agent/sync/coordinatortest"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// centre is the host's coordinator and the way to it.
type centre struct {
	*coordinatortest.Coordinator
	network *coordinatortest.Memory
	agent   string
	renewAt time.Time // of that
	// renewals is how often the identity is to be renewed.
	renewals int
}

// enrol gives the host a coordinator, and an identity there.
func (w *world) enrol() {
	w.t.Helper()
	c := &centre{Coordinator: coordinatortest.New(w.t)}
	c.serve(w.t)
	state := filepath.Join(w.root, "state")
	require.NoError(w.t, os.Mkdir(state, 0o700))
	s, err := store.Open(filepath.Join(state, "state.db"), store.Options{})
	require.NoError(w.t, err)
	dir, err := keys.OpenDir(w.keys("identity"))
	require.NoError(w.t, err)
	id, key, err := dir.Create(pki.DefaultKeyAlgorithm)
	require.NoError(w.t, err)
	require.NoError(w.t, os.Chtimes(filepath.Join(w.keys("identity"), id+".key.pem"), time.Now(), time.Now()))
	identity := c.Join(key.Public())
	identity.KeyID, identity.NamePatterns = id, []string{"*.example.com"}
	require.NoError(w.t, s.SaveIdentity(identity))
	require.NoError(w.t, s.Close())
	c.agent, c.renewAt = identity.AgentID, identity.RenewAt
	w.centre = c
}

// serve begins to answer. Nothing answers before, nor after the test's end.
func (c *centre) serve(t *testing.T) {
	c.network = coordinatortest.NewMemory()
	c.Serve(c.network)
	t.Cleanup(func() { _ = c.network.Close() })
}

func (c *centre) clone(t *testing.T) *centre {
	d := *c
	d.Coordinator, d.network = c.Clone(t), nil
	return &d
}

// connect makes the agent's side of sync; nil if there is no coordinator.
func (w *world) connect(dir *keys.Dir) (*agentsync.Client, error) {
	if w.centre == nil {
		return nil, nil
	}
	return agentsync.New(agentsync.Config{
		Store: w.store, Keys: dir, Host: wire.HostReport{Hostname: "web1", OS: "linux"}, Log: slog.New(slog.DiscardHandler),
		Dial: w.centre.network.Dial, OnResult: func(certificate string) { w.engine.Wake(certificate) },
		OnDesired: func() {
			select {
			case w.desired <- struct{}{}:
			default: // one is on its way
			}
		},
	})
}

// agreed reports whether the coordinator has been told everything.
func (w *world) agreed() bool {
	w.t.Helper()
	changes, err := w.store.Changes(0, 0)
	require.NoError(w.t, err)
	events, err := w.store.Events(0)
	require.NoError(w.t, err)
	open, err := w.store.OpenOrders()
	require.NoError(w.t, err)
	collected, err := w.store.CollectedOrders()
	require.NoError(w.t, err)
	identity, err := w.store.Identity()
	require.NoError(w.t, err)
	same, promoted := false, 0
	w.centre.Change(func() {
		agent := w.centre.AgentLocked(w.centre.agent)
		same, promoted = agent.Digest() == changes.Digest, agent.Promoted
	})
	return same && len(events)+len(open)+len(collected) == 0 && identity.Pending == nil && promoted >= w.centre.renewals
}

// issued adds the fingerprints of the certificates that were issued for orders,
// and returns how many there are.
func (c *centre) issued(all map[string]bool) (count int) {
	c.Change(func() {
		for _, result := range c.AgentLocked(c.agent).Orders {
			if result.Chain == "" {
				continue
			}
			chain, err := pki.ParseChainPEM([]byte(result.Chain))
			if err != nil {
				panic(err) // it made it
			}
			count++
			all[pki.Fingerprint(chain[0])] = true
		}
	})
	return count
}

// told are the facts that the coordinator has stored.
func (c *centre) told() (events []wire.Event) {
	c.Change(func() { events = slices.Clone(c.AgentLocked(c.agent).Events) })
	return events
}

// identities is how often the identity was to be renewed; each renewal has one
// certificate, also where an answer was lost.
func (w *world) identities() int {
	if w.centre == nil {
		return 0
	}
	if issued := w.centre.IdentitiesIssued(); issued != 1+w.centre.renewals {
		w.bench.duplicates.Add(int64(issued - 1 - w.centre.renewals))
		w.t.Errorf("%s: %d identities were issued for %d renewals", w.label, issued, w.centre.renewals)
	}
	return w.centre.renewals
}
