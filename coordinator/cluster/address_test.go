package cluster_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
)

// requireTaken requires that an address was refused as that of a member.
func requireTaken(t *testing.T, err error, holder *meshNode) {
	t.Helper()
	var taken *cluster.AddressTakenError
	require.ErrorAs(t, err, &taken)
	assert.Equal(t, &cluster.AddressTakenError{Address: holder.address, Member: holder.id}, taken)
	require.ErrorContains(t, err, "address "+holder.address+" is that of member "+holder.id+", which answers there: "+
		"give this node an address of its own (cluster.advertise), or remove "+holder.id+" first")
}

// Nobody is removed for a node that was given the address of a member by mistake.
func TestAMemberKeepsTheAddressAtWhichItAnswers(t *testing.T) {
	m := newMesh(t, 3, nil)
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	leader, asked := m.leader(), m.follower()
	require.NoError(t, leader.AddMember(ctx, "silent", "nowhere", 0))
	for _, holder := range m.all() {
		requireTaken(t, leader.CheckAddress(ctx, "new", holder.address), holder)
		requireTaken(t, asked.CheckAddress(ctx, "new", holder.address), holder)
		requireTaken(t, asked.AddMember(ctx, "new", holder.address, 0), holder)
		requireTaken(t, asked.AddMember(ctx, "silent", holder.address, 0), holder)
		require.NoError(t, leader.CheckAddress(ctx, holder.id, holder.address), "its own")
	}
	assert.Equal(t, []string{"n0", "n1", "n2", "silent"}, m.ids())
	require.NoError(t, leader.CheckAddress(ctx, "new", "elsewhere"))
	require.NoError(t, leader.CheckAddress(ctx, "new", "nowhere"), "nobody answers there")
}

// A member that comes back with the address of another one in its configuration
// is told so, and the other one stays reachable for all.
func TestTheAddressOfAnotherMemberIsNotAnnounced(t *testing.T) {
	for name, leads := range map[string]bool{"of the leader": true, "of a follower": false} {
		t.Run(name, func(t *testing.T) {
			var wrong atomic.Pointer[[2]string]
			m := newMesh(t, 3, func(c *cluster.Config) {
				if w := wrong.Load(); w != nil && w[0] == c.NodeID {
					c.Advertise = w[1]
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), testPatience)
			defer cancel()
			n, holder := m.follower(), m.leader()
			for _, other := range m.all() {
				if !leads && other != n && other != m.leader() {
					holder = other
				}
			}
			n.stop()
			wrong.Store(&[2]string{n.id, holder.address})
			again := m.start(n.id, n.address, n.dir, nil)
			requireTaken(t, again.Announce(ctx), holder)
			assert.LessOrEqual(t, m.count("announce"), 2, "it is not asked for again and again")
			assert.Equal(t, []string{"n0", "n1", "n2"}, m.ids())
			for _, other := range m.all() {
				id, ok := other.At(holder.address)
				assert.True(t, ok)
				assert.Equal(t, holder.id, id)
			}
			assert.True(t, m.do(again, newToken("after")).OK())
		})
	}
}
