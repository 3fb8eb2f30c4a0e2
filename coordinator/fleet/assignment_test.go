package fleet_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func put(selector string, previous *uint64) fleet.PutAssignment {
	return fleet.PutAssignment{Actor: "api_token:anna", Name: "www", Selector: selector, Template: []byte(`{"names":["a"]}`), Previous: previous}
}

func TestAssignmentsAreChangedByRevision(t *testing.T) {
	b := newBench(t)
	revision := func(n uint64) *uint64 { return &n }
	outcome := func(p fleet.PutAssignment) fleet.PutOutcome {
		t.Helper()
		var o fleet.PutOutcome
		require.NoError(t, b.do(p).Decode(&o))
		return o
	}
	assert.Equal(t, wire.CodeConflict, b.do(put("*", revision(1))).Code, "there is none to change")
	made := outcome(put("*", revision(0)))
	assert.True(t, made.Created && made.Changed)
	assert.EqualValues(t, 1, made.Assignment.Revision)
	version := b.view().Version(fleet.TableAssignments)
	again := outcome(put("*", nil))
	assert.False(t, again.Created || again.Changed)
	assert.Equal(t, version, b.view().Version(fleet.TableAssignments), "the same again changes nothing, and hosts compute nothing")
	assert.Equal(t, wire.CodeConflict, b.do(put("a=b", revision(0))).Code)
	b.now = b.now.Add(time.Minute)
	changed := outcome(put("a=b", revision(1)))
	assert.True(t, changed.Changed && !changed.Created)
	assert.EqualValues(t, 2, changed.Assignment.Revision)
	assert.Equal(t, testTime, changed.Assignment.CreatedAt)
	assert.Equal(t, b.now, changed.Assignment.UpdatedAt)
	assert.Equal(t, wire.CodeConflict, b.do(fleet.DeleteAssignment{Name: "www", Previous: revision(1)}).Code)
	b.ok(fleet.DeleteAssignment{Actor: "api_token:anna", Name: "www"})
	assert.Equal(t, wire.CodeNotFound, b.do(fleet.DeleteAssignment{Name: "www"}).Code)
	assert.Empty(t, b.view().Assignments())
	var kinds []fleet.Kind
	for i, fact := range b.facts {
		assert.EqualValues(t, i+1, fact.Audit)
		assert.Equal(t, "api_token:anna", fact.Actor)
		kinds = append(kinds, fact.Kind)
	}
	assert.Equal(t, []fleet.Kind{fleet.KindAssignmentCreated, fleet.KindAssignmentChanged, fleet.KindAssignmentDeleted}, kinds)
}

func TestReportsAreStoredWhenTheyDiffer(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	report := wire.AssignmentReport{Name: "www", Revision: 1, State: wire.AssignmentActive}
	sync := fleet.SyncAgent{AgentID: "agent", BootID: "boot", Sequence: 1, DesiredDigest: "d1", Reports: []wire.AssignmentReport{report}}
	_, settled := b.view().Settled(&sync)
	assert.False(t, settled)
	b.ok(sync)
	assert.Equal(t, "d1", b.agent("agent").DesiredDigest)
	stored, ok := b.view().AssignmentReport("agent", "www")
	require.True(t, ok)
	assert.True(t, stored.Says(report))
	facts := len(b.facts)
	b.ok(sync)
	assert.Len(t, b.facts, facts, "the same report is no fact")
	_, settled = b.view().Settled(&fleet.SyncAgent{AgentID: "agent", BootID: "boot", Sequence: 1, DesiredDigest: "d1"})
	assert.True(t, settled)

	report.State, report.Detail = wire.AssignmentShadowed, "in the local configuration"
	b.ok(fleet.SyncAgent{AgentID: "agent", BootID: "boot", Sequence: 2, Reports: []wire.AssignmentReport{report}})
	require.Len(t, b.view().AssignmentReports("www"), 1)
	assert.Equal(t, wire.AssignmentShadowed, b.view().AssignmentReports("www")[0].State)
	assert.Equal(t, "d1", b.agent("agent").DesiredDigest)
	b.ok(fleet.SyncAgent{AgentID: "agent", BootID: "boot", Sequence: 3, ReportsGone: []string{"www", "unknown"}})
	assert.Empty(t, b.view().AssignmentReportsOf("agent"))
}

