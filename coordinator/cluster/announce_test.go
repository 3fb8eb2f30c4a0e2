package cluster_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
)

func TestANodeAnnouncesItself(t *testing.T) {
	var version atomic.Value
	version.Store("1.0")
	m := newMesh(t, 3, func(c *cluster.Config) {
		c.Record = func() (fleet.ClusterNode, error) {
			return fleet.ClusterNode{URL: "https://" + c.NodeID, Version: version.Load().(string), Trusts: []string{"aa"}}, nil
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	for _, n := range m.all() {
		require.NoError(t, n.Announce(ctx))
		node, ok := n.State().View().ClusterNode(n.id)
		require.True(t, ok)
		assert.Equal(t, "https://"+n.id, node.URL)
		assert.Equal(t, n.id, node.Address)
		assert.Equal(t, fleet.Level, node.Level)
		before := n.AppliedIndex()
		require.NoError(t, n.Announce(ctx))
		assert.Equal(t, before, n.AppliedIndex(), "what is known is not stored again")
	}
	version.Store("1.1")
	n := m.follower()
	require.NoError(t, n.Announce(ctx))
	node, _ := n.State().View().ClusterNode(n.id)
	assert.Equal(t, "1.1", node.Version)

	_, err := n.HandleCall(ctx, "n0", "announce", []byte("no call"))
	require.NoError(t, err, "garbage is answered")
}

// A node speaks for itself alone: one that could give another's address would have
// what is meant for that one.
func TestANodeAnnouncesNoOther(t *testing.T) {
	m := newMesh(t, 3, nil)
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	leader := m.leader()
	var others []*meshNode
	for _, n := range m.all() {
		if n != leader {
			others = append(others, n)
		}
	}
	before, index := leader.Members()
	for _, n := range m.all() { // who does not lead takes note of addresses, too
		err := cluster.AnnounceAs(ctx, n.Node, others[0].id, others[1].id, "elsewhere")
		require.ErrorContains(t, err, "announces the address of node "+others[1].id)
		_, known := n.At("elsewhere")
		assert.False(t, known)
	}
	after, now := leader.Members()
	assert.Equal(t, before, after)
	assert.Equal(t, index, now, "nothing was changed")

	// What each says of itself is taken.
	require.NoError(t, cluster.AnnounceAs(ctx, leader.Node, others[1].id, others[1].id, others[1].id))
}

// A node comes back at another address: the leader dials the old one, so that the
// node has to find it.
func TestANodeComesBackAtAnotherAddress(t *testing.T) {
	m := newMesh(t, 3, quick)
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	n := m.follower()
	n.stop()
	m.do(m.leader(), newToken("meanwhile"))
	again := m.start(n.id, "moved", n.dir, nil)
	require.NoError(t, again.Announce(ctx))
	id, ok := m.leader().At("moved")
	assert.True(t, ok)
	assert.Equal(t, n.id, id)
	require.Eventually(t, func() bool { return again.Ready().Ready() && again.Status().Voter }, testPatience, time.Millisecond)
	_, ok = again.State().View().EnrollmentToken("meanwhile")
	assert.True(t, ok)
	assert.Len(t, m.voters(), 3, "it keeps its vote")

	// The leader, too: it is elected at an address that the others do not know.
	leader := m.leader()
	leader.stop()
	moved := m.start(leader.id, "moved too", leader.dir, nil)
	require.NoError(t, moved.Announce(ctx))
	require.Eventually(t, func() bool { return moved.Ready().Ready() }, testPatience, time.Millisecond)

	// One that was removed does not come back by announcing itself.
	require.NoError(t, m.leader().RemoveMember(ctx, again.id, 0, ""))
	require.Eventually(t, func() bool { return !again.Ready().Member }, testPatience, time.Millisecond)
	require.ErrorIs(t, again.Announce(ctx), cluster.ErrNoMember)
	assert.NotContains(t, m.ids(), again.id)
}

func TestWhoIsAMemberIsAskedOfTheOthers(t *testing.T) {
	m := newMesh(t, 3, nil)
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	n := m.follower()
	m.isolate(n)
	require.NoError(t, m.leader(n).AddMember(ctx, "later", "later", 0))
	assert.False(t, n.Member("later"))
	require.Error(t, n.Refresh(ctx), "nobody answers")

	// It hears of it by asking, before its log has it.
	joined := m.join("joins", "joins")
	assert.True(t, joined.Member("n0"), "it was told")
	assert.False(t, joined.Member("later"))
	require.NoError(t, joined.Refresh(ctx))
	assert.True(t, joined.Member("later"))
	assert.False(t, joined.Member("joins"), "it is none itself")
	id, ok := joined.At("later")
	assert.True(t, ok)
	assert.Equal(t, "later", id)
	_, ok = joined.At("nowhere")
	assert.False(t, ok)
	m.heal()
	require.Eventually(t, func() bool { return n.Member("later") }, testPatience, time.Millisecond)
}
