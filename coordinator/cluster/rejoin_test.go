package cluster_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
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

// A node whose log has only an older configuration than the one that it was let in
// with does not elect itself, though it has the only vote there: not by itself, not
// after a restart, and not when it is asked to take over.
func TestANodeBehindItsAdmissionElectsNobody(t *testing.T) {
	m := emptyMesh(t, quick, nil)
	dir := t.TempDir()
	n := m.start("n", "n", dir, func(c cluster.Config) error { return cluster.Bootstrap(c, nil) })
	m.leader()
	n.stop()
	admitted := filepath.Join(dir, "raft", "admitted.json")
	require.NoError(t, os.WriteFile(admitted, []byte(`{"configuration":1000000}`), 0o600))
	for range 2 {
		n = m.start("n", "n", dir, nil)
		require.Never(t, n.IsLeader, 3*time.Second, 10*time.Millisecond)
		n.stop()
	}
	require.NoError(t, os.WriteFile(admitted, []byte(`{"configuration":1}`), 0o600))
	m.start("n", "n", dir, nil)
	m.leader()
	require.NoError(t, os.WriteFile(admitted, []byte(`{"configuration":`), 0o600))
	m.nodes["n"].stop()
	_, err := cluster.Open(cluster.Config{
		Dir: dir, NodeID: "n", Journal: m.nodes["n"].journal, Log: slog.New(slog.DiscardHandler), Transport: m.nodes["n"].transport, ElectionTimeout: time.Second,
	})
	require.ErrorContains(t, err, "admitted.json")
}

// Once their logs have the configuration that they were let in with, nodes elect and
// are elected as any other, without a restart.
func TestAdmittedNodesElect(t *testing.T) {
	m := newMesh(t, 1, quick)
	founder := m.leader()
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	for _, id := range []string{"a", "b"} {
		require.NoError(t, founder.AddMember(ctx, id, id, 0))
		_, admitted := founder.Members()
		require.NotZero(t, admitted)
		n := m.start(id, id, t.TempDir(), func(c cluster.Config) error {
			return cluster.Prepare(c, []raft.Server{{ID: raft.ServerID(founder.id), Address: raft.ServerAddress(founder.address)}}, nil, admitted)
		})
		require.Eventually(t, func() bool { return n.Ready().Ready() && n.Status().Voter }, testPatience, 5*time.Millisecond)
	}
	m.isolate(founder)
	leader := m.leader(founder)
	assert.True(t, m.do(leader, newToken("of the new leader")).OK())
}
