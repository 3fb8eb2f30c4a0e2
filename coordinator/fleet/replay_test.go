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

// randomPayload draws a command over few names, so that commands meet.
func randomPayload(t *rapid.T, now time.Time) fleet.Payload {
	pick := func(label string, list ...string) string { return rapid.SampledFrom(list).Draw(t, label) }
	agent := pick("agent", "a1", "a2", "a3")
	tokenID := pick("token", "t1", "t2")
	small := rapid.Uint64Range(0, 6)
	switch rapid.IntRange(1, 27).Draw(t, "type") {
	case 1:
		return fleet.InitCA{Actor: "local", Authorities: []fleet.Authority{{Name: "root", Certificate: []byte("c"), SealedKey: []byte("k")}}}
	case 2:
		p := token(tokenID)
		p.MaxUses = uint32(rapid.IntRange(0, 2).Draw(t, "uses"))
		return p
	case 3:
		return fleet.RevokeEnrollmentToken{Actor: "local", ID: tokenID}
	case 4:
		return enrolment(tokenID, agent)
	case 5:
		key := pick("key", "k1", "k2")
		return fleet.SetPendingIdentity{AgentID: agent, Identity: identity(key, agent+key)}
	case 6:
		return fleet.PromoteIdentity{AgentID: agent, Fingerprint: "cert-" + agent + pick("key", "k1", "k2")}
	case 7:
		return fleet.RetireAgent{Actor: "local", AgentID: agent}
	case 8:
		return fleet.TouchAgents{Seen: []fleet.Seen{{Agent: agent, At: now}}}
	case 9:
		return fleet.CompleteOrder{Agent: agent, ID: pick("order", "o1", "o2"), ChainPEM: "chain", Serial: pick("serial", "1", "2"), NotAfter: now.Add(20 * time.Minute)}
	case 10:
		return fleet.RejectOrder{Agent: agent, ID: pick("order", "o1", "o2"), Problem: wire.Problem{Code: wire.CodeInternal, Title: "t"}}
	case 11:
		return fleet.CreateAPIToken{Actor: "local", ID: tokenID, Name: "n", Hash: [32]byte{byte(len(agent))}, Role: fleet.RoleViewer}
	case 12:
		return fleet.RevokeAPIToken{Actor: "local", ID: tokenID}
	case 14:
		return fleet.PutAssignment{Actor: "local", Name: pick("assignment", "as1", "as2"), Selector: pick("selector", "*", "a=b"), Template: []byte(`{}`)}
	case 15:
		return fleet.DeleteAssignment{Actor: "local", Name: pick("assignment", "as1", "as2")}
	case 16:
		return fleet.CommandAgent{Actor: "local", Agent: agent, ID: pick("command", "command1", "command2"), Kind: wire.CommandRenew, Certificate: pick("certificate", "x", "y")}
	case 17:
		return fleet.BeginCampaign{Actor: "local", ID: campaigns[small.Draw(t, "campaign")%2], Selector: "*", Over: time.Hour}
	case 18:
		return fleet.CancelCampaign{Actor: "local", ID: campaigns[small.Draw(t, "campaign")%2]}
	case 19:
		return fleet.RevokeCertificate{Actor: "local", Serial: pick("serial", "1", "2")}
	case 20:
		return fleet.PublishRevocations{ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
	case 13:
		return fleet.ChangeCA{
			Actor: "local", Base: small.Draw(t, "base"), What: "a change", Generations: [][]byte{[]byte("signed")},
			Authorities: []fleet.Authority{{Name: "root", Certificate: []byte("c2"), SealedKey: []byte("k2"), State: fleet.AuthorityPublished}},
		}
	case 22:
		return fleet.NoteSharedIdentity{AgentID: agent, Remote: "192.0.2.7:4711"}
	case 21:
		return fleet.AcknowledgeTrust{AgentID: agent, Generation: small.Draw(t, "generation")}
	default:
		base := small.Draw(t, "base")
		revision := base + small.Draw(t, "step")
		p := fleet.SyncAgent{
			AgentID: agent, BootID: pick("boot", "b1", "b2", "b3"), Sequence: small.Draw(t, "sequence"),
			BaseRevision: base, Revision: revision, HeadRevision: revision,
			Host:   &wire.HostReport{Hostname: pick("host", "h1", "h2"), StartedAt: now, SafeUntil: &now, NotSafe: rapid.IntRange(0, 2).Draw(t, "not safe")},
			Events: []wire.Event{{Sequence: small.Draw(t, "event") + 1, At: now, Kind: wire.EventIssued}},
			Orders: []fleet.OrderPlacement{{ID: pick("order", "o1", "o2"), Issuer: "builtin", CSR: []byte("csr"),
				Names: pki.MustParseNames(pick("name", "www.example.com", "www.example.org", "192.0.2.1"))}},
		}
		for r := base + 1; r <= revision; r++ {
			name := pick("certificate", "x", "y", "z")
			if rapid.Bool().Draw(t, "removed") {
				p.Removed = append(p.Removed, fleet.Removal{Name: name, Revision: r})
			} else {
				p.Rows = append(p.Rows, row(t, wireRow(name, r, name+".example.com", now)))
			}
		}
		if rapid.Bool().Draw(t, "desired") {
			p.DesiredDigest = pick("digest", "d1", "d2")
			p.Reports = []wire.AssignmentReport{{Name: pick("assignment", "as1", "as2"), State: wire.AssignmentActive, Revision: small.Draw(t, "revision")}}
			p.ReportsGone = []string{"as2"}
			campaign := fleet.Campaign{ID: campaigns[0]}
			p.Commands = []fleet.CommandReport{
				{ID: pick("command", "command1", "command2"), State: wire.CommandState(pick("state", "accepted", "done", "failed")), At: now},
				{ID: campaign.CommandID(agent, "x"), Campaign: campaign.ID, Certificate: "x", State: wire.CommandFailed, At: now},
			}
		}
		if rapid.Bool().Draw(t, "collect") {
			p.Collected = []string{"o1"}
		}
		return p
	}
}

// TestReplay: a node that restored a snapshot in the middle and applied the
// rest is the same, byte for byte, as one that applied everything; and the
// same log makes the same results and facts on both.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(rt)
		var sent []fleet.Command
		var results [][]fleet.Result
		var pinned *fleet.Snapshot
		var middle []byte
		cut := 0
		entries := rapid.IntRange(1, 25).Draw(rt, "entries")
		for i := range entries {
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
				middle, cut = snapshot(rt, b.state), i+1
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
		tables := []fleet.Table{fleet.TableAgents, fleet.TableCertificates, fleet.TableOrders,
			fleet.TableEnrollmentTokens, fleet.TableAPITokens, fleet.TableCA, fleet.TablePresence, fleet.TableAssignments,
			fleet.TableAssignmentReports, fleet.TableAgentCommands, fleet.TableCampaigns, fleet.TableIssued, fleet.TableRevocations, fleet.TableRevocationList}
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
	b.enroll("agent")
	b.ok(fleet.SyncAgent{AgentID: "agent", BootID: "boot", Sequence: 1, Revision: 1, HeadRevision: 1,
		Rows: []fleet.Row{row(f, wireRow("web", 1, "www.example.com", testTime))}})
	f.Add(snapshot(f, b.state))
	f.Add([]byte("certctl fleet\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := fleet.New()
		require.NoError(t, err)
		if state.Restore(bytes.NewReader(data)) != nil {
			require.Zero(t, state.Index())
			return
		}
		snapshot(t, state)
	})
}
