package daemon_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/fleet"
)

// A node that was removed runs on, and asks the others how it stands. They end the
// connections of the time when it was a member, and take none of it any more.
func TestConnectionsOfARemovedNodeEnd(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 3, nil)
	leader := c.Leader()
	var gone, stays *daemontest.Node
	for _, n := range c.Nodes {
		switch {
		case n == leader:
		case gone == nil:
			gone = n
		default:
			stays = n
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.Eventually(t, func() bool { return connections(leader, gone.ID) > 0 }, patience, 5*time.Millisecond,
		"the leader replicates to the node")
	// A follower has one to it, too, from the time when it asked who is a member.
	require.Eventually(t, func() bool {
		return stays.Node().Refresh(ctx) == nil && connections(stays, gone.ID) > 0
	}, patience, 20*time.Millisecond, "the nodes ask each other")

	require.NoError(t, stays.Node().RemoveMember(ctx, gone.ID, 0, ""))
	for _, n := range []*daemontest.Node{leader, stays} {
		require.Eventually(t, func() bool { return !n.Node().Member(gone.ID) && connections(n, gone.ID) == 0 }, patience, 5*time.Millisecond,
			"%s ends the connections of the node that was removed", n.ID)
	}
	stays.Do(fleet.CreateEnrollmentToken{ID: "after", SecretHash: [32]byte{1}, ExpiresAt: time.Now().Add(time.Hour)})
	require.NoError(t, leader.Node().WaitIndex(ctx, stays.Node().AppliedIndex()))
	_, ok := leader.Node().State().View().EnrollmentToken("after")
	require.True(t, ok)
}

// connections counts those of a node to and from another one.
func connections(n *daemontest.Node, peer string) (count int) {
	for kind, c := range n.Peers().Connections {
		if kind.Peer == peer {
			count += c
		}
	}
	return count
}
