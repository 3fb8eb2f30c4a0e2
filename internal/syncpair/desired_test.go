package syncpair

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// What the centre wants reaches the host whole, and what the host made of it the
// centre; both sides agree on its digest, so that after that, and after a restart
// of either, nothing more is sent or written.
func TestWhatTheCentreWants(t *testing.T) {
	c := newCoordinator(t)
	h := c.enrolled()
	require.NoError(t, c.node.Do(fleet.PutAssignment{Name: "www", Selector: "*", Template: []byte(`{"names":["${hostname}.example.com"]}`)}).Err())
	require.NoError(t, c.node.Do(fleet.CommandAgent{Agent: h.id, ID: "command-1", Kind: wire.CommandRenew, Certificate: "www"}).Err())
	stop := h.run()
	reported := func() bool {
		desired, err := h.store.Desired()
		require.NoError(t, err)
		if len(desired.Assignments) == 0 {
			return false
		}
		h.client.Report(sync.Made{Digest: desired.Digest, Reports: []wire.AssignmentReport{{Name: "www", Revision: 1, State: wire.AssignmentRefused, Detail: "no"}}})
		report, ok := c.view().AssignmentReport(h.id, "www")
		return ok && report.State == wire.AssignmentRefused
	}
	require.Eventually(t, reported, patience, 10*time.Millisecond)
	desired, err := h.store.Desired()
	require.NoError(t, err)
	assert.JSONEq(t, `{"names":["web1.example.com"]}`, string(desired.Assignments[0].Certificate))
	agent, _ := c.view().Agent(h.id)
	assert.Equal(t, desired.Digest, agent.DesiredDigest)

	// The command is accepted, ends, and is forgotten here once the centre knows.
	state := func() fleet.CommandState {
		command, ok := c.view().AgentCommand(h.id, "command-1")
		require.True(t, ok)
		return command.State
	}
	require.Eventually(t, func() bool { return state() == fleet.CommandAccepted }, patience, 10*time.Millisecond)
	require.NoError(t, h.store.UpdateCommand("command-1", func(c *store.Command, _ *store.Certificate) error {
		c.State, c.Detail = wire.CommandRefused, "no such certificate"
		return nil
	}))
	h.client.Kick()
	require.Eventually(t, func() bool { return state() == fleet.CommandRefused }, patience, 10*time.Millisecond)
	require.Eventually(t, func() bool {
		list, err := h.store.Commands()
		require.NoError(t, err)
		return len(list) == 0
	}, patience, 10*time.Millisecond)

	stop()
	c.restart(true)
	version := func() uint64 {
		return c.view().Version(fleet.TableAssignments, fleet.TableAgentCommands, fleet.TableAssignmentReports)
	}
	before := version()
	stop = h.run()
	defer func() { stop() }()
	require.True(t, reported(), "the host says it again")
	connected := h.client.State().LastSuccess
	require.Eventually(t, func() bool { return h.client.State().LastSuccess.After(connected.Add(2 * time.Second)) }, patience, 10*time.Millisecond)
	assert.Equal(t, before, version(), "what is known is not written again")
}
