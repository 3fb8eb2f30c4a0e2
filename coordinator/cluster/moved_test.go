package cluster_test

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
)

// closingStreams are Raft's streams without TLS. Closing them closes all, which
// Raft leaves to them.
type closingStreams struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (s *closingStreams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.keep(net.DialTimeout("tcp", string(address), timeout))
}

func (s *closingStreams) Accept() (net.Conn, error) { return s.keep(s.Listener.Accept()) }

func (s *closingStreams) keep(conn net.Conn, err error) (net.Conn, error) {
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.conns = append(s.conns, conn)
	}
	return conn, err
}

func (s *closingStreams) Close() error {
	err := s.Listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	return err
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return listener
}

// Two of two are needed, and the one whose log is behind has moved: it cannot be
// elected, and the other one reaches it only because it has told where it is.
func TestAMemberThatMovedIsFoundWithoutALeader(t *testing.T) {
	listeners := map[string]net.Listener{}
	var servers []raft.Server
	for i := range 2 {
		listeners[nodeID(i)] = listen(t)
		servers = append(servers, raft.Server{ID: raft.ServerID(nodeID(i)), Address: raft.ServerAddress(listeners[nodeID(i)].Addr().String())})
	}
	m := emptyMesh(t, func(c *cluster.Config) {
		c.Transport = cluster.NewTransport(&closingStreams{Listener: listeners[c.NodeID]}, slog.New(slog.DiscardHandler))
	}, nil)
	for _, s := range servers {
		m.start(string(s.ID), string(s.Address), t.TempDir(), func(c cluster.Config) error { return cluster.Bootstrap(c, servers) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	m.do(m.leader(), newToken("before"))
	stays, moves := m.leader(), m.follower()
	moves.stop()
	// What it writes now, nobody has: its log is the newer one.
	briefly, giveUp := context.WithTimeout(ctx, 200*time.Millisecond)
	_, err := stays.Propose(briefly, mustCommand(t, newToken("alone")))
	giveUp()
	var unknown *cluster.UnknownOutcomeError
	require.ErrorAs(t, err, &unknown)
	require.Eventually(t, func() bool { id, _ := stays.Leader(); return id == "" }, testPatience, time.Millisecond)

	listeners[moves.id] = listen(t)
	address := listeners[moves.id].Addr().String()
	moved := m.start(moves.id, address, moves.dir, nil)
	require.NoError(t, moved.Announce(ctx))
	id, ok := stays.At(address)
	assert.True(t, ok)
	assert.Equal(t, moves.id, id)
	require.Eventually(t, func() bool { _, ok := moved.State().View().EnrollmentToken("alone"); return ok }, testPatience, time.Millisecond)
	require.True(t, m.do(moved, newToken("after")).OK())
}
