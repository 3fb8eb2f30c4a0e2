package fleet_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func TestPreview(t *testing.T) {
	state, err := fleet.New()
	require.NoError(t, err)
	command := func(payload fleet.Payload) fleet.Command {
		c, err := fleet.NewCommand(time.Now(), payload)
		require.NoError(t, err)
		return c
	}
	apply := func(c fleet.Command) fleet.Result {
		entry, err := fleet.EncodeEntry([]fleet.Command{c})
		require.NoError(t, err)
		results, _, err := state.Apply(state.Index()+1, entry)
		require.NoError(t, err)
		return results[0]
	}
	preview := func(c fleet.Command) fleet.Result {
		before := state.View()
		result, err := state.Preview(c)
		require.NoError(t, err)
		for _, table := range []fleet.Table{fleet.TableAgents, fleet.TableEnrollmentTokens, fleet.TablePresence} {
			assert.Equal(t, before.Version(table), state.View().Version(table))
			assert.Equal(t, before.Rows(table), state.View().Rows(table))
		}
		assert.Equal(t, before.Index(), state.View().Index())
		return result
	}

	enroll := command(fleet.EnrollAgent{TokenID: "token", AgentID: "a", Identity: fleet.Identity{Fingerprint: "f", PublicKeyFingerprint: "p"}})
	assert.Equal(t, wire.CodeTokenUnknown, preview(enroll).Code)
	require.True(t, apply(command(fleet.CreateEnrollmentToken{ID: "token", MaxUses: 1})).OK())
	previewed := preview(enroll)
	require.True(t, previewed.OK())
	assert.Equal(t, previewed, preview(enroll), "a preview is not remembered")
	assert.Equal(t, previewed, apply(enroll), "and says what comes of it")

	other := command(fleet.EnrollAgent{TokenID: "token", AgentID: "b", Identity: fleet.Identity{Fingerprint: "g", PublicKeyFingerprint: "q"}})
	assert.Equal(t, wire.CodeTokenUsed, preview(other).Code)

	sync := &fleet.SyncAgent{AgentID: "a", BootID: "boot-two", Sequence: 2}
	assert.True(t, state.View().CheckSync(sync).OK())
	require.True(t, apply(command(*sync)).OK())
	assert.Equal(t, wire.CodeStale, state.View().CheckSync(&fleet.SyncAgent{AgentID: "a", BootID: "boot-two", Sequence: 1}).Code)
	assert.Equal(t, wire.CodeIdentityUnknown, state.View().CheckSync(&fleet.SyncAgent{AgentID: "b", BootID: "boot-two"}).Code)
	require.True(t, apply(command(fleet.RetireAgent{AgentID: "a"})).OK())
	assert.Equal(t, wire.CodeAgentRetired, state.View().CheckSync(sync).Code)

	_, err = state.Preview(fleet.Command{Type: 250})
	require.ErrorIs(t, err, fleet.ErrUnknownCommand)
}
