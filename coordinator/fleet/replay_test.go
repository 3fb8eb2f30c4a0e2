package fleet_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func restore(t testingT, state *fleet.State, data []byte) {
	t.Helper()
	require.NoError(t, state.Restore(bytes.NewReader(data)))
}

var campaigns = []string{"campaign00000001", "campaign00000002"}

// pick draws one of a few names, so that commands meet.
func pick(t *rapid.T, label string, list ...string) string {
	return rapid.SampledFrom(list).Draw(t, label)
}

func anAgent(t *rapid.T) string             { return pick(t, "agent", "a1", "a2", "a3") }
func aToken(t *rapid.T) string              { return pick(t, "token", "t1", "t2") }
func anOrder(t *rapid.T) string             { return pick(t, "order", "o1", "o2", "s1", "s2") }
func aSlowOrder(t *rapid.T) string          { return pick(t, "order", "s1", "s2", "o1") }
func anAssignment(t *rapid.T) string        { return pick(t, "assignment", "as1", "as2") }
func aCampaign(t *rapid.T) string           { return pick(t, "campaign", campaigns...) }
func aSerial(t *rapid.T) string             { return pick(t, "serial", "1", "2") }
func small(t *rapid.T, label string) uint64 { return rapid.Uint64Range(0, 6).Draw(t, label) }

func aNode(t *rapid.T, now time.Time) fleet.ClusterNode {
	node := clusterNode(pick(t, "node", "n1", "n2", "n3"), pick(t, "key", "k1", "k2"))
	node.Level = uint32(small(t, "level")) // 0 is refused
	node.Trusts = []string{pick(t, "root", "r1", "r2")}
	node.CertificateNotAfter = now.Add(time.Duration(small(t, "days")) * 24 * time.Hour)
	return node
}

