package cluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
)

// A node has left when the others say so, or have committed it; that its own log has
// the entry is not enough.
func TestANodeHasLeftOnceThatIsCommitted(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3, nil)
	leader, leaving := m.leader(), m.follower()
	m.mu.Lock()
	m.strict = true
	m.mu.Unlock()
	for _, n := range m.all() {
		if n != leader && n != leaving {
			m.isolate(n)
		}
	}
	leader.RemoveUnchecked(leaving.id)
	require.Eventually(t, func() bool { return !leaving.Departure(t.Context()).Member }, testPatience, 2*time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	require.ErrorAs(t, leaving.Leave(ctx, 0, "me"), new(*cluster.UnknownOutcomeError))

	m.heal()
	ctx, cancel = context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	require.NoError(t, leaving.Leave(ctx, 0, "me"))
	members, _ := m.leader(leaving).Members()
	assert.Len(t, members, 2)
}
