package clusterfaults

import (
	"context"
	"errors"
	"fmt"
	"net"

	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/daemon"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/jointoken"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/settings"
)

// daemons are members that are whole coordinators, put together as the program
// does it. The faults of the network are those of the connections below TLS.
type daemons struct {
	nodes map[string]*daemontest.Node // for their settings, and for join tokens
}

func newDaemons(t testing.TB) *daemons {
	d := &daemons{nodes: map[string]*daemontest.Node{}}
	for i := range 3 {
		id := fmt.Sprintf("node%d", i)
		d.nodes[id] = daemontest.NewNode(t, id, daemontest.Options{})
		d.nodes[id].Settings.Cluster.ElectionTimeout = electionTimeout
	}
	return d
}

// orders: the leader completes them as soon as it sees them.
func (d *daemons) orders() bool { return false }

func (d *daemons) dir(m *member) string { return d.nodes[m.id].Settings.DataDir }

func (d *daemons) found(b *bench) {
	for i, m := range b.members {
		if i > 0 {
			d.invite(b, m)
		}
		require.NoError(b.t, m.start())
		b.leader() // it has the CA before it gives out tokens
		d.awaitFounded(b)
	}
	d.awaitVoters(b)
}

// awaitFounded waits until the first start has made what the others join with.
func (d *daemons) awaitFounded(b *bench) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.eventually(ctx, "the cluster has its authorities", func() bool {
		view := b.leader().node.Load().State().View()
		_, builtin := view.CA()
		_, own := view.ClusterCA()
		return builtin && own
	})
}

func (d *daemons) awaitVoters(b *bench) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.eventually(ctx, "all have a vote", func() bool {
		members, _ := b.leader().node.Load().Members()
		voters := 0
		for _, member := range members {
			if member.Voter {
				voters++
			}
		}
		return voters == len(b.members)
	})
}

// invite gives a node that is not there yet a join token.
func (d *daemons) invite(b *bench, m *member) {
	var token jointoken.Token
	for _, other := range b.members {
		if other != m && other.node.Load() != nil {
			token = d.nodes[other.id].JoinToken()
			break
		}
	}
	d.nodes[m.id].Settings.Cluster.JoinToken = settings.NewSecret(token.Reveal())
}

func (d *daemons) replace(m *member) {
	b := m.bench
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.eventually(ctx, m.id+" is removed", func() bool {
		node := b.leader().node.Load()
		if err := node.RemoveMember(ctx, m.id, 0, ""); err != nil && !errors.Is(err, cluster.ErrNoMember) {
			return false
		}
		_, known := node.State().View().ClusterNode(m.id)
		return !known
	})
	require.NoError(b.t, emptyDir(d.dir(m)))
	d.invite(b, m)
	require.NoError(b.t, m.start())
	d.awaitVoters(b)
}

func (d *daemons) open(m *member) (*opened, error) {
	n := d.nodes[m.id]
	s := new(config.Settings)
	*s = *n.Settings
	names, err := server.NamesOf(append(s.ServerNames(), "127.0.0.1"))
	require.NoError(m.bench.t, err)
	o := &opened{}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m.bench.network.plug(m.id, s.Cluster.Listen)
	whole, err := daemon.New(ctx, daemon.Config{
		Settings: s, Names: names, Log: m.log(),
		Faults: daemon.Faults{
			Dial: func(ctx context.Context, address string) (net.Conn, error) {
				return m.bench.network.dial(ctx, m.id, d.at(address))
			},
			Cluster: func(c *cluster.Config) {
				o.journal = c.Journal.(*history.Journal)
				m.configure(c)
			},
		},
	})
	if err != nil {
		m.bench.network.unplug(m.id)
		return nil, err
	}
	n.Daemon = whole
	o.node, o.run = whole.Node(), whole.Run
	return o, nil
}

// at is who listens at an address.
func (d *daemons) at(address string) string {
	for id, n := range d.nodes {
		if n.Settings.Cluster.Listen == address {
			return id
		}
	}
	return address
}

// The same with whole coordinators, which talk to each other over TLS, find and
// admit each other by their certificates, and work beside the clients.
func TestFaultsOfWholeCoordinators(t *testing.T) {
	t.Parallel()
	b := newBench(t, seedOf(t), newDaemons(t))
	proveFaults(b, times(1, 10), "cluster-faults-whole")
}
