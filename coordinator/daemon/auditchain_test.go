package daemon_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/trail"
)

// In a new cluster the chain of the audit trail is the first thing, and it is the same
// on all nodes: those that were there and those that joined.
func TestTheAuditTrailOfANewCluster(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 2, nil)
	c.Leader().Do(fleet.CreateEnrollmentToken{ID: "t", SecretHash: [32]byte{1}, ExpiresAt: time.Now().Add(time.Hour)})
	c.AwaitEqual()
	head, begun := c.Leader().Node().State().View().AuditHead()
	require.True(t, begun)
	assert.EqualValues(t, 1, head.First, "nothing came before it")
	for _, n := range c.Nodes {
		again, _ := n.Node().State().View().AuditHead()
		assert.Equal(t, head, again)
		require.Eventually(t, func() bool {
			verifier := trail.NewVerifier(1, trail.Anchor{Number: head.Number, Hash: head.Hash, From: "the state"})
			facts, next, err := n.Journal().Read(history.Query{AuditOnly: true, Limit: history.MaxLimit})
			require.NoError(t, err)
			require.Empty(t, next)
			for _, fact := range facts {
				verifier.Add(fact.Record())
			}
			return !verifier.End().Broken()
		}, patience, 50*time.Millisecond, "%s has the whole trail, once it has got it from the other", n.ID)
	}
}
