package daemon_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/daemon"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/fleet"
)

const patience = 2 * time.Minute

// Three nodes: the founder, one that joins and one more. Each of them stores and
// reads, and any one of them may stop.
func TestThreeNodes(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 3, nil)
	for _, n := range c.Nodes {
		n.Do(fleet.CreateEnrollmentToken{ID: "from" + n.ID, SecretHash: [32]byte{1}, ExpiresAt: time.Now().Add(time.Hour)})
		_, ok := n.Node().State().View().EnrollmentToken("from" + n.ID)
		assert.True(t, ok, "what a node has stored it can read")
	}
	c.AwaitEqual()
	for _, n := range c.Nodes {
		for _, other := range c.Nodes {
			_, ok := n.Node().State().View().EnrollmentToken("from" + other.ID)
			assert.True(t, ok, "%s has what %s stored", n.ID, other.ID)
		}
		require.Eventually(t, func() bool {
			record, ok := n.Node().State().View().ClusterNode(n.ID)
			return ok && record.Address == n.PeerAddress() && record.URL == n.URL() && record.Signer != ""
		}, patience, 20*time.Millisecond, "%s tells the others about itself", n.ID)
	}

	old := c.Leader()
	began := time.Now()
	old.Stop()
	next := c.Leader(old)
	t.Logf("another node leads %v after the leader was asked to stop", time.Since(began))
	next.Do(fleet.CreateEnrollmentToken{ID: "without", SecretHash: [32]byte{1}, ExpiresAt: time.Now().Add(time.Hour)})
	old.Start()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, old.Node().WaitIndex(ctx, next.Node().AppliedIndex()))
	_, ok := old.Node().State().View().EnrollmentToken("without")
	assert.True(t, ok)
}

// A node that comes back on another port tells the others.
func TestANodeMoves(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 3, nil)
	for _, n := range []*daemontest.Node{c.Leader(), c.Nodes[2]} {
		n.Stop()
		moved := daemontest.NewNode(t, "x", daemontest.Options{}).Settings
		n.Settings.Cluster.Listen = moved.Cluster.Listen
		n.Start()
		require.Eventually(t, func() bool {
			members, _ := c.Leader().Node().Members()
			for _, m := range members {
				if m.ID == n.ID {
					return m.Address == moved.Cluster.Listen
				}
			}
			return false
		}, patience, 20*time.Millisecond, "the others learn where %s is now", n.ID)
		c.Leader().Do(fleet.CreateEnrollmentToken{ID: "after" + n.ID, SecretHash: [32]byte{1}, ExpiresAt: time.Now().Add(time.Hour)})
		c.AwaitEqual()
	}
}

// The verb join makes the directory, and the node that starts on it is a member.
func TestJoinApartFromTheFirstStart(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 1, nil)
	n := daemontest.NewNode(t, "node2", daemontest.Options{})
	there, err := daemon.SetUpAs(n.Settings.DataDir)
	require.NoError(t, err)
	assert.Empty(t, there)
	joined := n.Join(c.Leader().JoinToken())
	assert.Equal(t, "node2", joined.NodeID)
	assert.NotEmpty(t, joined.ClusterID)
	assert.Equal(t, c.Nodes[0].ClusterID(), joined.ClusterID)
	there, err = daemon.SetUpAs(n.Settings.DataDir)
	require.NoError(t, err)
	assert.Equal(t, "node2", there)
	n.Start()
	c.Nodes = append(c.Nodes, n)
	c.AwaitVoters(2)
}

// The root of the connections between nodes is replaced while they work, node by
// node, without a restart; a node that was away meanwhile gets back in.
func TestTheRootBetweenNodesIsReplaced(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 3, nil)
	away := c.Nodes[2]
	if away == c.Leader() {
		away = c.Nodes[1]
	}
	leader := c.Leader()
	stored, ok := leader.Node().State().View().ClusterCA()
	require.True(t, ok)
	key, err := ca.ReadSealKey(filepath.Join(leader.Settings.DataDir, "seal.key"))
	require.NoError(t, err)
	change, err := clusterca.Begin(stored, key, "test", time.Now())
	require.NoError(t, err)
	published := change.Authorities[1]
	away.Stop()
	leader.Do(change)

	// While a member has not heard of it, the new root does not sign.
	writes := 0
	require.Never(t, func() bool {
		c.Leader().Do(fleet.CreateEnrollmentToken{ID: fmt.Sprintf("during%d", writes), SecretHash: [32]byte{1}, ExpiresAt: time.Now().Add(time.Hour)})
		writes++
		now, _ := c.Leader().Node().State().View().ClusterCA()
		return bytes.Equal(now.Authorities[0].Certificate, published.Certificate)
	}, 6*time.Second, 100*time.Millisecond)

	away.Start()
	require.Eventually(t, func() bool {
		c.Leader().Do(fleet.CreateEnrollmentToken{ID: fmt.Sprintf("during%d", writes), SecretHash: [32]byte{1}, ExpiresAt: time.Now().Add(time.Hour)})
		writes++
		view := c.Leader().Node().State().View()
		now, ok := view.ClusterCA()
		if !ok || len(now.Authorities) != 1 || !bytes.Equal(now.Authorities[0].Certificate, published.Certificate) {
			return false
		}
		for _, record := range view.ClusterNodes() {
			if record.Signer != published.Fingerprint() {
				return false
			}
		}
		return true
	}, patience, 100*time.Millisecond, "the rotation ends by itself")
	c.AwaitEqual()
	away.Stop()
	away.Start()
	c.AwaitEqual()
}
