// Package daemontest runs whole coordinators in the process of a test, one or
// several that form a cluster, put together as the program does it: with real
// ports on loopback, real disks, real certificates and the way in through a join
// token.
package daemontest

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/daemon"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/jointoken"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/internal/testca"
	"github.com/certctl/certctl/shared/settings"
)

// patience bounds every wait of this package.
const patience = 2 * time.Minute

// Options of a node. The zero value is a node with its own data directory and
// ports, and short waits.
type Options struct {
	// Change changes the settings before each start.
	Change func(*config.Settings)
	Faults daemon.Faults
	Log    *slog.Logger // nil discards it
}

// Node is one coordinator. It keeps its data directory and its ports when it is
// stopped and started again. Its methods belong to the goroutine of the test.
type Node struct {
	*daemon.Daemon // of the present run
	// ID is the node's name.
	ID string
	// Settings are those of the next start.
	Settings *config.Settings

	t       testing.TB
	options Options
	cancel  context.CancelFunc
	ended   chan struct{}
	failure error // valid once ended is closed
}

// NewNode makes a node that does not run yet.
func NewNode(t testing.TB, id string, options Options) *Node {
	t.Helper()
	s := new(config.Settings)
	_, err := settings.Load(s, settings.Options{})
	require.NoError(t, err)
	ports, err := testca.Ports(2)
	require.NoError(t, err)
	s.DataDir, s.NodeID = filepath.Join(t.TempDir(), "data"), id
	s.Server.Listen = net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	s.Server.URL = "https://" + s.Server.Listen
	s.Cluster.Listen = net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1]))
	s.Cluster.Stabilization = time.Second
	s.Backups.Interval = 0
	return &Node{ID: id, Settings: s, t: t, options: options}
}

// Start runs the node and returns when it answers. The test's end stops it.
func (n *Node) Start() {
	n.t.Helper()
	ready := n.Begin()
	select {
	case <-ready:
	case <-n.ended:
		require.NoError(n.t, n.failure)
		require.Fail(n.t, "the node has ended by itself")
	case <-time.After(patience):
		require.Fail(n.t, "the node does not get ready", n.ID)
	}
}

// Begin runs the node, and returns a channel that is closed when it answers,
// which takes a leader.
func (n *Node) Begin() (ready <-chan struct{}) {
	n.t.Helper()
	answers := make(chan struct{})
	c := n.config()
	c.Ready = func() { close(answers) }
	ctx, cancel := context.WithCancel(context.Background())
	opening, opened := context.WithTimeout(ctx, patience)
	defer opened()
	var err error
	n.Daemon, err = daemon.New(opening, c)
	if err != nil {
		cancel()
	}
	require.NoError(n.t, err)
	n.cancel, n.ended = cancel, make(chan struct{})
	go func(d *daemon.Daemon, ended chan struct{}) {
		defer close(ended)
		n.failure = d.Run(ctx)
	}(n.Daemon, n.ended)
	n.t.Cleanup(n.stop)
	return answers
}

func (n *Node) config() daemon.Config {
	n.t.Helper()
	log := n.options.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := *n.Settings
	if n.options.Change != nil {
		n.options.Change(&s)
	}
	names, err := server.NamesOf(append(s.ServerNames(), "127.0.0.1"))
	require.NoError(n.t, err)
	return daemon.Config{Settings: &s, Names: names, Log: log.With("node", n.ID), Faults: n.options.Faults}
}

// Join makes the node's data directory with a token, and starts nothing.
func (n *Node) Join(token jointoken.Token) *daemon.Joined {
	n.t.Helper()
	joined, err := n.TryJoin(token)
	require.NoError(n.t, err)
	return joined
}

// TryJoin is Join, and may fail.
func (n *Node) TryJoin(token jointoken.Token) (*daemon.Joined, error) {
	n.t.Helper()
	c := n.config()
	c.Settings.Cluster.JoinToken = settings.NewSecret(token.Reveal())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return daemon.Join(ctx, c)
}

// TryStart is what a start fails with that is expected to.
func (n *Node) TryStart() error {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d, err := daemon.New(ctx, n.config())
	if err == nil {
		d.Close()
	}
	require.Error(n.t, err)
	return err
}

// Ended waits for the end of a node that ends by itself, and returns with what.
func (n *Node) Ended() error {
	n.t.Helper()
	select {
	case <-n.ended:
	case <-time.After(patience):
		require.Fail(n.t, "the node does not end", n.ID)
	}
	n.stop()
	return n.failure
}

func (n *Node) stop() {
	if n.cancel == nil {
		return
	}
	n.cancel()
	<-n.ended
	n.cancel = nil
}

