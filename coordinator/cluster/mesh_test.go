package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/peer"
)

// mesh is a cluster in this process whose nodes reach each other, for Raft and
// for calls, unless they are cut off.
type mesh struct {
	t     *testing.T
	tweak func(*cluster.Config)
	// opened, when it is set, is called before a node runs.
	opened func(n *meshNode)

	mu    sync.Mutex
	nodes map[string]*meshNode
	cut   map[string]bool // ids of those that are cut off
	calls map[string]int  // by method
	// hung is the id of a node that answers no call and closes no connection; gaveUp
	// is why those who called it stopped waiting.
	hung   string
	gaveUp []error
	// hanging are the questions for its term that wait for it, and mostHanging the
	// most that there ever were at once.
	hanging, mostHanging int
	// strict lets nobody call whom the other side does not know as a member.
	strict bool
	// lose, when it is set, decides whether the answer to a call gets lost.
	lose func(method string) bool
	// answered, when it is set, is called between an answer and its arrival.
	answered func(method string)
	// oldFacts lets nobody know the questions for facts, as members of an earlier
	// version. When lying is set, the first node that is asked for facts is a liar; lies
	// counts what it gives.
	oldFacts, lying bool
	liar            string
	lies            int
}

// unpipelined does not let Raft send on without an answer, like [cluster.Transport].
type unpipelined struct{ *raft.InmemTransport }

func (unpipelined) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

type meshNode struct {
	*cluster.Node
	mesh      *mesh
	id, dir   string
	address   string
	transport *raft.InmemTransport
	journal   *history.Journal
	cancel    context.CancelFunc
	ended     chan struct{}
	failure   error
	stopped   atomic.Bool
}

// newMesh starts a cluster of voters n0, n1 and so on.
func newMesh(t *testing.T, voters int, tweak func(*cluster.Config)) *mesh {
	t.Helper()
	return openMesh(t, voters, tweak, nil)
}

func openMesh(t *testing.T, voters int, tweak func(*cluster.Config), opened func(n *meshNode)) *mesh {
	t.Helper()
	if tweak == nil {
		tweak = func(*cluster.Config) {}
	}
	m := emptyMesh(t, tweak, opened)
	var servers []raft.Server
	for i := range voters {
		servers = append(servers, raft.Server{ID: raft.ServerID(nodeID(i)), Address: raft.ServerAddress(nodeID(i))})
	}
	for i := range voters {
		m.start(nodeID(i), nodeID(i), t.TempDir(), func(c cluster.Config) error { return cluster.Bootstrap(c, servers) })
	}
	m.leader()
	return m
}

func emptyMesh(t *testing.T, tweak func(*cluster.Config), opened func(n *meshNode)) *mesh {
	return &mesh{t: t, tweak: tweak, opened: opened, nodes: map[string]*meshNode{}, cut: map[string]bool{}, calls: map[string]int{}}
}

func nodeID(i int) string { return fmt.Sprintf("n%d", i) }

