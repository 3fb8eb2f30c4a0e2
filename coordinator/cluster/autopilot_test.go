package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
)

func quick(c *cluster.Config) { c.Stabilization = 200 * time.Millisecond }

func (m *mesh) voters() (ids []string) {
	members, _ := m.leader().Members()
	for _, member := range members {
		if member.Voter {
			ids = append(ids, member.ID)
		}
	}
	return ids
}

func TestAStableMemberIsPromoted(t *testing.T) {
	m := newMesh(t, 1, quick)
	for _, id := range []string{"a", "b"} {
		n := m.join(id, id)
		require.NoError(t, m.leader().AddMember(t.Context(), id, id, 0))
		require.Eventually(t, func() bool { return n.Status().Voter }, testPatience, 5*time.Millisecond)
	}
	assert.ElementsMatch(t, []string{"n0", "a", "b"}, m.voters())

	// A member that nobody can reach stays without a vote.
	require.NoError(t, m.leader().AddMember(t.Context(), "silent", "silent", 0))
	var health *cluster.Health
	require.Eventually(t, func() bool {
		health = m.leader().Status().Health
		return health != nil && len(health.Members) == 4 && health.FailureTolerance == 1 && health.Members[0].Healthy && health.Members[1].Healthy &&
			health.Members[2].Healthy && time.Since(health.Members[3].StableSince) > time.Second
	}, testPatience, 20*time.Millisecond)
	silent := health.Members[3]
	assert.Equal(t, "silent", silent.ID)
	assert.False(t, silent.Healthy)
	assert.False(t, silent.Voter)
	assert.Zero(t, silent.LastSeen)
	assert.False(t, health.Healthy)
	assert.Equal(t, m.leader().id, health.Leader)
	require.NotNil(t, m.leader().Status().Health)
	assert.Nil(t, m.follower().Status().Health, "it is the leader's to know")
	for _, member := range health.Members[:3] {
		assert.True(t, member.Voter)
		assert.Equal(t, fleet.Level, member.Level)
		assert.NotZero(t, member.LastSeen)
		assert.GreaterOrEqual(t, member.LastContact, time.Duration(0))
	}
}

func TestDeadMembersAreRemovedAsFarAsTheQuorumAllows(t *testing.T) {
	m := newMesh(t, 5, func(c *cluster.Config) {
		quick(c)
		c.ElectionTimeout = 500 * time.Millisecond
		c.DeadServerAfter, c.MinQuorum = 5*time.Second, 3
	})
	leader := m.leader()
	// Its record goes with it.
	m.do(leader, fleet.AnnounceNode{Node: fleet.ClusterNode{ID: "n0", Address: "n0", Level: fleet.Level}})
	var lost []*meshNode
	for _, n := range m.all() {
		if n != leader && len(lost) < 3 {
			lost = append(lost, n)
		}
	}
	m.isolate(lost[0], lost[1])
	require.Eventually(t, func() bool { return len(m.ids()) == 3 }, testPatience, 20*time.Millisecond)
	assert.NotContains(t, m.ids(), lost[0].id)
	assert.NotContains(t, m.ids(), lost[1].id)

	// With three it stays: neither below the least number nor without a majority.
	m.isolate(lost[2])
	require.Eventually(t, func() bool {
		health := leader.Status().Health
		if health == nil {
			return false
		}
		for _, member := range health.Members {
			if member.ID == lost[2].id && !member.Healthy && time.Since(member.StableSince) > 7*time.Second {
				return true
			}
		}
		return false
	}, testPatience, 20*time.Millisecond)
	assert.Len(t, m.ids(), 3)
	require.True(t, m.do(leader, newToken("goes on")).OK())
	for _, n := range lost[:2] {
		if n.id == "n0" {
			require.Eventually(t, func() bool { _, ok := leader.State().View().ClusterNode("n0"); return !ok }, testPatience, time.Millisecond)
		}
	}
}

// A member that autopilot takes for dead is asked once more: it may be the leader
// that stood still.
func TestADeadMemberIsAskedBeforeItIsRemoved(t *testing.T) {
	m := newMesh(t, 3, nil)
	leader := m.leader()
	var suspect *meshNode
	for _, n := range m.all() {
		if n != leader {
			suspect = n
		}
	}
	leader.RemoveDead(suspect.id)
	assert.Len(t, m.ids(), 3)

	m.isolate(suspect)
	leader.RemoveDead(suspect.id)
	assert.Len(t, m.ids(), 2)
}

// What only a dead member may have of the history keeps it in the cluster, and is said
// once.
func TestADeadMemberStaysForItsHistory(t *testing.T) {
	var (
		log     lockedBuffer
		refused atomic.Bool
	)
	refused.Store(true)
	m := newMesh(t, 3, func(c *cluster.Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		c.MayForget = func(_ context.Context, id string) error {
			if refused.Load() {
				return errors.New("only " + id + " has it")
			}
			return nil
		}
	})
	leader := m.leader()
	var dead *meshNode
	for _, n := range m.all() {
		if n != leader {
			dead = n
		}
	}
	m.isolate(dead)
	leader.RemoveDead(dead.id)
	leader.RemoveDead(dead.id)
	assert.Len(t, m.ids(), 3)
	assert.Equal(t, 1, bytes.Count(log.bytes(), []byte("only "+dead.id+" has it")))
	refused.Store(false)
	leader.RemoveDead(dead.id)
	assert.Len(t, m.ids(), 2)
}

// A node whose snapshot covers all that the cluster has gets its vote although nothing
// more happens.
func TestAVoteInAQuietCluster(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 1, func(c *cluster.Config) {
		quick(c)
		c.TrailingEntries = 1
	})
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	leader := m.leader()
	m.do(leader, newToken("before"))
	require.NoError(t, leader.AddMember(ctx, "new", "new", 0))
	require.NoError(t, leader.EnsureSnapshot(ctx))
	require.Equal(t, leader.Status().LastIndex, leader.Status().SnapshotIndex, "the snapshot covers all")
	n := m.join("new", "new")
	require.Eventually(t, func() bool { return n.Status().Voter }, testPatience, 5*time.Millisecond)
}
