package clusterfaults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/recovery"
)

// nodes are members that are nodes of the cluster and nothing else: no work of a
// leader comes between the clients.
type nodes struct{ root string }

func (n *nodes) orders() bool { return true }

func (n *nodes) dir(m *member) string { return filepath.Join(n.root, m.id) }

func (n *nodes) found(m *member) {
	n.make(m, func(c cluster.Config) error {
		return cluster.Bootstrap(c, []raft.Server{{ID: raft.ServerID(m.id), Address: raft.ServerAddress(m.id)}})
	})
	m.restart()
}

func (n *nodes) join(m *member) {
	b := m.bench
	var members []raft.Server
	known, _ := b.leader().node.Load().Members()
	for _, other := range known {
		members = append(members, raft.Server{ID: raft.ServerID(other.ID), Address: raft.ServerAddress(other.Address)})
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	admitted := uint64(0)
	b.eventually(ctx, m.id+" is let in", func() bool {
		leader := b.leader().node.Load()
		if leader.AddMember(ctx, m.id, m.id, 0) != nil {
			return false
		}
		_, admitted = leader.Members()
		return true
	})
	n.make(m, func(c cluster.Config) error { return cluster.Prepare(c, members, nil, admitted) })
	m.restart()
}

// make makes the first state of a node.
func (n *nodes) make(m *member, fill func(cluster.Config) error) {
	require.NoError(m.bench.t, os.MkdirAll(n.dir(m), 0o700))
	journal, err := history.Create(n.journal(m))
	require.NoError(m.bench.t, err)
	_, transport := raft.NewInmemTransport(raft.ServerAddress(m.id))
	require.NoError(m.bench.t, fill(n.config(m, journal, transport)))
	require.NoError(m.bench.t, journal.Close())
}

func (n *nodes) recover(m *member) *recovery.Comparison {
	t := m.bench.t
	report := &recovery.Report{Report: *m.inspect()}
	plan, err := recovery.Compare([]*recovery.Report{report})
	require.NoError(t, err)
	journal, err := history.Open(n.journal(m))
	require.NoError(t, err)
	_, transport := raft.NewInmemTransport(raft.ServerAddress(m.id))
	require.NoError(t, cluster.Recover(context.Background(), n.config(m, journal, transport), cluster.PlanRecovery(&report.Report, m.id, time.Now())))
	require.NoError(t, journal.Close())
	// The next recovery puts its old state aside under the same name if it comes in
	// the same second.
	require.NoError(t, removeKept(n.dir(m)))
	return plan
}

func (n *nodes) save(m *member) snapshot {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := m.node.Load().ConsistentIndex(ctx)
	require.NoError(m.bench.t, err)
	pinned := m.node.Load().State().Snapshot()
	s := snapshot{index: pinned.Index()}
	packer, err := fleet.NewRestorePacker(func(piece []byte) error {
		s.pieces = append(s.pieces, bytes.Clone(piece))
		return nil
	})
	require.NoError(m.bench.t, err)
	require.NoError(m.bench.t, pinned.Persist(packer))
	require.NoError(m.bench.t, packer.Close())
	return s
}

func (n *nodes) restore(m *member, s snapshot) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return m.node.Load().Restore(ctx, cluster.Restoration{
		Index: s.index, Pieces: s.pieces, Now: m.now,
		Note: fleet.NoteRestore{Actor: "local", Snapshot: "of a fault", TakenAt: time.Now(), SnapshotIndex: s.index},
	})
}

func (n *nodes) journal(m *member) history.Config {
	return history.Config{Path: filepath.Join(n.dir(m), "journal.db"), Log: slog.New(slog.DiscardHandler)}
}

func (n *nodes) config(m *member, journal cluster.Journal, transport raft.Transport) cluster.Config {
	c := cluster.Config{
		Dir: n.dir(m), NodeID: m.id, Journal: journal, Log: m.log(), Transport: transport, Peers: &calls{bench: m.bench, from: m.id},
	}
	m.configure(&c)
	return c
}

func (n *nodes) open(m *member) (*opened, error) {
	journal, err := history.Open(n.journal(m))
	if err != nil {
		return nil, err
	}
	listener, err := m.bench.network.listen(m.id)
	require.NoError(m.bench.t, err)
	transport := cluster.NewTransport(&streams{Listener: listener, network: m.bench.network, node: m.id}, slog.New(slog.DiscardHandler))
	node, err := cluster.Open(n.config(m, journal, transport))
	if err != nil {
		m.bench.network.unplug(m.id)
		return nil, errors.Join(err, transport.Close(), journal.Close())
	}
	return &opened{node: node, journal: journal, run: func(ctx context.Context) error {
		return errors.Join(node.Run(ctx), journal.Close())
	}}, nil
}

// calls are those of one node to the others, over the same links as Raft's.
type calls struct {
	bench *bench
	from  string
}

// Call implements cluster.Caller.
func (c *calls) Call(ctx context.Context, id, _, method string, request []byte) ([]byte, error) {
	network := c.bench.network
	if !network.plugged(id) || !network.plugged(c.from) || !network.link(c.from, id).pass(ctx, network.draw) {
		return nil, fmt.Errorf("call %s: it is not reached", id)
	}
	for _, m := range c.bench.members {
		node := m.node.Load()
		if m.id != id || node == nil {
			continue
		}
		answer, err := node.HandleCall(ctx, c.from, method, request)
		if err != nil || !network.link(id, c.from).pass(ctx, network.draw) || !network.plugged(id) || !network.plugged(c.from) {
			return nil, errors.Join(err, fmt.Errorf("call %s: no answer", id))
		}
		return answer, nil
	}
	return nil, fmt.Errorf("call %s: it is down", id)
}