// generators draw a command of each type.
var generators = map[fleet.Type]func(t *rapid.T, now time.Time) fleet.Payload{
	fleet.TypeStageRestore: func(t *rapid.T, _ time.Time) fleet.Payload {
		pieces := stagedState()
		piece := small(t, "piece") % uint64(len(pieces)+1)
		data := []byte("garbage")
		if piece < uint64(len(pieces)) {
			data = pieces[piece]
		}
		return fleet.StageRestore{ID: pick(t, "restore", "r1", "r2"), Piece: uint32(piece), Data: data}
	},
	fleet.TypeApplyRestore: func(t *rapid.T, now time.Time) fleet.Payload {
		return fleet.ApplyRestore{
			ID: pick(t, "restore", "r1", "r2"), Pieces: 1, APIToken: pick(t, "kept", "", "t1"),
			Note: fleet.NoteRestore{Actor: "local", Snapshot: "s", TakenAt: now},
		}
	},
	fleet.TypeDropRestore: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.DropRestore{ID: pick(t, "restore", "r1", "r2")}
	},
	fleet.TypeInitCA: func(*rapid.T, time.Time) fleet.Payload {
		return fleet.InitCA{Actor: "local", Authorities: []fleet.Authority{{Name: "root", Certificate: []byte("c"), SealedKey: []byte("k")}}}
	},
	fleet.TypeChangeCA: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.ChangeCA{
			Actor: "local", Base: small(t, "base"), What: "a change", Generations: [][]byte{[]byte("signed")},
			Authorities: []fleet.Authority{{Name: "root", Certificate: []byte("c2"), SealedKey: []byte("k2"), State: fleet.AuthorityPublished}},
		}
	},
	fleet.TypeAcknowledgeTrust: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.AcknowledgeTrust{AgentID: anAgent(t), Generation: small(t, "generation")}
	},
	fleet.TypeCreateEnrollmentToken: func(t *rapid.T, _ time.Time) fleet.Payload {
		p := token(aToken(t))
		p.MaxUses = uint32(rapid.IntRange(0, 2).Draw(t, "uses"))
		return p
	},
	fleet.TypeRevokeEnrollmentToken: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.RevokeEnrollmentToken{Actor: "local", ID: aToken(t)}
	},
	fleet.TypeEnrollAgent: func(t *rapid.T, _ time.Time) fleet.Payload { return enrolment(aToken(t), anAgent(t)) },
	fleet.TypeSetPendingIdentity: func(t *rapid.T, _ time.Time) fleet.Payload {
		agent, key := anAgent(t), pick(t, "key", "k1", "k2")
		return fleet.SetPendingIdentity{AgentID: agent, Identity: identity(key, agent+key)}
	},
	fleet.TypePromoteIdentity: func(t *rapid.T, _ time.Time) fleet.Payload {
		agent := anAgent(t)
		return fleet.PromoteIdentity{AgentID: agent, Fingerprint: "cert-" + agent + pick(t, "key", "k1", "k2")}
	},
	fleet.TypeNoteSharedIdentity: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.NoteSharedIdentity{AgentID: anAgent(t), Remote: "192.0.2.7:4711"}
	},
	fleet.TypeRetireAgent: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.RetireAgent{Actor: "local", AgentID: anAgent(t)}
	},
	fleet.TypeTouchAgents: func(t *rapid.T, now time.Time) fleet.Payload {
		return fleet.TouchAgents{Seen: []fleet.Seen{{Agent: anAgent(t), At: now}}}
	},
	fleet.TypeCompleteOrder: func(t *rapid.T, now time.Time) fleet.Payload {
		return fleet.CompleteOrder{Agent: anAgent(t), ID: anOrder(t), ChainPEM: "chain", Serial: aSerial(t), NotAfter: now.Add(20 * time.Minute)}
	},
	fleet.TypeRejectOrder: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.RejectOrder{Agent: anAgent(t), ID: anOrder(t), Problem: wire.Problem{Code: wire.CodeInternal, Title: "t"}}
	},
	fleet.TypeCreateAPIToken: func(t *rapid.T, _ time.Time) fleet.Payload {
		p := fleet.CreateAPIToken{Actor: "local", ID: aToken(t), Name: "n", Hash: [32]byte{byte(small(t, "hash"))}, Role: fleet.RoleViewer}
		if rapid.Bool().Draw(t, "scoped") {
			p.Scope = fleet.Scope{"site": {"north", "south"}}
		}
		return p
	},
	fleet.TypeRotateAPIToken: func(t *rapid.T, now time.Time) fleet.Payload {
		return fleet.RotateAPIToken{Actor: "local", ID: aToken(t), Hash: [32]byte{byte(small(t, "hash"))}, Until: now.Add(time.Hour)}
	},
	fleet.TypeRevokeAPIToken: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.RevokeAPIToken{Actor: "local", ID: aToken(t)}
	},
	fleet.TypePutAssignment: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.PutAssignment{Actor: "local", Name: anAssignment(t), Selector: pick(t, "selector", "*", "a=b"), Template: []byte(`{}`)}
	},
	fleet.TypeDeleteAssignment: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.DeleteAssignment{Actor: "local", Name: anAssignment(t)}
	},
	fleet.TypeCommandAgent: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.CommandAgent{Actor: "local", Agent: anAgent(t), ID: pick(t, "command", "command1", "command2"), Kind: wire.CommandRenew, Certificate: pick(t, "certificate", "x", "y")}
	},
	fleet.TypeBeginCampaign: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.BeginCampaign{Actor: "local", ID: aCampaign(t), Selector: "*", Over: time.Hour}
	},
	fleet.TypeCancelCampaign: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.CancelCampaign{Actor: "local", ID: aCampaign(t)}
	},
	fleet.TypeRevokeCertificate: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.RevokeCertificate{Actor: "local", Serial: aSerial(t)}
	},
	fleet.TypePublishRevocations: func(_ *rapid.T, now time.Time) fleet.Payload {
		return fleet.PublishRevocations{ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
	},
	fleet.TypeInitClusterCA: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.InitClusterCA{Actor: "local", Authority: clusterAuthority(pick(t, "root", "r1", "r2"), fleet.AuthorityActive)}
	},
	fleet.TypeChangeClusterCA: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.ChangeClusterCA{Actor: "local", PrevIndex: small(t, "index"), Authorities: []fleet.ClusterAuthority{
			clusterAuthority(pick(t, "root", "r1", "r2"), fleet.AuthorityActive),
			clusterAuthority(pick(t, "root", "r1", "r2"), fleet.AuthorityState(pick(t, "state", "published", "retiring", "retired"))),
		}}
	},
	fleet.TypeCreateJoinToken: func(t *rapid.T, now time.Time) fleet.Payload {
		return fleet.CreateJoinToken{Actor: "local", ID: aToken(t), SecretHash: [32]byte{42}, ExpiresAt: now.Add(time.Hour)}
	},
	fleet.TypeRevokeJoinToken: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.RevokeJoinToken{Actor: "local", ID: aToken(t)}
	},
	fleet.TypeUseJoinToken: func(t *rapid.T, now time.Time) fleet.Payload {
		return fleet.UseJoinToken{ID: aToken(t), SecretHash: [32]byte{42}, Node: aNode(t, now)}
	},
	fleet.TypeAnnounceNode: func(t *rapid.T, now time.Time) fleet.Payload { return fleet.AnnounceNode{Node: aNode(t, now)} },
	fleet.TypeForgetNode: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.ForgetNode{Actor: "local", ID: pick(t, "node", "n1", "n2", "n3")}
	},
	fleet.TypeNoteTransfer: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.NoteTransfer{Actor: "local", From: "n1", To: pick(t, "to", "", "n2")}
	},
	fleet.TypeNoteRestore: func(t *rapid.T, now time.Time) fleet.Payload {
		return fleet.NoteRestore{Actor: "local", Snapshot: "file", TakenAt: now, SnapshotIndex: small(t, "index")}
	},
	fleet.TypeBeginAuditChain: func(*rapid.T, time.Time) fleet.Payload { return fleet.BeginAuditChain{Actor: "system"} },
	fleet.TypeNotePrune: func(t *rapid.T, now time.Time) fleet.Payload {
		return fleet.NotePrune{Actor: "local", Before: now, Months: uint32(small(t, "months")), First: "2025-01", Last: "2025-03", Facts: 7}
	},
	fleet.TypeRecordDay: func(t *rapid.T, now time.Time) fleet.Payload {
		day := aDay(now.AddDate(0, 0, -int(small(t, "days ago"))), small(t, "renewed"))
		day.Final = rapid.Bool().Draw(t, "final")
		return fleet.RecordDay{Day: day}
	},
	fleet.TypeSyncAgent: func(t *rapid.T, now time.Time) fleet.Payload { return randomSync(t, now) },
	fleet.TypeClaimOrder: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.ClaimOrder{Agent: anAgent(t), ID: aSlowOrder(t), Revision: aRevision(t), Node: "n1", Term: small(t, "term"), Again: rapid.Bool().Draw(t, "again")}
	},
	fleet.TypeRecordOrder: func(t *rapid.T, now time.Time) fleet.Payload { return aRecord(t, now) },
	fleet.TypeCancelOrder: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.CancelOrder{Actor: "local", Agent: anAgent(t), ID: aSlowOrder(t), Note: "not wanted"}
	},
	fleet.TypeRetryOrder: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.RetryOrder{Actor: "local", Agent: anAgent(t), ID: aSlowOrder(t)}
	},
	fleet.TypeRevokeOrder: func(t *rapid.T, _ time.Time) fleet.Payload {
		return fleet.RevokeOrder{Actor: "local", Agent: anAgent(t), ID: aSlowOrder(t), Reason: 1,
			Step: fleet.RevocationStep(pick(t, "step", "asked", "taken", "done", "failed"))}
	},
	fleet.TypeResolveOrder: func(t *rapid.T, _ time.Time) fleet.Payload {
		p := fleet.ResolveOrder{Actor: "local", Agent: anAgent(t), ID: aSlowOrder(t), Note: "looked it up",
			Action: fleet.ResolveAction(pick(t, "action", "adopt", "place_again", "give_up"))}
		if p.Action == fleet.ResolveAdopt {
			p.Handle = fleet.OrderHandle{Order: "7"}
		}
		return p
	},
}

