package fleet_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// packed is a snapshot's stream as a restore stages it.
func packed(t testingT, stream []byte) (pieces [][]byte) {
	t.Helper()
	packer, err := fleet.NewRestorePacker(func(piece []byte) error {
		pieces = append(pieces, bytes.Clone(piece))
		return nil
	})
	require.NoError(t, err)
	_, err = packer.Write(stream)
	require.NoError(t, err)
	require.NoError(t, packer.Close())
	return pieces
}

type panics struct{}

func (panics) Errorf(format string, args ...any) { panic(format) }
func (panics) FailNow()                          { panic("failed") }
func (panics) Helper()                           {}

// stagedState is a small state, packed, for random logs.
var stagedState = sync.OnceValue(func() [][]byte {
	b := newBench(panics{})
	b.enroll("a1")
	return packed(panics{}, snapshot(panics{}, b.state))
})

func (b *bench) stage(id string, pieces [][]byte) {
	b.t.Helper()
	for i, piece := range pieces {
		b.ok(fleet.StageRestore{ID: id, Piece: uint32(i), Data: piece})
	}
}

func TestARestoreThroughTheLog(t *testing.T) {
	b := newBench(t)
	b.ok(fleet.InitCA{Authorities: authorities(1)})
	b.ok(apiToken("admin", 1))
	b.enroll("old")
	saved := snapshot(t, b.state)
	savedAt := b.state.Index()
	b.enroll("new")
	b.ok(apiToken("asking", 2))
	b.ok(fleet.AnnounceNode{Node: clusterNode("n1", "k1")})
	lost := b.command(token("lost"))
	require.True(t, b.entry(lost)[0].OK())
	known := b.command(enrolment("token", "old"))
	audited := b.facts[len(b.facts)-1].Audit

	pieces := packed(t, saved)
	before := snapshot(t, b.state)
	b.stage("r", pieces)
	for _, table := range fleet.Tables() {
		assert.Equal(t, b.view().Rows(table), rowsOf(t, before, table), "staging changes nothing")
	}
	facts := len(b.facts)
	replaced := b.state.Index()
	b.ok(fleet.ApplyRestore{ID: "r", Pieces: uint32(len(pieces)), APIToken: "asking", Note: fleet.NoteRestore{
		Actor: "api_token:asking", Snapshot: "monday", SnapshotIndex: savedAt, ReplacedIndex: replaced, TakenAt: testTime,
	}})

	view := b.view()
	assert.Equal(t, replaced+1, view.Index(), "the log goes on")
	b.agent("old")
	_, ok := view.Agent("new")
	assert.False(t, ok)
	for id, want := range map[string]bool{"admin": true, "asking": true} {
		_, ok := view.APIToken(id)
		assert.Equal(t, want, ok, id)
	}
	assert.Len(t, view.ClusterNodes(), 1, "the nodes are those of the live cluster")
	ca, ok := view.CA()
	require.True(t, ok)
	assert.Equal(t, view.Index(), ca.ModifyIndex, "whoever has unsealed the CA before does so again")
	for _, table := range fleet.Tables() {
		assert.Equal(t, view.Index(), view.Version(table), table)
	}
	require.Len(t, b.facts, facts+1)
	assert.Equal(t, fleet.KindStateRestored, b.facts[facts].Kind)
	assert.Equal(t, audited+1, b.facts[facts].Audit, "no number comes twice")

	// What was acknowledged after the snapshot is gone, and can come again.
	assert.Equal(t, view.Index(), b.state.Forgotten(), "and would not be recognized")
	assert.False(t, b.state.Remembers([]fleet.Command{known, lost}))
	assert.True(t, b.entry(lost)[0].OK())
	_, ok = view.EnrollmentToken("lost")
	assert.False(t, ok)
	_, ok = b.view().EnrollmentToken("lost")
	assert.True(t, ok)
	assert.True(t, b.entry(known)[0].OK())
	assert.True(t, b.state.Remembers([]fleet.Command{known, lost}))

	// The staged pieces are used up.
	assert.Equal(t, wire.CodeConflict, b.do(fleet.ApplyRestore{ID: "r", Pieces: uint32(len(pieces))}).Code)
}

func rowsOf(t *testing.T, stream []byte, table fleet.Table) int {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	restore(t, state, stream)
	return state.View().Rows(table)
}

