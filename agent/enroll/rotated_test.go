package enroll

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/sync/coordinatortest"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

// A token that was made before the root was rotated, twice, still enrols.
func TestATokenOlderThanTheRoot(t *testing.T) {
	b := newBench(t)
	b.coord.Rotate()
	b.coord.Rotate()
	identity, err := Enroll(t.Context(), b.cfg)
	require.NoError(t, err)
	assert.Equal(t, 1, b.coord.Requests(wire.TrustPath))
	assert.Equal(t, b.coord.Agent(identity.AgentID).ID, identity.AgentID)
	assert.NotEmpty(t, identity.RootsPEM)
	assert.Contains(t, b.log.String(), "the token is older than the coordinator's root")
}

// A chain that does not lead from the token's root is no way in, and the token
// is not told to whoever sent it.
func TestATokenOfAnotherRoot(t *testing.T) {
	b := newBench(t)
	stranger := coordinatortest.New(t)
	stranger.Rotate()
	b.cfg.Servers = []string{stranger.Start()}
	_, err := Enroll(t.Context(), b.cfg)
	require.ErrorIs(t, err, tlsutil.ErrPinMismatch)
	assert.Equal(t, "enrol: something else than the coordinator that made this token answers at "+b.cfg.Servers[0]+
		": another coordinator, or a proxy that opens TLS; check the URL and the token; nothing was told to it", err.Error())
	assert.Contains(t, b.log.String(), "none of its 3 generations is of the pinned root alone", "the rest is in the log")
	assert.Zero(t, stranger.Requests(wire.EnrollPath))
	assert.Empty(t, b.identity().AgentID)

	// It shows the right history, and cannot prove that it is its own.
	b.coord.Rotate()
	stranger.Change(func() { *stranger.Chain() = *b.coord.Chain() })
	_, err = Enroll(t.Context(), b.cfg)
	require.ErrorContains(t, err, "unknown authority")
	assert.Zero(t, stranger.Requests(wire.EnrollPath))
	stranger.Change(func() { *stranger.Chain() = nil })
	_, err = Enroll(t.Context(), b.cfg)
	require.ErrorIs(t, err, tlsutil.ErrPinMismatch)
}