// aRevision is often one of the furnished state, in which a few orders stand.
func aRevision(t *rapid.T) uint64 { return rapid.Uint64Range(1, 45).Draw(t, "revision") }

// aRecord is one of the many things that a leader may say of an order.
func aRecord(t *rapid.T, now time.Time) fleet.RecordOrder {
	p := fleet.RecordOrder{
		Agent: anAgent(t), ID: aSlowOrder(t), Revision: aRevision(t),
		State: fleet.OrderState(pick(t, "state", "requested", "placing", "pending", "needs_person", "unknown_outcome", "ready", "issued", "rejected", "cancelled")),
		Brokering: fleet.Brokering{
			Raw: pick(t, "raw", "", "PENDING"), Detail: pick(t, "detail", "", "waits"), Since: now, Asked: uint32(small(t, "asked")), Slow: rapid.Bool().Draw(t, "slow"),
			Searches: uint32(small(t, "searches")),
		},
	}
	if rapid.Bool().Draw(t, "next") {
		p.Brokering.Next = now.Add(time.Minute)
	}
	if rapid.Bool().Draw(t, "handle") {
		p.Brokering.Handle = fleet.OrderHandle{Order: pick(t, "handle id", "7", "8")}
	}
	if rapid.IntRange(0, 5).Draw(t, "several") == 0 {
		p.Brokering.Candidates = []fleet.OrderHandle{{Order: "7"}, {Order: "8"}}
	}
	if p.State == fleet.OrderIssued {
		p.ChainPEM, p.Serial, p.Fingerprint, p.NotAfter = "chain", aSerial(t), "f", now.Add(20*time.Minute)
	}
	if p.State == fleet.OrderRejected {
		p.Problem = &wire.Problem{Code: wire.CodeInvalid, Title: "t", Detail: "d"}
	}
	return p
}