// start runs a node on a directory, whose state found has to make if there is
// none.
func (m *mesh) start(id, address, dir string, found func(cluster.Config) error) *meshNode {
	m.t.Helper()
	n := &meshNode{mesh: m, id: id, address: address, dir: dir, ended: make(chan struct{})}
	_, n.transport = raft.NewInmemTransportWithTimeout(raft.ServerAddress(address), 300*time.Millisecond)
	exists, err := cluster.HasState(dir)
	require.NoError(m.t, err)
	open := history.Create
	if exists {
		open = history.Open
	}
	n.journal, err = open(history.Config{Path: filepath.Join(dir, "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(m.t, err)
	config := cluster.Config{
		Dir: dir, NodeID: id, Journal: n.journal, Log: slog.New(slog.DiscardHandler), Transport: unpipelined{n.transport},
		ElectionTimeout: time.Second, Peers: n, Advertise: address,
	}
	m.tweak(&config)
	if !exists {
		require.NoError(m.t, found(config))
	}
	n.Node, err = cluster.Open(config)
	require.NoError(m.t, err)
	m.mu.Lock()
	m.nodes[id] = n
	m.mu.Unlock()
	m.connect()
	if m.opened != nil {
		m.opened(n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		defer close(n.ended)
		n.failure = n.Run(ctx)
	}()
	m.t.Cleanup(func() {
		m.isolate(n) // or it waits for those that are gone to take over
		n.stop()
	})
	return n
}

// connect joins all that run and are not cut off.
func (m *mesh) connect() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.nodes {
		a.transport.DisconnectAll()
		for _, b := range m.nodes {
			if a != b && !m.cut[a.id] && !m.cut[b.id] && !a.stopped.Load() && !b.stopped.Load() {
				a.transport.Connect(b.transport.LocalAddr(), b.transport)
			}
		}
	}
}

func (m *mesh) isolate(nodes ...*meshNode) {
	m.mu.Lock()
	for _, n := range nodes {
		m.cut[n.id] = true
	}
	m.mu.Unlock()
	m.connect()
}

func (m *mesh) heal() {
	m.mu.Lock()
	clear(m.cut)
	m.mu.Unlock()
	m.connect()
}

func (m *mesh) count(method string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[method]
}

func (n *meshNode) stop() {
	if n.stopped.Swap(true) {
		return
	}
	n.cancel()
	<-n.ended
	assert.NoError(n.mesh.t, n.failure)
	require.NoError(n.mesh.t, n.journal.Close())
}

var errUnreachable = errors.New("unreachable")

// Call implements cluster.Caller. Like a network it has no answer for one that
// has given up waiting.
func (n *meshNode) Call(ctx context.Context, id, address, method string, request []byte) ([]byte, error) {
	m := n.mesh
	m.mu.Lock()
	m.calls[method]++
	target := m.nodes[id]
	if m.hung == id {
		if method == "term" {
			m.hanging++
			m.mostHanging = max(m.mostHanging, m.hanging)
		}
		m.mu.Unlock()
		<-ctx.Done()
		m.mu.Lock()
		defer m.mu.Unlock()
		if method == "term" {
			m.hanging--
		}
		if method == "propose" || method == "index" {
			m.gaveUp = append(m.gaveUp, ctx.Err())
		}
		return nil, ctx.Err()
	}
	reachable := target != nil && !m.cut[n.id] && !m.cut[id] && !target.stopped.Load() && target.address == address
	lose, strict, answered := m.lose, m.strict, m.answered
	if m.oldFacts && strings.HasPrefix(method, "journal_") {
		method += "-of-later"
	}
	if m.lying && m.liar == "" && method == "journal_chunk" {
		m.liar = id
	}
	lie := m.liar == id && method == "journal_chunk"
	if lie {
		m.lies++
	}
	m.mu.Unlock()
	if !reachable {
		return nil, fmt.Errorf("%w: %w", errUnreachable, peer.ErrNotSent)
	}
	if strict && !target.Member(n.id) {
		return nil, fmt.Errorf("%w: %w", peer.ErrNotMember, peer.ErrNotSent)
	}
	type answer struct {
		body []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		body, err := target.HandleCall(ctx, n.id, method, request)
		if lie && len(body) > 200 {
			body = slices.Clone(body)
			body[len(body)-100] ^= 1
		}
		answers <- answer{body, err}
	}()
	select {
	case a := <-answers:
		if answered != nil {
			answered(method)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.cut[n.id] || m.cut[id] || lose != nil && lose(method) {
			return nil, errUnreachable
		}
		return a.body, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// leader waits for a node that leads and is none of those excepted.
func (m *mesh) leader(except ...*meshNode) *meshNode {
	m.t.Helper()
	var found *meshNode
	require.Eventually(m.t, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, n := range m.nodes {
			if n.IsLeader() && (len(except) == 0 || n != except[0]) {
				found = n
				return true
			}
		}
		return false
	}, testPatience, 2*time.Millisecond, "no leader is elected")
	return found
}

// follower is a node that does not lead, and knows who does.
func (m *mesh) follower() *meshNode {
	m.t.Helper()
	var found *meshNode
	require.Eventually(m.t, func() bool {
		leader := m.leader()
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, n := range m.nodes {
			if id, _ := n.Leader(); n != leader && id == leader.id && !n.stopped.Load() {
				found = n
				return true
			}
		}
		return false
	}, testPatience, 2*time.Millisecond, "nobody follows")
	return found
}

func (m *mesh) do(n *meshNode, payload fleet.Payload) fleet.Result {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), testPatience)
	defer cancel()
	results, err := n.Propose(ctx, mustCommand(m.t, payload))
	require.NoError(m.t, err)
	return results[0]
}

func (m *mesh) all() (nodes []*meshNode) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.nodes {
		if !n.stopped.Load() {
			nodes = append(nodes, n)
		}
	}
	return nodes
}
