package cluster_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
)

// A leader that was cut off a moment ago cannot know that it still leads, however
// lately it has heard of the others.
func TestALeaderThatWasJustCutOffAnswersNoConsistentRead(t *testing.T) {
	m := newMesh(t, 3, nil)
	for i := range 3 {
		leader := m.leader()
		m.do(leader, newToken(fmt.Sprintf("before%d", i)))
		m.isolate(leader)
		_, err := leader.LeaderIndex(t.Context())
		require.ErrorIs(t, err, cluster.ErrNotLeader)
		m.heal()
	}
}

// Of five, a leader and one more are no majority.
func TestAMinorityConfirmsNoLeader(t *testing.T) {
	m := newMesh(t, 5, nil)
	leader := m.leader()
	m.do(leader, newToken("seen"))
	var away []*meshNode
	for _, n := range m.all() {
		if n == leader {
			continue
		}
		if len(away) == 2 {
			_, err := leader.ConsistentIndex(t.Context())
			require.NoError(t, err, "three of five are one")
		}
		if len(away) == 3 {
			break
		}
		away = append(away, n)
		m.isolate(n)
	}
	_, err := leader.LeaderIndex(t.Context())
	require.ErrorIs(t, err, cluster.ErrNotLeader)
}

// The others answer while this node leads; it has lost the lead when the answers
// arrive. Its own answer is missing then.
func TestALeaderThatGaveWayDuringTheQuestionDoesNotAnswer(t *testing.T) {
	m := newMesh(t, 3, func(c *cluster.Config) { c.ElectionTimeout = 2 * time.Second })
	old := m.leader()
	m.do(old, newToken("before"))
	var once sync.Once
	m.mu.Lock()
	m.answered = func(method string) {
		if method != "term" {
			return
		}
		once.Do(func() {
			assert.NoError(t, old.Transfer(t.Context(), ""))
			next := m.leader(old)
			assert.Eventually(t, func() bool { return old.Status().Term >= next.Status().Term && !old.IsLeader() }, testPatience, time.Millisecond)
		})
	}
	m.mu.Unlock()
	_, err := old.LeaderIndex(t.Context())
	require.ErrorIs(t, err, cluster.ErrNotLeader)
	m.mu.Lock()
	defer m.mu.Unlock()
	require.Positive(t, m.calls["term"])
}

// A voter that hangs is asked a bounded number of times, and holds nobody up.
func TestAVoterThatHangsHoldsNoConsistentReadUp(t *testing.T) {
	m := newMesh(t, 3, func(c *cluster.Config) { c.ElectionTimeout = 2 * time.Second })
	leader, hung := m.leader(), m.follower()
	m.do(leader, newToken("before"))
	m.mu.Lock()
	m.hung = hung.id
	m.mu.Unlock()
	read := func() {
		for range 100 {
			_, err := leader.ConsistentIndex(t.Context())
			require.NoError(t, err)
		}
	}
	hanging := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.mostHanging
	}
	read()
	require.Eventually(t, func() bool { return hanging() > 0 }, testPatience, time.Millisecond)
	read()
	assert.LessOrEqual(t, hanging(), 16)
}
