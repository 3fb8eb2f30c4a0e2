package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
)

type member struct {
	*cluster.Node
	id        string
	transport *raft.InmemTransport
	journal   *history.Journal
	cancel    context.CancelFunc
	ended     chan struct{}
	failure   error
}

// threeNodes is a cluster of three in this process.
type threeNodes struct {
	t       *testing.T
	members []*member
}

func startThree(t *testing.T, prepare func(id string, n *cluster.Node)) *threeNodes {
	t.Helper()
	c := &threeNodes{t: t}
	var voters []raft.Server
	for i := range 3 {
		id := fmt.Sprintf("node%d", i)
		address, transport := raft.NewInmemTransportWithTimeout(raft.ServerAddress(id), 200*time.Millisecond)
		voters = append(voters, raft.Server{ID: raft.ServerID(id), Address: address})
		c.members = append(c.members, &member{id: id, transport: transport})
	}
	c.connect(c.members...)
	for _, m := range c.members {
		dir := t.TempDir()
		journal, err := history.Create(history.Config{Path: filepath.Join(dir, "journal.db"), Log: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		m.journal = journal
		config := cluster.Config{
			Dir: dir, NodeID: m.id, Journal: journal, Log: slog.New(slog.DiscardHandler), Transport: m.transport,
			// So long that nobody loses the lead because the machine is busy.
			ElectionTimeout: time.Second,
		}
		require.NoError(t, cluster.Bootstrap(config, voters))
		m.Node, err = cluster.Open(config)
		require.NoError(t, err)
		prepare(m.id, m.Node)
		ctx, cancel := context.WithCancel(context.Background())
		m.cancel, m.ended = cancel, make(chan struct{})
		go func() {
			defer close(m.ended)
			m.failure = m.Run(ctx)
		}()
		t.Cleanup(func() {
			c.isolate(m) // or it waits for those that are gone to take over
			c.stop(m)
		})
	}
	return c
}

func (c *threeNodes) connect(members ...*member) {
	for _, a := range members {
		for _, b := range members {
			if a != b {
				a.transport.Connect(b.transport.LocalAddr(), b.transport)
			}
		}
	}
}

// isolate cuts a member off, both ways.
func (c *threeNodes) isolate(m *member) {
	m.transport.DisconnectAll()
	for _, other := range c.members {
		if other != m {
			other.transport.Disconnect(m.transport.LocalAddr())
		}
	}
}

func (c *threeNodes) stop(m *member) {
	m.cancel()
	<-m.ended
	assert.NoError(c.t, m.failure)
	require.NoError(c.t, m.journal.Close())
}

// leader waits for a leader among the members that are not excluded.
func (c *threeNodes) leader(except ...*member) *member {
	c.t.Helper()
	var found *member
	require.Eventually(c.t, func() bool {
		for _, m := range c.members {
			if m.IsLeader() && (len(except) == 0 || m != except[0]) {
				found = m
				return true
			}
		}
		return false
	}, testPatience, 2*time.Millisecond, "no leader is elected")
	return found
}

// propose has whoever leads store a command, however often the lead changes: it is
// the same command, which is applied once.
func (c *threeNodes) propose(ctx context.Context, command fleet.Command) []fleet.Result {
	c.t.Helper()
	for {
		results, err := c.leader().Propose(ctx, command)
		if err == nil {
			return results
		}
		var uncertain *cluster.UnknownOutcomeError
		if !errors.Is(err, cluster.ErrNotLeader) && !errors.As(err, &uncertain) {
			require.NoError(c.t, err)
		}
		require.NoError(c.t, ctx.Err())
	}
}

func TestALostLeaderLosesNothingAndAppliesNothingTwice(t *testing.T) {
	var mu sync.Mutex
	working := map[string]bool{}
	c := startThree(t, func(id string, n *cluster.Node) {
		n.Lead("probe", func(ctx context.Context) error {
			mu.Lock()
			working[id] = true
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			delete(working, id)
			mu.Unlock()
			return nil
		})
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*testPatience)
	defer cancel()
	c.propose(ctx, mustCommand(t, newToken("load")))

	// The entry is written by the leader and confirmed by nobody.
	old := c.leader()
	lost := mustCommand(t, enrolment("agent"))
	c.isolate(old)
	unknown := make(chan error, 1)
	proposeCtx, giveUp := context.WithCancel(ctx)
	go func() {
		_, err := old.Propose(proposeCtx, lost)
		unknown <- err
	}()

	next := c.leader(old)
	require.Eventually(t, func() bool { return !old.IsLeader() }, testPatience, 2*time.Millisecond)
	giveUp()
	var uncertain *cluster.UnknownOutcomeError
	require.ErrorAs(t, <-unknown, &uncertain, "the leader had written the entry")
	require.Error(t, old.VerifyLeader(ctx))
	require.NoError(t, next.VerifyLeader(ctx))

	// The proposer goes to the new leader with the same command, and the old
	// leader comes back.
	results, err := next.Propose(ctx, lost)
	require.NoError(t, err)
	require.True(t, results[0].OK())
	c.connect(c.members...)
	assert.Equal(t, results, c.propose(ctx, lost), "the return may cost an election")

	index := c.leader().AppliedIndex()
	for _, m := range c.members {
		require.NoError(t, m.WaitIndex(ctx, index))
		token, ok := m.State().View().EnrollmentToken("load")
		require.True(t, ok)
		assert.EqualValues(t, 1, token.Uses, "%s applied it more than once", m.id)
		journalReaches(t, m.journal, fleet.KindAgentEnrolled, 1)
		assert.Len(t, facts(t, m.journal, fleet.KindAgentEnrolled), 1)
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(working) == 1
	}, testPatience, time.Millisecond, "leader work runs on one node")
}

// Work that takes its time to end does not have its node taken for the leader.
func TestANodeWhoseWorkLingersDoesNotLead(t *testing.T) {
	release := make(chan struct{})
	c := startThree(t, func(_ string, n *cluster.Node) {
		n.Lead("lingers", func(ctx context.Context) error {
			<-ctx.Done()
			<-release
			return nil
		})
	})
	defer c.connect(c.members...)
	defer close(release)
	old := c.leader()
	require.NotZero(t, old.Term())
	c.isolate(old)
	next := c.leader(old)
	assert.Eventually(t, func() bool { return !old.IsLeader() && old.Term() == 0 }, testPatience, 2*time.Millisecond)
	assert.Greater(t, next.Term(), uint64(1))
}

func TestAFollowerRefusesAndAStoppingLeaderHandsOver(t *testing.T) {
	c := startThree(t, func(string, *cluster.Node) {})
	c.propose(t.Context(), mustCommand(t, newToken("one")))
	leader := c.leader()
	for _, m := range c.members {
		if m == leader {
			continue
		}
		require.NoError(t, m.WaitIndex(t.Context(), leader.AppliedIndex()))
		require.Eventually(t, func() bool { return m.Ready().Ready() }, testPatience, time.Millisecond)
		_, err := m.Propose(t.Context(), mustCommand(t, newToken("two")))
		require.ErrorIs(t, err, cluster.ErrNotLeader)
		id, _ := m.Leader()
		assert.Equal(t, leader.id, id)
	}
	leader.cancel()
	<-leader.ended
	_, err := c.leader(leader).Propose(t.Context(), mustCommand(t, newToken("three")))
	require.NoError(t, err)
}
