package fleet_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/trail"
)

// checkTrail verifies the audit trail that the log has made, up to the head that the
// state has.
func (b *bench) checkTrail() *trail.Report {
	b.t.Helper()
	var anchors []trail.Anchor
	head, begun := b.view().AuditHead()
	if begun {
		anchors = append(anchors, trail.Anchor{Number: head.Number, Hash: head.Hash, From: "the state"})
	}
	verifier := trail.NewVerifier(1, anchors...)
	for _, fact := range b.facts {
		if fact.Audit > 0 {
			verifier.Add(fact.Record())
		}
	}
	report := verifier.End()
	require.Empty(b.t, report.Breaks)
	require.Equal(b.t, begun, report.ChainedFrom > 0)
	if begun {
		require.Equal(b.t, head.Number, report.Last, "the head is the last fact")
		require.Equal(b.t, head.First, report.ChainedFrom)
	}
	return report
}

// Facts of before the chain are as nodes of every version make them; those after it
// have hashes, which go on through snapshots.
func TestTheAuditTrailIsChained(t *testing.T) {
	b := newBench(t)
	b.ok(token("t1"))
	_, begun := b.view().AuditHead()
	assert.False(t, begun)
	assert.True(t, b.lastFact().Hash.IsZero())
	old := b.facts[0]
	assert.JSONEq(t, `{"description":"","labels":{"site":"north"},"max_uses":0,"name_patterns":["**.example.com"],"expires_at":"2026-05-31T12:00:00Z"}`, string(old.Detail))
	assert.Empty(t, old.After, "who has not begun the chain makes facts as before")

	b.ok(fleet.BeginAuditChain{Actor: "system"})
	first := b.lastFact()
	assert.Equal(t, fleet.KindAuditChainBegun, first.Kind)
	assert.JSONEq(t, `{"not_chained":1}`, string(first.Detail))
	assert.True(t, first.Prev.IsZero())
	assert.False(t, first.Hash.IsZero())
	b.ok(fleet.BeginAuditChain{Actor: "system"})
	assert.Equal(t, first, b.lastFact(), "it is begun once")

	// Several in one entry, among them a routine one.
	b.ok(enrolment("t1", "a1"))
	b.entry(b.command(token("t2")), b.command(fleet.PublishRevocations{ThisUpdate: testTime, NextUpdate: testTime.Add(time.Hour)}), b.command(token("t3")))
	head, begun := b.view().AuditHead()
	require.True(t, begun)
	assert.Equal(t, fleet.AuditHead{Number: 5, Hash: b.lastFact().Hash, Index: b.lastFact().Index, Time: testTime, First: 2}, head)
	for _, fact := range b.facts {
		assert.Equal(t, fact.Audit >= 2, !fact.Hash.IsZero(), "fact %d", fact.Audit)
	}
	report := b.checkTrail()
	assert.EqualValues(t, 1, report.NotChained)

	other := b.copied()
	again, _ := other.view().AuditHead()
	assert.Equal(t, head, again)
	command := b.command(token("t4"))
	b.entry(command)
	other.entry(command)
	assert.Equal(t, b.lastFact(), other.lastFact())
	assert.Equal(t, head.Hash, other.lastFact().Prev)
}

// The chain belongs to the cluster and its journals, and not to the state that is
// restored: it goes on, says what it leaves out, and tells the head of the other trail.
func TestARestoreGoesOnWithTheChain(t *testing.T) {
	old := newBench(t)
	old.ok(fleet.BeginAuditChain{})
	for _, id := range []string{"t1", "t2", "t3", "t4", "t5"} {
		old.ok(token(id))
	}
	theirs, _ := old.view().AuditHead()

	live := newBench(t)
	live.ok(fleet.BeginAuditChain{})
	live.ok(apiToken("admin", 1))
	for range 20 {
		live.ok(fleet.TouchAgents{})
	}
	ours, _ := live.view().AuditHead()
	pieces := packed(t, snapshot(t, old.state))
	live.stage("r", pieces)
	restore := live.command(fleet.ApplyRestore{ID: "r", Pieces: uint32(len(pieces)), APIToken: "admin", Note: fleet.NoteRestore{
		Actor: "api_token:admin", Snapshot: "file", SnapshotIndex: old.state.Index(), ReplacedIndex: live.state.Index(),
	}})
	results := live.entry(live.command(token("before")), restore, live.command(token("after")))
	require.True(t, results[1].OK(), "%v", results[1])

	report := live.checkTrail()
	assert.Equal(t, []trail.Jump{{After: ours.Number + 1, Number: theirs.Number + 1}}, report.Jumps)
	note := live.facts[len(live.facts)-2]
	require.Equal(t, fleet.KindStateRestored, note.Kind)
	assert.Equal(t, live.facts[len(live.facts)-3].Hash, note.Prev)
	var was, is struct {
		Number uint64     `json:"audit_number"`
		Hash   trail.Hash `json:"audit_hash"`
		Index  uint64     `json:"log_index"`
	}
	require.NoError(t, json.Unmarshal(note.Before, &was))
	require.NoError(t, json.Unmarshal(note.After, &is))
	assert.Equal(t, []any{ours.Number + 1, note.Prev}, []any{was.Number, was.Hash})
	assert.Equal(t, []any{theirs.Number, theirs.Hash, old.state.Index()}, []any{is.Number, is.Hash, is.Index})

	// A cluster that has not begun does not take over what is not its own.
	fresh := newBench(t)
	for range 20 {
		fresh.ok(fleet.TouchAgents{})
	}
	fresh.stage("r", pieces)
	fresh.ok(fleet.ApplyRestore{ID: "r", Pieces: uint32(len(pieces))})
	_, begun := fresh.view().AuditHead()
	assert.False(t, begun)
	fresh.ok(fleet.BeginAuditChain{})
	fresh.checkTrail()
}

// What one sync after the other says again is not in the audit trail, nor are
// heartbeats.
func TestHeartbeatsAreNotInTheAuditTrail(t *testing.T) {
	b := newBench(t)
	b.ok(fleet.BeginAuditChain{})
	b.enroll("a1")
	head, _ := b.view().AuditHead()
	for i := range 1000 {
		b.now = b.now.Add(time.Minute)
		sync := fleet.SyncAgent{AgentID: "a1", BootID: "b1", Sequence: uint64(i + 1), Revision: 1, HeadRevision: 1}
		if i == 0 {
			sync.Rows = []fleet.Row{row(t, wireRow("x", 1, "x.example.com", b.now))}
		}
		b.ok(sync)
		b.ok(fleet.TouchAgents{Seen: []fleet.Seen{{Agent: "a1", At: b.now}}})
	}
	after, _ := b.view().AuditHead()
	assert.Equal(t, head, after)
	assert.EqualValues(t, head.Number, b.view().AuditFacts())
}