// Stop stops the node in order and requires that it does so without an error.
func (n *Node) Stop() {
	n.t.Helper()
	n.stop()
	require.NoError(n.t, n.failure)
}

// Running reports whether the node was started and not stopped.
func (n *Node) Running() bool { return n.cancel != nil }

// Do stores one command through this node, and requires that it is accepted.
func (n *Node) Do(payload fleet.Payload) fleet.Result {
	n.t.Helper()
	command, err := fleet.NewCommand(time.Now(), payload)
	require.NoError(n.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	results, err := n.Node().Propose(ctx, command)
	require.NoError(n.t, err)
	require.Len(n.t, results, 1)
	require.NoError(n.t, results[0].Err())
	return results[0]
}

// JoinToken makes a token with which one more node joins.
func (n *Node) JoinToken() jointoken.Token {
	n.t.Helper()
	stored, ok := n.Node().State().View().CA()
	require.True(n.t, ok)
	root, err := x509.ParseCertificate(stored.Authorities[0].Certificate)
	require.NoError(n.t, err)
	token, err := jointoken.New(root, n.URL())
	require.NoError(n.t, err)
	n.Do(fleet.CreateJoinToken{ID: token.ID, SecretHash: token.SecretHash(), ExpiresAt: time.Now().Add(time.Hour)})
	return token
}

// Roots are what clients trust for the node.
func (n *Node) Roots() *x509.CertPool {
	n.t.Helper()
	stored, ok := n.Node().State().View().CA()
	require.True(n.t, ok)
	pool := x509.NewCertPool()
	root, err := x509.ParseCertificate(stored.Authorities[0].Certificate)
	require.NoError(n.t, err)
	pool.AddCert(root)
	return pool
}

// Cluster is nodes that were started one after the other, the first as the founder.
type Cluster struct {
	Nodes []*Node
	t     testing.TB
}

// Start makes a cluster of some nodes, and returns when all of them have a vote.
// options may be nil, and is asked for each node.
func Start(t testing.TB, size int, options func(i int) Options) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	for i := range size {
		var o Options
		if options != nil {
			o = options(i)
		}
		c.Add(o)
	}
	c.AwaitVoters(size)
	return c
}

// Add adds one more node, which joins by a token if it is not the first.
func (c *Cluster) Add(options Options) *Node {
	c.t.Helper()
	n := NewNode(c.t, fmt.Sprintf("node%d", len(c.Nodes)+1), options)
	if len(c.Nodes) > 0 {
		n.Settings.Cluster.JoinToken = settings.NewSecret(c.Leader().JoinToken().Reveal())
	}
	n.Start()
	c.Nodes = append(c.Nodes, n)
	return n
}

// Leader waits until a node that runs leads and is ready to, and returns it.
func (c *Cluster) Leader(except ...*Node) *Node {
	c.t.Helper()
	var found *Node
	require.Eventually(c.t, func() bool {
		for _, n := range c.Nodes {
			if n.Running() && (len(except) == 0 || n != except[0]) && n.Node().IsLeader() {
				found = n
				return true
			}
		}
		return false
	}, patience, 5*time.Millisecond, "no node leads")
	return found
}

// Follower waits until a node that runs follows the leader, and returns it.
func (c *Cluster) Follower() *Node {
	c.t.Helper()
	var found *Node
	require.Eventually(c.t, func() bool {
		leader := c.Leader()
		for _, n := range c.Nodes {
			if n == leader || !n.Running() {
				continue
			}
			if id, _ := n.Node().Leader(); id == leader.ID {
				found = n
				return true
			}
		}
		return false
	}, patience, 5*time.Millisecond, "no node follows")
	return found
}

// AwaitVoters waits until so many members have a vote.
func (c *Cluster) AwaitVoters(count int) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		members, _ := c.Leader().Node().Members()
		return count == countVoters(members)
	}, patience, 20*time.Millisecond, "not all nodes get a vote")
}

func countVoters(members []cluster.Member) int {
	voters := 0
	for _, m := range members {
		if m.Voter {
			voters++
		}
	}
	return voters
}

// AwaitEqual waits until every node that runs has applied what the leader has.
func (c *Cluster) AwaitEqual() {
	c.t.Helper()
	index := c.Leader().Node().AppliedIndex()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, n := range c.Nodes {
		if n.Running() {
			require.NoError(c.t, n.Node().WaitIndex(ctx, index), n.ID)
		}
	}
}

// Fingerprint is that of the key by which the others know a node.
func Fingerprint(t testing.TB, n *Node) string {
	t.Helper()
	record, ok := n.Node().State().View().ClusterNode(n.ID)
	require.True(t, ok)
	return record.KeyFingerprint
}
