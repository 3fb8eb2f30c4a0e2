package peer

import (
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/fleet"
)

// tally is a state machine that keeps what it was given.
type tally struct {
	mu      sync.Mutex
	entries []string
}

func (m *tally) Apply(entry *raft.Log) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries = append(m.entries, string(entry.Data))
	return nil
}

func (m *tally) Snapshot() (raft.FSMSnapshot, error)  { return nil, fmt.Errorf("no snapshots here") }
func (m *tally) Restore(snapshot io.ReadCloser) error { return snapshot.Close() }

func (m *tally) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.entries...)
}

// A voter is a node with Raft on it.
type voter struct {
	*resident
	raft      *raft.Raft
	transport *raft.NetworkTransport
	machine   *tally
}

func (w *town) voters(ids ...string) []*voter {
	w.t.Helper()
	var all []*voter
	var servers []raft.Server
	for _, id := range ids {
		v := &voter{resident: w.settle(id, true), machine: &tally{}}
		v.OnClosed(func() { v.transport.CloseStreams() })
		all = append(all, v)
		servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(v.address)})
	}
	for _, v := range all {
		v.transport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: v.StreamLayer(), MaxPool: 3, Timeout: 10 * time.Second, Logger: hclog.NewNullLogger(),
		})
		config := raft.DefaultConfig()
		config.LocalID, config.Logger = raft.ServerID(v.identity.ID()), hclog.NewNullLogger()
		config.HeartbeatTimeout, config.ElectionTimeout = 500*time.Millisecond, 500*time.Millisecond
		config.LeaderLeaseTimeout = 250 * time.Millisecond
		store := raft.NewInmemStore()
		require.NoError(w.t, raft.BootstrapCluster(config, store, store, raft.NewInmemSnapshotStore(), v.transport, raft.Configuration{Servers: servers}))
		v.start()
		node, err := raft.NewRaft(config, v.machine, store, store, raft.NewInmemSnapshotStore(), v.transport)
		require.NoError(w.t, err)
		v.raft = node
		w.t.Cleanup(func() {
			assert.NoError(w.t, node.Shutdown().Error())
			assert.NoError(w.t, v.transport.Close())
		})
	}
	return all
}

// commit has an entry committed, by whichever node leads.
func commit(t testing.TB, all []*voter, entry string) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, v := range all {
			if v.raft.State() == raft.Leader && v.raft.Apply([]byte(entry), 10*time.Second).Error() == nil {
				return true
			}
		}
		return false
	}, patience, 10*time.Millisecond, "%s is not committed", entry)
}

func agree(t testing.TB, all []*voter, entry string) {
	t.Helper()
	for _, v := range all {
		require.Eventually(t, func() bool {
			list := v.machine.all()
			return len(list) > 0 && list[len(list)-1] == entry
		}, patience, 10*time.Millisecond, "%s does not come to node %s", entry, v.identity.ID())
	}
}

// Three nodes elect a leader and commit over these streams, through a renewal of
// all certificates and a rotation of the root.
func TestRaftRunsOverTheStreams(t *testing.T) {
	w := newTown(t)
	all := w.voters("a", "b", "c")
	commit(t, all, "first")
	agree(t, all, "first")

	for _, v := range all {
		renewed, err := v.identity.Renew(true)
		require.NoError(t, err)
		require.True(t, renewed)
	}
	commit(t, all, "after the renewal")
	agree(t, all, "after the renewal")

	identities := make([]*Identity, len(all))
	for i, v := range all {
		identities[i] = v.identity
	}
	steps := 0
	w.rotate(identities, func() {
		steps++
		entry := fmt.Sprintf("step %d of the rotation", steps)
		commit(t, all, entry)
		agree(t, all, entry)
	})
	assert.Equal(t, 3, steps)
	// Whichever side ended them: what the old root vouched for is gone.
	for _, v := range all {
		assert.Eventually(t, v.upToDate, patience, time.Millisecond)
	}
}

// upToDate reports whether all connections are by certificates of roots that are
// trusted.
func (r *resident) upToDate() bool {
	roots := r.identity.current.Load().roots
	r.Network.mu.Lock()
	defer r.Network.mu.Unlock()
	for c := range r.conns {
		if roots.SignerOf(c.chain[0]) == "" || roots.SignerOf(c.own) == "" {
			return false
		}
	}
	return true
}

// rotate replaces the town's root as the leader's work does it, and calls each
// after each step that all nodes have taken over.
func (w *town) rotate(identities []*Identity, each func()) {
	w.t.Helper()
	take := func(change fleet.ChangeClusterCA) {
		require.Equal(w.t, w.stored.ModifyIndex, change.PrevIndex)
		w.stored = &fleet.ClusterCA{Authorities: change.Authorities, ModifyIndex: w.stored.ModifyIndex + 1}
		for _, i := range identities {
			changed, err := i.Adopt(w.stored)
			require.NoError(w.t, err)
			require.True(w.t, changed)
		}
		each()
	}
	change, err := clusterca.Begin(w.stored, w.seal, "test", time.Now())
	require.NoError(w.t, err)
	take(change)
	for {
		var nodes []*fleet.ClusterNode
		var members []string
		for _, i := range identities {
			n := new(fleet.ClusterNode)
			require.NoError(w.t, i.Describe(n))
			nodes, members = append(nodes, n), append(members, n.ID)
		}
		change, progress, err := clusterca.Next(w.stored, nodes, members, "test")
		require.NoError(w.t, err)
		require.Empty(w.t, progress.Waiting)
		if change == nil {
			return
		}
		take(*change)
	}
}

// A node that was removed is out: its streams end, and its wish to be elected, as
// it has not heard of the removal, reaches nobody.
func TestRaftGoesOnWithoutARemovedNode(t *testing.T) {
	w := newTown(t)
	all := w.voters("a", "b", "c")
	commit(t, all, "first")
	agree(t, all, "first")
	var removed *voter
	var rest []*voter
	require.Eventually(t, func() bool {
		rest = nil
		for _, v := range all {
			if v.raft.State() == raft.Leader {
				rest = append(rest, v)
			}
		}
		return len(rest) == 1
	}, patience, 10*time.Millisecond)
	for _, v := range all {
		switch {
		case v == rest[0]:
		case removed == nil:
			removed = v
		default:
			rest = append(rest, v)
		}
	}
	id := removed.identity.ID()
	removed.mu.Lock()
	removed.view = map[string]string{} // it hears of nothing any more
	for _, v := range all {
		removed.view[v.identity.ID()] = v.address
	}
	removed.mu.Unlock()
	w.leave(id)
	for _, v := range rest {
		v.CloseExcept(v.Member)
	}
	require.Eventually(t, func() bool {
		for _, v := range rest {
			if v.raft.State() == raft.Leader && v.raft.RemoveServer(raft.ServerID(id), 0, 10*time.Second).Error() == nil {
				return true
			}
		}
		return false
	}, patience, 10*time.Millisecond)
	commit(t, rest, "without it")
	agree(t, rest, "without it")
	require.Eventually(t, func() bool { return removed.raft.State() == raft.Candidate }, patience, 10*time.Millisecond)
	require.Eventually(t, func() bool {
		for _, v := range rest {
			if v.Stats().Refused[reasonNotMember] < 3 {
				return false
			}
		}
		return true
	}, patience, 10*time.Millisecond, "it comes again and again")
	commit(t, rest, "undisturbed")
	agree(t, rest, "undisturbed")
	for _, v := range rest {
		for kind := range v.Stats().Connections {
			assert.NotEqual(t, id, kind.Peer)
		}
	}
	assert.NotContains(t, removed.machine.all(), "without it")
}