func randomSync(t *rapid.T, now time.Time) fleet.SyncAgent {
	agent := anAgent(t)
	base := small(t, "base")
	revision := base + small(t, "step")
	p := fleet.SyncAgent{
		AgentID: agent, BootID: pick(t, "boot", "b1", "b2", "b3"), Sequence: small(t, "sequence"),
		BaseRevision: base, Revision: revision, HeadRevision: revision,
		Host:   &wire.HostReport{Hostname: pick(t, "host", "h1", "h2"), StartedAt: now, SafeUntil: &now, NotSafe: rapid.IntRange(0, 2).Draw(t, "not safe")},
		Events: []wire.Event{{Sequence: small(t, "event") + 1, At: now, Kind: wire.EventIssued}},
	}
	if rapid.Bool().Draw(t, "told") {
		p.Events[0].Issuer, p.Events[0].Reason = "corp", wire.ReasonRefused
	}
	order := fleet.OrderPlacement{ID: anOrder(t), Issuer: "builtin", CSR: []byte("csr"),
		Names: pki.MustParseNames(pick(t, "name", "www.example.com", "www.example.org", "192.0.2.1"))}
	if order.ID[0] == 's' {
		order.Issuer = "slow"
	}
	p.Orders = []fleet.OrderPlacement{order}
	for r := base + 1; r <= revision; r++ {
		name := pick(t, "certificate", "x", "y", "z")
		if rapid.Bool().Draw(t, "removed") {
			p.Removed = append(p.Removed, fleet.Removal{Name: name, Revision: r})
		} else {
			p.Rows = append(p.Rows, row(t, wireRow(name, r, name+".example.com", now)))
		}
	}
	if rapid.Bool().Draw(t, "desired") {
		p.DesiredDigest = pick(t, "digest", "d1", "d2")
		p.Reports = []wire.AssignmentReport{{Name: anAssignment(t), State: wire.AssignmentActive, Revision: small(t, "revision")}}
		p.ReportsGone = []string{"as2"}
		campaign := fleet.Campaign{ID: campaigns[0]}
		p.Commands = []fleet.CommandReport{
			{ID: pick(t, "command", "command1", "command2"), State: wire.CommandState(pick(t, "state", "accepted", "done", "failed")), At: now},
			{ID: campaign.CommandID(agent, "x"), Campaign: campaign.ID, Certificate: "x", State: wire.CommandFailed, At: now},
		}
	}
	if rapid.Bool().Draw(t, "collect") {
		p.Collected = []string{"o1", "s1"}
	}
	return p
}