func TestARestoreThatIsNotWholeChangesNothing(t *testing.T) {
	other := newBench(t)
	other.enroll("a1")
	other.ok(fleet.SyncAgent{AgentID: "a1", BootID: "b", Sequence: 1, Revision: 1, HeadRevision: 1, Events: []wire.Event{{
		Sequence: 1, At: testTime, Kind: wire.EventIssued,
	}}})
	// So large, and so irregular, that it takes several pieces.
	random := rand.New(rand.NewPCG(1, 1))
	for i := range 50 {
		noise := make([]byte, 20<<10)
		for k := range noise {
			noise[k] = byte(random.Uint32())
		}
		agent := fmt.Sprintf("n%d", i)
		other.ok(fleet.EnrollAgent{TokenID: "token", SecretHash: enrolment("token", agent).SecretHash, AgentID: agent, Identity: fleet.Identity{
			Certificate: noise, Fingerprint: "f" + agent, PublicKeyFingerprint: "k" + agent,
		}})
	}
	pieces := packed(t, snapshot(t, other.state))
	require.Greater(t, len(pieces), 2)

	b := newBench(t)
	for range other.state.Index() + 10 {
		b.ok(fleet.DropRestore{})
	}
	b.ok(token("kept"))
	apply := func(id string, n int) fleet.Result { return b.do(fleet.ApplyRestore{ID: id, Pieces: uint32(n)}) }
	still := func() {
		t.Helper()
		_, ok := b.view().EnrollmentToken("kept")
		require.True(t, ok)
	}
	assert.Equal(t, wire.CodeConflict, apply("r", len(pieces)).Code, "nothing is staged")
	assert.Equal(t, wire.CodeConflict, b.do(fleet.StageRestore{ID: "r", Piece: 1, Data: pieces[1]}).Code, "out of order")
	b.stage("r", pieces[:2])
	assert.Equal(t, wire.CodeConflict, apply("r", len(pieces)).Code, "not all is staged")
	assert.Equal(t, wire.CodeInvalid, apply("r", 2).Code, "it is cut short")
	still()
	b.stage("s", pieces) // takes the place of the first
	assert.Equal(t, wire.CodeConflict, b.do(fleet.StageRestore{ID: "r", Piece: 2, Data: pieces[2]}).Code)
	damaged := slices.Clone(pieces)
	damaged[1] = bytes.Clone(damaged[1])
	damaged[1][1000] ^= 1
	b.stage("d", damaged)
	assert.Equal(t, wire.CodeInvalid, apply("d", len(pieces)).Code)
	still()
	for _, invalid := range []fleet.StageRestore{
		{ID: "", Data: []byte("x")}, {ID: "x"}, {ID: "x", Data: make([]byte, fleet.MaxRestorePiece+1)},
		{ID: "x", Piece: fleet.MaxRestorePieces, Data: []byte("x")},
	} {
		assert.Equal(t, wire.CodeInvalid, b.do(invalid).Code)
	}
	still()

	b.stage("s", pieces)
	assert.Equal(t, wire.CodeConflict, b.do(fleet.ApplyRestore{ID: "s", Pieces: uint32(len(pieces)), APIToken: "nobody"}).Code)
	still()
	assert.True(t, apply("s", len(pieces)).OK())
	b.agent("a1")
	_, ok := b.view().EnrollmentToken("kept")
	assert.False(t, ok)

	// A log that is behind the snapshot cannot take it: indexes would go back.
	behind := newBench(t)
	behind.stage("r", pieces)
	require.Less(t, behind.state.Index()+1, other.state.Index())
	refused := behind.do(fleet.ApplyRestore{ID: "r", Pieces: uint32(len(pieces))})
	assert.Equal(t, wire.CodeConflict, refused.Code)
	assert.Contains(t, refused.Mend, "one node")
}

func TestWhatWasStagedIsForgotten(t *testing.T) {
	b := newBench(t)
	empty := len(snapshot(t, b.state))
	b.stage("r", [][]byte{bytes.Repeat([]byte("x"), 1000)})
	assert.Greater(t, len(snapshot(t, b.state)), empty+1000)
	b.now = b.now.Add(7 * time.Hour)
	b.ok(token("t"))
	b.ok(token("u"))
	assert.NotContains(t, string(snapshot(t, b.state)), "xxxxx")
	b.stage("r", [][]byte{bytes.Repeat([]byte("x"), 1000)})
	b.ok(fleet.DropRestore{ID: "other"})
	assert.Contains(t, string(snapshot(t, b.state)), "xxxxx")
	b.ok(fleet.DropRestore{ID: "r"})
	assert.NotContains(t, string(snapshot(t, b.state)), "xxxxx")
}

// TestARestoreOfAnyStates: in one entry with other commands, at any place, it is
// the same on a node that applies it and on one that got a snapshot of it.
func TestARestoreOfAnyStates(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(rt)
		for range rapid.IntRange(0, 15).Draw(rt, "before") {
			b.entry(b.command(randomPayload(rt, b.now)))
		}
		pieces := packed(rt, snapshot(rt, b.state))
		for range rapid.IntRange(0, 15).Draw(rt, "after") {
			b.entry(b.command(randomPayload(rt, b.now)))
		}
		b.stage("mine", pieces)
		entry := []fleet.Command{b.command(randomPayload(rt, b.now))}
		if entry[0].Type != fleet.TypeStageRestore && entry[0].Type != fleet.TypeApplyRestore {
			entry = append(entry, b.command(fleet.ApplyRestore{ID: "mine", Pieces: uint32(len(pieces))}), b.command(randomPayload(rt, b.now)))
			results := b.entry(entry...)
			require.True(rt, results[1].OK(), "%v", results[1])
		}
		b.checkTrail()
		other := b.copied()
		for range rapid.IntRange(0, 5).Draw(rt, "tail") {
			command := b.command(randomPayload(rt, b.now))
			require.Equal(rt, b.entry(command), other.entry(command))
		}
		require.True(rt, bytes.Equal(snapshot(rt, b.state), snapshot(rt, other.state)))
	})
}
