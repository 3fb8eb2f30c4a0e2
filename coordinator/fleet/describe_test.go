package fleet_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
)

func TestCommandsAreDescribed(t *testing.T) {
	for want, payload := range map[fleet.Description]fleet.Payload{
		{Kind: "EnrollAgent", Agent: "a1"}:     enrolment("t1", "a1"),
		{Kind: "SyncAgent", Agent: "a2"}:       fleet.SyncAgent{AgentID: "a2", BootID: "b"},
		{Kind: "CommandAgent", Agent: "a3"}:    fleet.CommandAgent{Agent: "a3", ID: "c"},
		{Kind: "CreateEnrollmentToken"}:        token("t1"),
		{Kind: "RetireAgent", Agent: "a\x004"}: fleet.RetireAgent{AgentID: "a\x004"},
	} {
		command, err := fleet.NewCommand(testTime, payload)
		require.NoError(t, err)
		assert.Equal(t, want, command.Describe())
	}
	command, err := fleet.NewCommand(testTime, token("t1"))
	require.NoError(t, err)
	for _, change := range []func(*fleet.Command){
		func(c *fleet.Command) { c.Type = 250 },
		func(c *fleet.Command) { c.Version = 99 },
		func(c *fleet.Command) { c.Payload = []byte{0xff} },
	} {
		other := command
		change(&other)
		assert.Contains(t, other.Describe().Kind, "type ")
	}
}

// Every command that can be in a log has a name.
func TestEveryCommandHasAKind(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		command, err := fleet.NewCommand(testTime, randomPayload(rt, testTime))
		require.NoError(rt, err)
		assert.Regexp(rt, `^[A-Z][A-Za-z]+$`, command.Describe().Kind)
	})
}
