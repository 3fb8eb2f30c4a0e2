package agentapi

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func (w *world) assign(name, selector, template string) {
	w.t.Helper()
	w.do(fleet.PutAssignment{Actor: "local", Name: name, Selector: selector, Template: []byte(template)})
}

func TestAssignmentsReachTheirAgents(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	a.sync()
	w.unchanged(func() { assert.Nil(t, a.sync().Desired, "without assignments nobody is told so") })

	w.assign("www", "env=test", `{"names":["www.example.com"]}`)
	w.assign("other", "env=prod", `{"names":["other.example.com"]}`)
	w.assign("foreign", "env=test", `{"names":["www.example.org"]}`)
	var told *wire.Desired
	w.unchanged(func() {
		told = a.sync().Desired
		require.NotNil(t, told)
		require.Nil(t, told.Validate())
		require.Len(t, told.Assignments, 1)
		assert.Equal(t, "www", told.Assignments[0].Name)
		assert.JSONEq(t, `{"names":["www.example.com"]}`, string(told.Assignments[0].Certificate))
		assert.Equal(t, told, a.sync().Desired, "until the agent says that it has it")
	})

	// The agent's word is stored once, and an idle agent costs no log entry.
	say := func(reports ...wire.AssignmentReport) *wire.SyncResponse {
		t.Helper()
		request := a.request()
		request.DesiredDigest, request.Assignments = told.Digest, reports
		return a.send(request)
	}
	active := wire.AssignmentReport{Name: "www", Revision: 1, State: wire.AssignmentActive}
	assert.Nil(t, say(active).Desired)
	stored, ok := w.view().AssignmentReport(a.id, "www")
	require.True(t, ok)
	assert.Equal(t, wire.AssignmentActive, stored.State)
	w.unchanged(func() {
		say(active)
		say()
	})
	shadowed := active
	shadowed.State = wire.AssignmentShadowed
	say(shadowed)
	stored, _ = w.view().AssignmentReport(a.id, "www")
	assert.Equal(t, wire.AssignmentShadowed, stored.State)

	w.do(fleet.DeleteAssignment{Name: "www"})
	gone := say().Desired
	require.NotNil(t, gone)
	assert.Empty(t, gone.Assignments)
	assert.NotEmpty(t, gone.Digest)
	told = gone
	assert.Nil(t, say().Desired)
	assert.Empty(t, w.view().AssignmentReportsOf(a.id), "of what is gone nothing is said any more")
	w.unchanged(func() { say() })
}

func TestCommandsReachTheirAgent(t *testing.T) {
	w := newWorld(t)
	a, other := w.enrolled(), w.enrolled()
	a.sync()
	other.sync()
	revoked := w.now().UTC()
	w.do(fleet.CommandAgent{Actor: "local", Agent: a.id, ID: "command-1", Kind: wire.CommandRenew, Certificate: "web", Serial: "0a", Reason: 1, RevokedAt: revoked})
	want := []wire.Command{{ID: "command-1", Kind: wire.CommandRenew, Certificate: "web", Serial: "0a", Reason: 1, RevokedAt: revoked}}
	w.unchanged(func() {
		assert.Equal(t, want, a.sync().Commands)
		assert.Equal(t, want, a.sync().Commands, "until it is done")
		assert.Empty(t, other.sync().Commands)
	})
	say := func(who *agent, state wire.CommandState) []wire.Command {
		t.Helper()
		request := who.request()
		request.Commands = []wire.CommandResult{{ID: "command-1", State: state, At: w.now()}}
		return who.send(request).Commands
	}
	assert.Equal(t, want, say(a, wire.CommandAccepted))
	w.unchanged(func() {
		say(a, wire.CommandAccepted)
		say(other, wire.CommandDone)
	})
	assert.Empty(t, say(a, wire.CommandDone))
	stored, ok := w.view().AgentCommand(a.id, "command-1")
	require.True(t, ok)
	assert.Equal(t, fleet.CommandDone, stored.State)
	w.unchanged(func() { assert.Empty(t, say(a, wire.CommandDone)) })
}

// A mass renewal asks each host near its turn, and no longer than needed.
func TestCampaignIsPaced(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	certificate := func(name, serial string) {
		s := summary(name + ".example.com")
		s.Serial = serial
		a.put(name, s)
	}
	names := []string{"c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8"}
	for _, name := range names {
		certificate(name, "0a")
	}
	a.sync()
	w.do(fleet.BeginCampaign{Actor: "local", ID: "campaign00000001", Selector: "env=test", Over: 6 * time.Hour, Targets: len(names)})
	w.do(fleet.BeginCampaign{Actor: "local", ID: "campaign00000002", Selector: "env=prod", Over: 6 * time.Hour})
	stored, ok := w.view().Campaign("campaign00000001")
	require.True(t, ok)

	asked := map[string]time.Time{}
	for step := range 37 {
		for _, command := range a.sync().Commands {
			assert.Equal(t, stored.Due(a.id, command.Certificate).UTC(), command.NotBefore)
			assert.Equal(t, "0a", command.Serial)
			assert.False(t, command.NotBefore.After(w.now().Add(5*time.Minute)), "asked no sooner than is needed")
			if _, known := asked[command.Certificate]; !known {
				asked[command.Certificate] = command.NotBefore
			}
		}
		if step < 36 {
			w.sleep(10 * time.Minute)
		}
	}
	assert.Len(t, asked, len(names), "all in the window")

	// One is renewed, one fails, and the rest is asked again until it is done.
	certificate("c1", "0b")
	request := a.request()
	request.Commands = []wire.CommandResult{
		{ID: stored.CommandID(a.id, "c1"), State: wire.CommandDone, At: w.now()},
		{ID: stored.CommandID(a.id, "c2"), State: wire.CommandRefused, Detail: "no such certificate", At: w.now()},
		{ID: stored.CommandID(a.id, "c3"), State: wire.CommandAccepted, At: w.now()},
	}
	assert.Len(t, a.send(request).Commands, len(names)-2)
	require.Len(t, w.view().CampaignCommands(stored.ID, 10), 1)
	w.unchanged(func() {
		again := a.request()
		again.Commands = request.Commands
		assert.Len(t, a.send(again).Commands, len(names)-2)
	})
	w.do(fleet.CancelCampaign{Actor: "local", ID: stored.ID})
	assert.Empty(t, a.sync().Commands)
}

// What a host warns of is stored when it changes, and costs nothing while it
// stays.
func TestWarningsOfAHost(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	a.sync()
	say := func(warnings ...string) []string {
		t.Helper()
		request := a.request()
		request.Host.Warnings = warnings
		a.send(request)
		stored, ok := w.view().Agent(a.id)
		require.True(t, ok)
		return stored.Host.Warnings
	}
	assert.Equal(t, []string{"one", "two"}, say("one", "two"))
	w.unchanged(func() { say("one", "two") })
	assert.Equal(t, []string{"two"}, say("two"))
	assert.Empty(t, say())
	w.unchanged(func() { say() })
}
