package cluster_test

import (
	"context"
	"slices"
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

// join starts a node that was prepared to join.
func (m *mesh) join(id, address string) *meshNode {
	m.t.Helper()
	var members []raft.Server
	for _, n := range m.all() {
		members = append(members, raft.Server{ID: raft.ServerID(n.id), Address: raft.ServerAddress(n.address)})
	}
	return m.start(id, address, m.t.TempDir(), func(c cluster.Config) error { return cluster.Prepare(c, members, nil, 0) })
}

func (m *mesh) ids() (ids []string) {
	members, _ := m.leader().Members()
	for _, member := range members {
		ids = append(ids, member.ID)
	}
	slices.Sort(ids)
	return ids
}

func TestAPreparedNodeWaitsUntilItIsAdded(t *testing.T) {
	m := newMesh(t, 1, nil)
	m.do(m.leader(), newToken("before"))
	n := m.join("new", "new")
	members, index := n.Members()
	assert.Zero(t, index)
	assert.Equal(t, []cluster.Member{{ID: "n0", Address: "n0", Voter: false}}, asNonvoters(members), "who it was told")
	assert.False(t, n.Ready().Member)
	assert.False(t, n.Ready().Ready())
	require.Never(t, func() bool { return n.Status().Term > 0 || n.IsLeader() }, 2500*time.Millisecond, 100*time.Millisecond, "it must not elect itself")

	require.NoError(t, m.leader().AddMember(t.Context(), "new", "new", 0))
	require.Eventually(t, func() bool { return n.Ready().Member && n.Ready().Ready() }, testPatience, time.Millisecond)
	_, ok := n.State().View().EnrollmentToken("before")
	assert.True(t, ok)
	members, index = n.Members()
	assert.Positive(t, index)
	require.Len(t, members, 2)
	assert.False(t, members[1].Voter)
	assert.True(t, m.do(n, newToken("from the new one")).OK(), "it forwards")

	// A restart comes back as what it was.
	n.stop()
	again := m.start("new", "new", n.dir, nil)
	require.Eventually(t, func() bool { return again.Ready().Ready() }, testPatience, time.Millisecond)
	assert.True(t, again.Ready().Member)
}

func asNonvoters(members []cluster.Member) []cluster.Member {
	for i := range members {
		members[i].Voter, members[i].Leader = false, false
	}
	return members
}

func TestChangesOfTheMembershipCompareAndSwap(t *testing.T) {
	m := newMesh(t, 3, nil)
	ctx := t.Context()
	n := m.follower()
	_, index := m.leader().Members()
	require.NoError(t, n.AddMember(ctx, "x", "x-address", index))
	_, now := m.leader().Members()
	assert.Greater(t, now, index)

	var conflict *cluster.ConflictError
	require.ErrorAs(t, n.AddMember(ctx, "y", "y-address", index), &conflict)
	assert.Equal(t, now, conflict.Index)
	require.ErrorAs(t, m.leader().RemoveMember(ctx, "x", index, ""), &conflict)
	assert.Equal(t, []string{"n0", "n1", "n2", "x"}, m.ids())

	require.NoError(t, n.AddMember(ctx, "x", "x-address", 0), "the same again changes nothing")
	_, again := m.leader().Members()
	assert.Equal(t, now, again)
	require.NoError(t, n.AddMember(ctx, "x", "elsewhere", 0))
	members, _ := m.leader().Members()
	require.Len(t, members, 4)
	assert.Equal(t, "elsewhere", members[3].Address)
	require.NoError(t, n.AddMember(ctx, "z", "elsewhere", 0), "takes the place of the one that had its address")
	assert.Equal(t, []string{"n0", "n1", "n2", "z"}, m.ids())
	require.NoError(t, n.RemoveMember(ctx, "z", 0, ""))
	require.ErrorIs(t, n.RemoveMember(ctx, "z", 0, ""), cluster.ErrNoMember)
	require.ErrorIs(t, n.Transfer(ctx, "z"), cluster.ErrNoMember)
}

// Nothing is stored that a member would stop at, be it one that nobody has heard of.
func TestWhatAMemberDoesNotUnderstandIsRefused(t *testing.T) {
	m := newMesh(t, 3, nil)
	n := m.follower()
	require.NoError(t, n.AddMember(t.Context(), "old", "nowhere", 0))
	later := fleet.AnnounceNode{Node: fleet.ClusterNode{ID: "n0", Address: "n0", Level: fleet.Level}}
	_, err := n.Propose(t.Context(), mustCommand(t, later))
	var level *cluster.LevelError
	require.ErrorAs(t, err, &level)
	assert.Equal(t, []string{"old"}, level.Nodes, "the others were asked")
	require.True(t, m.do(n, newToken("early")).OK(), "what all understand is stored")
	require.NoError(t, n.RemoveMember(t.Context(), "old", 0, ""))
	require.True(t, m.do(n, later).OK())
}

func TestARemovalThatEndangersTheQuorumIsRefused(t *testing.T) {
	m := newMesh(t, 3, nil)
	ctx := t.Context()
	leader := m.leader()
	var followers []*meshNode
	for _, n := range m.all() {
		if n != leader {
			followers = append(followers, n)
		}
	}
	m.isolate(followers[0])
	var quorum *cluster.QuorumError
	require.ErrorAs(t, leader.RemoveMember(ctx, followers[1].id, 0, ""), &quorum)
	require.ErrorContains(t, quorum, followers[0].id, "who does not answer is named")
	require.NoError(t, leader.RemoveMember(ctx, followers[0].id, 0, ""), "the one that is lost may go")
	m.heal()
	require.NoError(t, followers[1].RemoveMember(ctx, leader.id, 0, ""))
	require.ErrorAs(t, m.leader().RemoveMember(ctx, followers[1].id, 0, ""), &quorum, "the last one stays")
	assert.Equal(t, []string{followers[1].id}, m.ids())
}

func TestTheLeaderIsRemovedAndHandsOver(t *testing.T) {
	m := newMesh(t, 3, nil)
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	target := m.follower()
	require.NoError(t, target.Transfer(ctx, target.id))
	require.Eventually(t, target.IsLeader, testPatience, time.Millisecond)
	require.NoError(t, target.Transfer(ctx, target.id), "it leads already")

	require.NoError(t, target.RemoveMember(ctx, target.id, 0, ""), "it removes itself")
	m.leader(target)
	assert.NotContains(t, m.ids(), target.id)
	require.Eventually(t, func() bool { return !target.Ready().Member }, testPatience, time.Millisecond)

	// The removed one neither leads nor disturbs, though it runs and reaches all.
	elections := target.Status().Elections
	require.Never(t, func() bool { return target.IsLeader() || target.Status().Elections != elections },
		3*time.Second, 50*time.Millisecond)
	next := m.leader(target)
	require.True(t, m.do(next, newToken("after")).OK())
}

// The audit trail tells whether somebody removed a member or the cluster did, and
// who it was whichever node was asked.
func TestWhoRemovesAMember(t *testing.T) {
	m := newMesh(t, 3, nil)
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	enter := func(id, address string) {
		require.NoError(t, m.leader().AddMember(ctx, id, address, 0))
	}
	for _, id := range []string{"x", "y", "z"} {
		require.True(t, m.do(m.leader(), fleet.AnnounceNode{Node: fleet.ClusterNode{ID: id, Address: id, Level: fleet.Level}}).OK())
		enter(id, id)
	}
	require.NoError(t, m.leader().RemoveMember(ctx, "x", 0, "api_token:first"))
	require.NoError(t, m.follower().RemoveMember(ctx, "y", 0, "api_token:second"))
	enter("in the place of z", "z")

	removed := map[string]string{}
	require.Eventually(t, func() bool {
		facts, _, err := m.leader().journal.Read(history.Query{Limit: 500})
		require.NoError(t, err)
		for _, f := range facts {
			if f.Kind == fleet.KindNodeRemoved {
				removed[f.Object] = f.Actor
			}
		}
		return len(removed) == 3
	}, testPatience, 5*time.Millisecond)
	assert.Equal(t, map[string]string{"x": "api_token:first", "y": "api_token:second", "z": "system"}, removed)
}

// The log need not have told a node that it was removed.
func TestANodeFindsOutThatItWasRemoved(t *testing.T) {
	for name, strict := range map[string]bool{"from the others": false, "because nobody lets it in": true} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, 3, func(c *cluster.Config) { c.ElectionTimeout = 300 * time.Millisecond })
			m.mu.Lock()
			m.strict = strict
			m.mu.Unlock()
			n := m.follower()
			m.isolate(n)
			require.NoError(t, m.leader(n).RemoveMember(t.Context(), n.id, 0, ""))
			assert.True(t, n.Ready().Member, "it cannot know yet")
			m.heal()
			require.Eventually(t, func() bool { return !n.Ready().Member }, testPatience, 5*time.Millisecond)
			require.True(t, m.do(m.leader(n), newToken("after")).OK(), "and disturbs nobody")
		})
	}
}

func TestCommittedConfigurationsAreTold(t *testing.T) {
	var mu sync.Mutex
	told := map[string][]int{} // how many members each node was told of
	m := openMesh(t, 2, nil, func(n *meshNode) {
		n.OnMembership(func(members []raft.Server) {
			mu.Lock()
			defer mu.Unlock()
			told[n.id] = append(told[n.id], len(members))
		})
	})
	last := func(id string) int {
		mu.Lock()
		defer mu.Unlock()
		if len(told[id]) == 0 {
			return 0
		}
		return told[id][len(told[id])-1]
	}
	n := m.join("new", "new")
	require.NoError(t, m.follower().AddMember(t.Context(), "new", "new", 0))
	for _, id := range []string{"n0", "n1", "new"} {
		require.Eventually(t, func() bool { return last(id) == 3 }, testPatience, time.Millisecond, id)
	}
	require.NoError(t, n.RemoveMember(t.Context(), "new", 0, ""))
	for _, id := range []string{"n0", "n1"} {
		require.Eventually(t, func() bool { return last(id) == 2 }, testPatience, time.Millisecond, id)
	}
}
