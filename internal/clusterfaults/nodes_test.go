package clusterfaults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/history"
)

// nodes are members that are nodes of the cluster and nothing else: no work of a
// leader comes between the clients.
type nodes struct{ root string }

func (n *nodes) orders() bool { return true }

func (n *nodes) dir(m *member) string { return filepath.Join(n.root, m.id) }

func (n *nodes) found(b *bench) {
	for _, m := range b.members {
		require.NoError(b.t, os.Mkdir(n.dir(m), 0o700))
		n.make(m)
		require.NoError(b.t, m.start())
	}
}

func (n *nodes) replace(m *member) {
	require.NoError(m.bench.t, emptyDir(n.dir(m)))
	n.make(m)
	require.NoError(m.bench.t, m.start())
}

// make makes the first state of a node.
func (n *nodes) make(m *member) {
	journal, err := history.Create(n.journal(m))
	require.NoError(m.bench.t, err)
	var voters []raft.Server
	for _, voter := range m.bench.members {
		voters = append(voters, raft.Server{ID: raft.ServerID(voter.id), Address: raft.ServerAddress(voter.id)})
	}
	_, transport := raft.NewInmemTransport(raft.ServerAddress(m.id))
	require.NoError(m.bench.t, cluster.Bootstrap(n.config(m, journal, transport), voters))
	require.NoError(m.bench.t, journal.Close())
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
