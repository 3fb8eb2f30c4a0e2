package cluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A node that comes back under its id, with nothing on its disk, begins with a
// snapshot in which it has no vote: alone with one in which it has, it could elect
// itself.
func TestANodeThatComesBackHasNoVoteInTheSnapshot(t *testing.T) {
	m := newMesh(t, 3, quick)
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	leader := m.leader()
	require.NoError(t, leader.EnsureSnapshot(ctx))
	before := leader.Status().SnapshotIndex
	require.NotZero(t, before)

	gone := m.follower()
	m.isolate(gone)
	require.NoError(t, leader.RemoveMember(ctx, gone.id, 0, ""))
	require.NoError(t, leader.AddMember(ctx, "new", "new", 0))
	require.NoError(t, leader.RemoveMember(ctx, "new", 0, ""))
	assert.Equal(t, before, leader.Status().SnapshotIndex, "nobody knows the new one from before")

	require.NoError(t, leader.AddMember(ctx, gone.id, gone.id, 0))
	after := leader.Status().SnapshotIndex
	assert.Greater(t, after, before)
	require.NoError(t, leader.RemoveMember(ctx, gone.id, 0, ""))
	require.NoError(t, leader.AddMember(ctx, gone.id, gone.id, 0))
	assert.Equal(t, after, leader.Status().SnapshotIndex, "it has no vote in the newest one")
	require.Eventually(t, func() bool { return leader.IsLeader() }, testPatience, time.Millisecond)
}
