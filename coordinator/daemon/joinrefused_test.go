package daemon_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/shared/settings"
)

// A node whose configuration does not fit is told what to change, nobody is
// removed for it, and it joins with the same token once that is changed.
func TestANodeThatDoesNotFitLeavesNoTrace(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 2, nil)
	leader := c.Leader()
	token := leader.JoinToken()
	n := daemontest.NewNode(t, "node3", daemontest.Options{})
	refused := func(parts ...string) {
		t.Helper()
		_, err := n.TryJoin(token)
		for _, part := range parts {
			require.ErrorContains(t, err, part)
		}
		members, _ := leader.Node().Members()
		assert.Len(t, members, 2)
		stored, ok := leader.Node().State().View().JoinToken(token.ID)
		require.True(t, ok)
		assert.Zero(t, stored.UsedAt)
	}
	for _, holder := range c.Nodes {
		n.Settings.Cluster.Advertise = holder.PeerAddress()
		refused("node.address", "is that of member "+holder.ID+", which answers there", "cluster.advertise")
	}
	n.Settings.Cluster.Advertise = ""
	n.Settings.CA.SealKey = settings.NewSecret(ca.NewSealKey().Reveal())
	refused("ca.seal_key", "configure the same key on every node")
	n.Settings.CA.SealKey = settings.Secret{}
	n.Join(token)
	n.Start()
	c.Nodes = append(c.Nodes, n)
	c.AwaitVoters(3)
}
