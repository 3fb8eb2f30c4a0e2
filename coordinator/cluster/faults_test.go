package cluster_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
)

// A follower that was away longer than an election takes, as one that was paused,
// stands for election and costs nobody the lead.
func TestAFollowerThatWasAwayDisturbsNobody(t *testing.T) {
	m := newMesh(t, 3, func(c *cluster.Config) { c.ElectionTimeout = 2 * time.Second })
	leader, away := m.leader(), m.follower()
	m.do(leader, newToken("before"))
	term, elections := leader.Status().Term, away.Status().Elections
	m.isolate(away)
	require.Eventually(t, func() bool { return away.Status().Elections > elections }, testPatience, time.Millisecond)
	m.do(leader, newToken("meanwhile"))
	m.heal()
	require.Eventually(t, func() bool {
		_, ok := away.State().View().EnrollmentToken("meanwhile")
		return ok && away.Ready().Ready()
	}, testPatience, time.Millisecond)
	assert.True(t, leader.IsLeader())
	assert.Equal(t, term, leader.Status().Term)
	assert.Equal(t, term, away.Status().Term)
}

// A leader that stands still without a word, its connections open, holds those up
// who wait for its answer only until there is another one.
func TestALeaderThatHangsHoldsNobodyUp(t *testing.T) {
	m := newMesh(t, 3, nil)
	old := m.leader()
	n := m.follower()
	m.mu.Lock()
	m.hung = old.id
	m.mu.Unlock()
	proposed := make(chan error, 1)
	read := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	command := mustCommand(t, newToken("waits"))
	go func() {
		_, err := n.Propose(ctx, command)
		proposed <- err
	}()
	go func() {
		_, err := n.ConsistentIndex(ctx)
		read <- err
	}()
	require.Eventually(t, func() bool { return m.count("propose") > 0 && m.count("index") > 0 }, testPatience, time.Millisecond)
	m.isolate(old)
	require.NoError(t, <-proposed)
	require.NoError(t, <-read)
	_, ok := n.State().View().EnrollmentToken("waits")
	assert.True(t, ok)
	m.mu.Lock()
	defer m.mu.Unlock()
	assert.NotEmpty(t, m.gaveUp)
	for _, err := range m.gaveUp {
		assert.ErrorIs(t, err, context.Canceled, "a call was ended by the new leader and not by its own deadline")
	}
}

// A node that comes back with its disk of earlier catches up.
func TestANodeWithAnOldDiskComesBack(t *testing.T) {
	m := newMesh(t, 3, func(c *cluster.Config) { c.SnapshotEntries, c.TrailingEntries = 16, 4 })
	n := m.follower()
	m.do(m.leader(), newToken("early"))
	require.NoError(t, n.WaitIndex(t.Context(), m.leader().AppliedIndex()))
	n.stop()
	old := t.TempDir()
	require.NoError(t, os.CopyFS(old, os.DirFS(n.dir)))

	again := m.start(n.id, n.id, n.dir, nil)
	for i := range 40 {
		m.do(m.leader(), newToken(fmt.Sprintf("token%d", i)))
	}
	require.NoError(t, again.WaitIndex(t.Context(), m.leader().AppliedIndex()))
	again.stop()
	require.True(t, m.do(m.leader(), newToken("late")).OK())

	back := m.start(n.id, n.id, old, nil)
	require.NoError(t, back.WaitIndex(t.Context(), m.leader().AppliedIndex()))
	for _, id := range []string{"early", "token0", "token39", "late"} {
		_, ok := back.State().View().EnrollmentToken(id)
		assert.True(t, ok, id)
	}
	require.Eventually(t, func() bool { return back.Ready().Ready() }, testPatience, time.Millisecond)
	assert.True(t, m.do(back, newToken("from it")).OK())
}
