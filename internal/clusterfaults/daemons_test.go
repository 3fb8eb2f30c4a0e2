package clusterfaults

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/daemon"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/settings"
)

// daemons are members that are whole coordinators, put together as the program
// does it. The faults of the network are those of the connections below TLS.
type daemons struct {
	nodes map[string]*daemontest.Node // for their settings, and for join tokens
	token string                      // of the API, for an administrator
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

func (d *daemons) found(m *member) {
	d.nodes[m.id].Settings.Cluster.JoinToken = settings.Secret{}
	m.restart()
	m.bench.leader() // it has the CA before it gives out tokens
	d.awaitFounded(m)
}

// awaitFounded waits until the first start has made what the others join with,
// and the token of an administrator.
func (d *daemons) awaitFounded(m *member) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m.bench.eventually(ctx, "the cluster has its authorities", func() bool {
		view := m.bench.leader().node.Load().State().View()
		_, builtin := view.CA()
		_, own := view.ClusterCA()
		_, announced := view.ClusterNode(m.id)
		text, err := os.ReadFile(filepath.Join(d.dir(m), server.AdminTokenFile))
		d.token = strings.TrimSpace(string(text))
		return builtin && own && announced && err == nil && view.Rows(fleet.TableAPITokens) > 0
	})
}

// invite gives a node that is not there yet a join token.
func (d *daemons) invite(b *bench, m *member) {
	token := d.nodes[b.leader().id].JoinToken()
	d.nodes[m.id].Settings.Cluster.JoinToken = settings.NewSecret(token.Reveal())
}

func (d *daemons) join(m *member) {
	d.invite(m.bench, m)
	m.restart()
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