func TestCommandsForAnAgent(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	renew := fleet.CommandAgent{Actor: "api_token:anna", Agent: "agent", ID: "command-1", Kind: wire.CommandRenew, Certificate: "www", Serial: "0a"}
	b.ok(renew)
	b.ok(renew)
	assert.Len(t, b.view().AgentCommands("agent"), 1)
	say := func(state wire.CommandState) *fleet.AgentCommand {
		t.Helper()
		b.ok(fleet.SyncAgent{AgentID: "agent", BootID: "boot", Sequence: 1, Commands: []fleet.CommandReport{
			{ID: "command-1", State: state, Detail: "because", At: b.now}, {ID: "never-sent", State: state, At: b.now}}})
		command, ok := b.view().AgentCommand("agent", "command-1")
		require.True(t, ok)
		require.Len(t, b.view().AgentCommands("agent"), 1)
		return command
	}
	assert.Equal(t, fleet.CommandAccepted, say(wire.CommandAccepted).State)
	assert.False(t, fleet.CommandAccepted.Final())
	assert.Equal(t, fleet.CommandFailed, say(wire.CommandFailed).State)
	assert.Equal(t, fleet.CommandFailed, say(wire.CommandDone).State, "the first end of a command is its end")

	for i := range wire.MaxCommands {
		renew.ID = fmt.Sprintf("more-%04d", i)
		b.ok(renew)
	}
	renew.ID = "one-too-many"
	assert.Equal(t, wire.CodeOverloaded, b.do(renew).Code)
	renew.Agent = "none"
	assert.Equal(t, wire.CodeNotFound, b.do(renew).Code)
	assert.Equal(t, wire.CodeInvalid, b.do(fleet.CommandAgent{Agent: "agent", ID: "command-9", Kind: "dance", Certificate: "www"}).Code)

	b.now = b.now.Add(31 * 24 * time.Hour)
	b.ok(token("later"))
	_, ok := b.view().AgentCommand("agent", "command-1")
	assert.False(t, ok, "what has ended long ago is forgotten")
	assert.Len(t, b.view().AgentCommands("agent"), wire.MaxCommands, "what is open is not")
	b.ok(fleet.RetireAgent{AgentID: "agent"})
	assert.Empty(t, b.view().AgentCommands("agent"))
	renew.Agent = "agent"
	assert.Equal(t, wire.CodeAgentRetired, b.do(renew).Code)
}

// A campaign knows what it waits for from the certificates themselves.
func TestCampaign(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	sync := func(revision uint64, commands []fleet.CommandReport, names ...string) {
		t.Helper()
		p := fleet.SyncAgent{AgentID: "agent", BootID: "boot", Sequence: revision, BaseRevision: revision - 1, Revision: revision, HeadRevision: revision, Commands: commands}
		for _, name := range names {
			p.Rows = append(p.Rows, row(t, wireRow(name, revision, name+".example.com", testTime.Add(time.Hour))))
		}
		b.ok(p)
	}
	wanted := func() (names []string) {
		campaign, ok := b.view().Campaign(campaigns[0])
		require.True(t, ok)
		for _, name := range []string{"x", "y", "z"} {
			if row, ok := b.view().Certificate("agent", name); ok && campaign.Wants(row) {
				names = append(names, name)
			}
		}
		return names
	}
	sync(1, nil, "x", "y")
	begin := fleet.BeginCampaign{Actor: "api_token:anna", ID: campaigns[0], Selector: "*", Over: 6 * time.Hour, Targets: 2}
	b.ok(begin)
	b.ok(begin)
	assert.Equal(t, []string{"x", "y"}, wanted())
	campaign, _ := b.view().Campaign(campaigns[0])
	for _, name := range []string{"x", "y"} {
		due := campaign.Due("agent", name)
		assert.False(t, due.Before(testTime) || due.After(testTime.Add(6*time.Hour)))
		assert.Equal(t, due, campaign.Due("agent", name))
	}
	assert.NotEqual(t, campaign.Due("agent", "x"), campaign.Due("agent", "y"))

	// One is replaced, one is new, and one fails.
	failed := fleet.CommandReport{ID: campaign.CommandID("agent", "y"), Campaign: campaign.ID, Certificate: "y", State: wire.CommandFailed, Detail: "no key", At: b.now}
	done := fleet.CommandReport{ID: campaign.CommandID("agent", "x"), Campaign: campaign.ID, Certificate: "x", State: wire.CommandDone, At: b.now}
	sync(2, []fleet.CommandReport{done, failed}, "x", "z")
	assert.Equal(t, []string{"y"}, wanted())
	ended := b.view().CampaignCommands(campaign.ID, 10)
	require.Len(t, ended, 1, "what was replaced needs no record")
	assert.Equal(t, "y", ended[0].Certificate)
	assert.Equal(t, fleet.CommandFailed, ended[0].State)

	assert.True(t, campaign.Running(testTime.Add(7*time.Hour)))
	b.ok(fleet.CancelCampaign{Actor: "api_token:anna", ID: campaigns[0]})
	b.ok(fleet.CancelCampaign{Actor: "api_token:bert", ID: campaigns[0]})
	campaign, _ = b.view().Campaign(campaigns[0])
	assert.Equal(t, "api_token:anna", campaign.CancelledBy)
	assert.False(t, campaign.Running(testTime))
	assert.Equal(t, wire.CodeNotFound, b.do(fleet.CancelCampaign{ID: "none"}).Code)

	for i := range fleet.MaxRunning {
		begin.ID = fmt.Sprintf("campaign%08d", 100+i)
		b.ok(begin)
	}
	begin.ID = "campaign00000999"
	assert.Equal(t, wire.CodeOverloaded, b.do(begin).Code)
	b.now = b.now.AddDate(1, 0, 0)
	b.ok(begin)
	assert.Len(t, b.view().Campaigns(), 1, "old ones go")
}

