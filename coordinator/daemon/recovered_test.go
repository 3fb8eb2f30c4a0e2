package daemon_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/daemon"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/durable"
)

// recoverAlone makes a stopped node a cluster of its own.
func recoverAlone(t *testing.T, n *daemontest.Node) cluster.Recovery {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	journal, err := history.Open(history.Config{
		Path: filepath.Join(n.Settings.DataDir, "journal.db"), Log: log, MaxAge: n.Settings.Journal.Retention, MaxBytes: n.Settings.Journal.MaxBytes,
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, journal.Close()) }()
	c := cluster.Config{Dir: n.Settings.DataDir, NodeID: n.ID, Journal: journal, Log: log}
	report, _, err := cluster.Inspect(c, 10)
	require.NoError(t, err)
	plan := cluster.PlanRecovery(report, n.Settings.Cluster.Listen, time.Now())
	require.NoError(t, cluster.Recover(t.Context(), c, plan))
	return plan
}

func rootsOf(t *testing.T, view *fleet.View) *clusterca.Roots {
	t.Helper()
	stored, ok := view.ClusterCA()
	require.True(t, ok)
	roots, err := clusterca.Parse(stored)
	require.NoError(t, err)
	return roots
}

// A recovered node forgets the members that it dropped and gets a CA of its own,
// so that neither cluster takes the nodes of the other for its own; new nodes join
// it, and it goes on after a restart.
func TestARecoveredNodePartsFromTheOldCluster(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 2, nil)
	survivor, lost := c.Nodes[0], c.Nodes[1]
	awaitRecords(t, c)
	old := rootsOf(t, survivor.Node().State().View())
	lost.Stop()
	survivor.Stop()
	recoverAlone(t, survivor)
	last, ok, err := cluster.LastRecovery(survivor.Settings.DataDir)
	require.NoError(t, err)
	require.True(t, ok)
	require.Zero(t, last.SettledAt)

	survivor.Start()
	require.Eventually(t, func() bool { return settled(t, survivor) }, patience, 20*time.Millisecond)
	now := rootsOf(t, survivor.Node().State().View())
	// A crash right before the note that it is done.
	survivor.Stop()
	noteRecovery(t, survivor, last)
	survivor.Start()

	token := survivor.JoinToken()
	fresh := daemontest.NewNode(t, "fresh", daemontest.Options{})
	fresh.Join(token) // waits until the clusters have parted
	view := survivor.Node().State().View()
	_, ok = view.ClusterNode(lost.ID)
	assert.False(t, ok, "the node that was dropped is forgotten")
	assert.True(t, settled(t, survivor))
	assert.Equal(t, now.Fingerprints(), rootsOf(t, view).Fingerprints(), "it is done once")
	assert.Len(t, now.Fingerprints(), 1)
	assert.NotEqual(t, old.Fingerprints(), now.Fingerprints())
	assert.NotEqual(t, old.ClusterID, now.ClusterID)
	require.Eventually(t, func() bool {
		record, ok := survivor.Node().State().View().ClusterNode(survivor.ID)
		return ok && record.Signer == now.Fingerprints()[0]
	}, patience, 20*time.Millisecond, "the survivor has a certificate of the new root")

	fresh.Start()
	c.Nodes = []*daemontest.Node{survivor, fresh}
	c.AwaitVoters(2)
	c.AwaitEqual()
	survivor.Stop()
	survivor.Start()
	c.Leader().Do(fleet.CreateEnrollmentToken{ID: "after", SecretHash: [32]byte{1}, ExpiresAt: time.Now().Add(time.Hour)})
	assert.Equal(t, now.Fingerprints(), rootsOf(t, survivor.Node().State().View()).Fingerprints())
}

// What a node is sent first, when it joins a recovered one, is a snapshot of before
// the clusters have parted. It goes by what it was told when it was let in.
func TestANodeThatJoinsARecoveredOneDoesNotFollowTheOldCluster(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 1, nil)
	survivor := c.Nodes[0]
	awaitRecords(t, c)
	survivor.Stop()
	recoverAlone(t, survivor)
	survivor.Start()
	require.Eventually(t, func() bool { return settled(t, survivor) }, patience, 20*time.Millisecond)
	now := rootsOf(t, survivor.Node().State().View())
	c.Add(daemontest.Options{Faults: daemon.Faults{Cluster: slowFirstEntries}})
	c.AwaitVoters(2)
	c.AwaitEqual()
	assert.Equal(t, now.Fingerprints(), rootsOf(t, c.Nodes[1].Node().State().View()).Fingerprints())
}

// slowFirstEntries lets a node look for a while at nothing but the snapshot that it
// was sent first, which is of before the clusters have parted.
func slowFirstEntries(c *cluster.Config) {
	var first sync.Once
	c.Hook = func(step durable.Step, _ string, done bool) error {
		if step == "cluster: store log entries" && !done {
			first.Do(func() { _ = backoff.Wait(context.Background(), 3*time.Second) })
		}
		return nil
	}
}

// Whoever puts the state of before a recovery back has the old cluster back.
func TestARecoveryThatWasUndoneChangesNothing(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 2, nil)
	awaitRecords(t, c)
	roots := rootsOf(t, c.Leader().Node().State().View()).Fingerprints()
	for _, n := range c.Nodes {
		n.Stop()
		note := cluster.Recovered{Recovery: cluster.Recovery{
			Version: 1, NodeID: n.ID, Time: time.Now(), LastIndex: 1 << 40, Kept: "raft.kept", Servers: []cluster.ServerReport{{ID: n.ID, Voter: true}},
		}}
		noteRecovery(t, n, note)
		n.Begin() // the majority is there with the second one
	}
	require.Eventually(t, func() bool { return settled(t, c.Leader()) }, patience, 20*time.Millisecond)
	view := c.Leader().Node().State().View()
	assert.Equal(t, roots, rootsOf(t, view).Fingerprints())
	assert.Len(t, view.ClusterNodes(), 2)
}

// awaitRecords waits until every node has told every other about itself.
func awaitRecords(t *testing.T, c *daemontest.Cluster) {
	t.Helper()
	for _, n := range c.Nodes {
		for _, about := range c.Nodes {
			require.Eventually(t, func() bool {
				record, ok := n.Node().State().View().ClusterNode(about.ID)
				return ok && record.Signer != ""
			}, patience, 20*time.Millisecond)
		}
	}
}

func settled(t *testing.T, n *daemontest.Node) bool {
	t.Helper()
	last, ok, err := cluster.LastRecovery(n.Settings.DataDir)
	require.NoError(t, err)
	return ok && !last.SettledAt.IsZero()
}

func noteRecovery(t *testing.T, n *daemontest.Node, r cluster.Recovered) {
	t.Helper()
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(n.Settings.DataDir, "recovered.json"), text, 0o600))
}