// example is one drawn command of a type, the same for the same seed.
func example(typ fleet.Type, seed int) fleet.Payload {
	return rapid.Custom(func(t *rapid.T) fleet.Payload {
		small(t, "any") // rapid wants a draw, and some commands need none
		return generators[typ](t, testTime)
	}).Example(seed)
}

// randomPayload draws a command of any type; every fourth is a sync, as most are.
func randomPayload(t *rapid.T, now time.Time) fleet.Payload {
	if rapid.IntRange(0, 3).Draw(t, "sync") == 0 {
		return randomSync(t, now)
	}
	return generators[rapid.SampledFrom(fleet.RegisteredTypes()).Draw(t, "type")](t, now)
}

func TestEveryTypeOfCommandIsDrawn(t *testing.T) {
	for _, typ := range fleet.RegisteredTypes() {
		generate := generators[typ]
		require.NotNil(t, generate, "command type %d has no generator here: without one, nothing proves that nodes apply it alike", typ)
		rapid.Check(t, func(rt *rapid.T) {
			command, err := fleet.NewCommand(testTime, generate(rt, testTime))
			require.NoError(rt, err)
			require.Equal(rt, typ, command.Type)
		})
	}
	require.Len(t, generators, len(fleet.RegisteredTypes()))
}

// TestReplay: a node that restored a snapshot in the middle and applied the
// rest is the same, byte for byte, as one that applied everything; and the
// same log makes the same results and facts on both.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b, replayed := newBench(rt), newBench(rt).state
		var sent []fleet.Command
		var results [][]fleet.Result
		var pinned *fleet.Snapshot
		var middle []byte
		cut := 0
		if rapid.Bool().Draw(rt, "furnished") {
			b.furnish()
			for i := range b.log {
				commands, err := fleet.DecodeEntry(b.log[i])
				require.NoError(rt, err)
				sent = append(sent, commands...)
				again, _, err := replayed.Apply(uint64(i+1), b.log[i])
				require.NoError(rt, err)
				results = append(results, again)
			}
		}
		entries := rapid.IntRange(1, 25).Draw(rt, "entries")
		for range entries {
			b.now = b.now.Add(time.Duration(rapid.IntRange(-1, 40).Draw(rt, "minutes")) * time.Minute)
			var commands []fleet.Command
			for range rapid.IntRange(1, 4).Draw(rt, "commands") {
				if len(sent) > 0 && rapid.IntRange(0, 4).Draw(rt, "repeat") == 0 {
					commands = append(commands, rapid.SampledFrom(sent).Draw(rt, "repeated"))
					continue
				}
				commands = append(commands, b.command(randomPayload(rt, b.now)))
			}
			sent = append(sent, commands...)
			results = append(results, b.entry(commands...))
			if pinned == nil && rapid.IntRange(0, 4).Draw(rt, "snapshot") == 0 {
				middle, cut = snapshot(rt, b.state), len(b.log)
				pinned = b.state.Snapshot()
			}
		}
		whole := snapshot(rt, b.state)

		if pinned != nil {
			var late bytes.Buffer
			require.NoError(rt, pinned.Persist(&late))
			require.Equal(rt, middle, late.Bytes(), "a pinned snapshot must not see what came after it")
		}
		other, err := fleet.New()
		require.NoError(rt, err)
		if middle != nil {
			restore(rt, other, middle)
		}
		var facts []fleet.Fact
		for i := cut; i < len(b.log); i++ {
			got, made, err := other.Apply(uint64(i+1), b.log[i])
			require.NoError(rt, err)
			require.Equal(rt, results[i], got)
			facts = append(facts, made...)
		}
		require.True(rt, bytes.Equal(whole, snapshot(rt, other)), "the states differ")
		for i := int(replayed.Index()); i < len(b.log); i++ {
			got, _, err := replayed.Apply(uint64(i+1), b.log[i])
			require.NoError(rt, err)
			require.Equal(rt, results[i], got)
		}
		require.True(rt, bytes.Equal(whole, snapshot(rt, replayed)), "a full replay differs")
		b.checkTrail()
		tail := b.facts[slices.IndexFunc(append(b.facts, fleet.Fact{Index: 1 << 60}), func(f fleet.Fact) bool { return f.Index > uint64(cut) }):]
		require.Equal(rt, len(tail), len(facts))
		for i := range facts {
			require.Equal(rt, tail[i], facts[i])
		}
	})
}

func TestARepeatedCommandChangesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(rt)
		b.enroll("a1")
		tables := fleet.Tables()
		command := b.command(randomPayload(rt, b.now))
		first := b.entry(command)
		versions := map[fleet.Table]uint64{}
		for _, table := range tables {
			versions[table] = b.view().Version(table)
		}
		facts := len(b.facts)
		again := b.entry(command, command)
		require.Equal(rt, first[0], again[0])
		require.Equal(rt, first[0], again[1])
		for _, table := range tables {
			require.Equal(rt, versions[table], b.view().Version(table), table)
		}
		require.Len(rt, b.facts, facts)
	})
}

func TestCommandsAreRememberedForAnHour(t *testing.T) {
	b := newBench(t)
	command := b.command(token("a"))
	b.entry(command)
	b.now = b.now.Add(time.Hour)
	b.ok(token("b"))
	assert.True(t, b.entry(command)[0].OK(), "still remembered")
	b.now = b.now.Add(time.Second)
	b.ok(token("c"))
	assert.Equal(t, wire.CodeConflict, b.entry(command)[0].Code, "applied anew, and the domain's own rules hold")
}

func TestDamagedSnapshotsAreRefused(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.ok(fleet.SyncAgent{AgentID: "agent", BootID: "boot", Sequence: 1, Revision: 1, HeadRevision: 1,
		Rows: []fleet.Row{row(t, wireRow("web", 1, "www.example.com", testTime))}})
	good := snapshot(t, b.state)

	target := newBench(t)
	target.ok(token("kept"))
	before := snapshot(t, target.state)
	refused := func(data []byte, what string, at int) {
		t.Helper()
		err := target.state.Restore(bytes.NewReader(data))
		require.Error(t, err, "%s at %d", what, at)
		if !strings.Contains(err.Error(), fleet.ErrSnapshotNewer.Error()) {
			require.ErrorIs(t, err, fleet.ErrSnapshotDamaged, "%s at %d", what, at)
		}
	}
	for at := range good {
		flipped := bytes.Clone(good)
		flipped[at] ^= 0x10
		refused(flipped, "a flipped bit", at)
		refused(good[:at], "an end", at)
	}
	refused(append(bytes.Clone(good), 0), "a byte more", len(good))
	assert.Equal(t, before, snapshot(t, target.state), "a refused snapshot changes nothing")

	broken := io.MultiReader(bytes.NewReader(good[:100]), errReader{})
	require.ErrorIs(t, target.state.Restore(broken), errRead, "the reader's own error is not damage")
	restore(t, target.state, good)
	assert.Equal(t, good, snapshot(t, target.state))
}

var errRead = fmt.Errorf("input/output error")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errRead }

func TestAFullDiskFailsASnapshot(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	size := len(snapshot(t, b.state))
	for room := 0; room < size; room += 101 {
		require.ErrorIs(t, b.state.Snapshot().Persist(&limitedWriter{room: room}), errRead)
	}
}

type limitedWriter struct{ room int }

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.room {
		return 0, errRead
	}
	w.room -= len(p)
	return len(p), nil
}

func FuzzRestore(f *testing.F) {
	b := newBench(f)
	b.furnish()
	f.Add(snapshot(f, b.state))
	f.Add([]byte("certctl fleet\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := fleet.New()
		require.NoError(t, err)
		if state.Restore(bytes.NewReader(data)) != nil {
			require.Zero(t, state.Index())
			return
		}
		again, err := fleet.New()
		require.NoError(t, err)
		whole := snapshot(t, state)
		restore(t, again, whole)
		require.Equal(t, whole, snapshot(t, again))
	})
}