// issue lets the built-in CA issue a certificate to an agent that is enrolled.
func (b *bench) issue(agent, serial string, notAfter time.Time) {
	b.t.Helper()
	b.ok(fleet.SyncAgent{AgentID: agent, BootID: "boot", Sequence: 1, Orders: []fleet.OrderPlacement{
		{ID: "order" + serial, Certificate: "www", Issuer: "builtin", CSR: []byte(serial), Names: pki.MustParseNames("www.example.com")}}})
	b.ok(fleet.CompleteOrder{Agent: agent, ID: "order" + serial, ChainPEM: "chain", Serial: serial, NotAfter: notAfter})
}

func TestRevocations(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.issue("agent", "0a", testTime.Add(time.Hour))
	revoke := fleet.RevokeCertificate{Actor: "api_token:anna", Serial: "0a", Reason: 1}
	publish := func() (list fleet.RevocationList, serials []string) {
		t.Helper()
		var made fleet.RevocationList
		require.NoError(t, b.do(fleet.PublishRevocations{ThisUpdate: b.now, NextUpdate: b.now.Add(24 * time.Hour)}).Decode(&made))
		stored, entries := b.view().RevocationList()
		require.Equal(t, made, *stored)
		for _, entry := range entries {
			serials = append(serials, entry.Serial)
		}
		return made, serials
	}
	list, serials := publish()
	assert.EqualValues(t, 1, list.Number)
	assert.Empty(t, serials)
	b.ok(revoke)
	b.now = b.now.Add(time.Minute)
	b.ok(revoke)
	stored, ok := b.view().Revocation("0a")
	require.True(t, ok)
	assert.Equal(t, testTime, stored.At, "what is revoked stays as it is")
	assert.Equal(t, testTime.Add(time.Hour), stored.NotAfter)
	assert.Equal(t, "agent", stored.Agent)
	_, entries := b.view().RevocationList()
	assert.Empty(t, entries, "a list that was published does not change")
	list, serials = publish()
	assert.EqualValues(t, 2, list.Number)
	assert.Equal(t, []string{"0a"}, serials)

	b.now = b.now.Add(2 * time.Hour)
	_, serials = publish()
	assert.Equal(t, []string{"0a"}, serials, "one list made after its end still has it")
	_, serials = publish()
	assert.Empty(t, serials)
	_, ok = b.view().Issued("0a")
	assert.False(t, ok, "what has expired is forgotten")

	assert.Equal(t, wire.CodeNotFound, b.do(fleet.RevokeCertificate{Serial: "0b"}).Code, "the CA did not issue it")
	revoke.Reason = 7
	assert.Equal(t, wire.CodeInvalid, b.do(revoke).Code, "7 is not used (RFC 5280, section 5.3.1)")
	assert.Equal(t, wire.CodeInvalid, b.do(fleet.PublishRevocations{ThisUpdate: b.now, NextUpdate: b.now}).Code)
}

func TestRetiringRevokesWhatTheBuiltinCAIssued(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.enroll("other")
	b.issue("agent", "0a", testTime.Add(time.Hour))
	b.issue("agent", "0b", testTime.Add(time.Minute))
	b.issue("other", "0c", testTime.Add(time.Hour))
	// What an agent says of another's certificate is nothing to revoke by.
	foreign := fleet.SyncAgent{AgentID: "agent", BootID: "boot", Sequence: 2, Revision: 1, HeadRevision: 1}
	foreign.Rows = append(foreign.Rows, row(t, wire.Row{Name: "x", Revision: 1, Data: []byte(`{"names":["c.example.com"],"issuer_kind":"coordinator","serial":"0c"}`)}))
	b.ok(foreign)
	b.now = b.now.Add(2 * time.Minute)
	b.ok(fleet.RetireAgent{Actor: "api_token:anna", AgentID: "agent"})
	revoked := b.view().Revocations()
	require.Len(t, revoked, 1, "neither what has expired, nor what is another's")
	assert.Equal(t, "0a", revoked[0].Serial)
	assert.Equal(t, 5, revoked[0].Reason)
}
