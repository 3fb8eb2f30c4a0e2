package fleet_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// modelAgent does what an agent's store and sync do, in the simplest way.
type modelAgent struct {
	rows       map[string]wire.Row
	tombstones map[string]uint64
	head       uint64
	events     []wire.Event // not acknowledged
	emitted    uint64

	boot     int
	sequence uint64
	acked    uint64
	resyncID string
	cursor   uint64 // of the full inventory
}

func newModelAgent() *modelAgent {
	return &modelAgent{rows: map[string]wire.Row{}, tombstones: map[string]uint64{}}
}

func (a *modelAgent) clone() *modelAgent {
	copied := *a
	copied.rows, copied.tombstones = maps.Clone(a.rows), maps.Clone(a.tombstones)
	copied.events = slices.Clone(a.events)
	return &copied
}

func (a *modelAgent) change(name string) {
	a.head++
	delete(a.tombstones, name)
	a.rows[name] = wireRow(name, a.head, name+".example.com", testTime.Add(time.Duration(a.head)*time.Hour))
}

func (a *modelAgent) remove(name string) {
	if _, ok := a.rows[name]; !ok {
		return
	}
	a.head++
	delete(a.rows, name)
	a.tombstones[name] = a.head
}

func (a *modelAgent) emit() {
	a.emitted++
	a.events = append(a.events, wire.Event{Sequence: a.emitted, At: testTime, Kind: wire.EventIssued})
}

func (a *modelAgent) digest() (d wire.Digest) {
	for _, row := range a.rows {
		d.Toggle(row.Hash())
	}
	return d
}

// request is the next page, of at most limit changes.
func (a *modelAgent) request(t testingT, limit int) fleet.SyncAgent {
	base := a.acked
	if a.resyncID != "" {
		base = a.cursor
	}
	a.sequence++
	p := fleet.SyncAgent{
		AgentID: "agent", BootID: fmt.Sprintf("boot%d", a.boot), Sequence: a.sequence,
		BaseRevision: min(base, a.head), Revision: a.head, HeadRevision: a.head, Digest: a.digest(), ResyncID: a.resyncID,
		Events: slices.Clone(a.events[:min(len(a.events), limit)]),
	}
	type change struct {
		revision uint64
		name     string
		removed  bool
	}
	var changes []change
	for name, row := range a.rows {
		changes = append(changes, change{row.Revision, name, false})
	}
	for name, revision := range a.tombstones {
		changes = append(changes, change{revision, name, true})
	}
	slices.SortFunc(changes, func(x, y change) int { return cmp.Compare(x.revision, y.revision) })
	n := 0
	for _, c := range changes {
		if c.revision <= base {
			continue
		}
		if n == limit {
			break
		}
		n++
		p.Revision = c.revision
		if c.removed {
			p.Removed = append(p.Removed, fleet.Removal{Name: c.name, Revision: c.revision})
		} else {
			p.Rows = append(p.Rows, row(t, a.rows[c.name]))
		}
	}
	if n < limit {
		p.Revision = a.head
	}
	return p
}

// receive is what the agent does with an answer.
func (a *modelAgent) receive(p fleet.SyncAgent, answer fleet.SyncOutcome) {
	a.events = slices.DeleteFunc(a.events, func(e wire.Event) bool { return e.Sequence <= answer.Event })
	switch {
	case answer.ResyncID == "":
		a.resyncID, a.acked = "", answer.Revision
	case answer.ResyncID != p.ResyncID:
		a.acked = max(a.acked, answer.Revision)
		a.resyncID, a.cursor = answer.ResyncID, 0
	case p.Revision < p.HeadRevision:
		a.acked = max(a.acked, answer.Revision)
		a.cursor = p.Revision
	default:
		a.acked = max(a.acked, answer.Revision)
		a.cursor = 0
	}
	maps.DeleteFunc(a.tombstones, func(_ string, revision uint64) bool { return revision <= a.acked })
}

// coordinatorSide applies a request, in one piece or several.
func coordinatorSide(b *bench, p fleet.SyncAgent, pieceBytes int) (fleet.SyncOutcome, bool) {
	var outcome fleet.SyncOutcome
	for _, piece := range fleet.SplitSync(p, pieceBytes) {
		settled, ok := b.view().Settled(&piece)
		result := b.do(piece)
		if !result.OK() {
			require.Equal(b.t, wire.CodeStale, result.Code, result.Detail)
			require.False(b.t, ok)
			return outcome, false
		}
		outcome = fleet.SyncOutcome{}
		require.NoError(b.t, result.Decode(&outcome))
		if ok {
			require.Equal(b.t, outcome, settled, "what is settled changes nothing")
		}
	}
	checkInventory(b)
	return outcome, true
}

// checkInventory compares the agent's digest and count with its stored rows.
func checkInventory(b *bench) {
	var digest wire.Digest
	list, _, err := b.view().Certificates(fleet.CertificateFilter{Agent: "agent"}, fleet.Page{Limit: fleet.MaxLimit})
	require.NoError(b.t, err)
	for _, c := range list {
		digest.Toggle(wire.Row{Name: c.Name, Revision: c.Revision, Data: c.Data}.Hash())
	}
	agent := b.agent("agent")
	require.Equal(b.t, digest, agent.Sync.Digest)
	require.Equal(b.t, len(list), agent.Certificates)
	require.Equal(b.t, len(list), b.view().Rows(fleet.TableCertificates))
}

// TestSyncConverges runs an agent against the state over a network that loses
// requests and answers, repeats and reorders requests; restarts the agent, and
// sets its store or the coordinator's back to a backup. As soon as the network
// behaves, both sides must agree.
func TestSyncConverges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(rt)
		b.enroll("agent")
		a := newModelAgent()
		backup := a.clone()
		coordinatorBackup := snapshot(rt, b.state)
		names := []string{"a", "b", "c", "d", "e"}
		var sent []fleet.SyncAgent
		wasSetBack := false
		limit := rapid.IntRange(1, 4).Draw(rt, "page")
		pieceBytes := rapid.SampledFrom([]int{600, 1200, fleet.TargetEntry}).Draw(rt, "piece")
		name := func() string { return rapid.SampledFrom(names).Draw(rt, "name") }

		rt.Repeat(map[string]func(*rapid.T){
			"change": func(*rapid.T) { a.change(name()) },
			"remove": func(*rapid.T) { a.remove(name()) },
			"emit":   func(*rapid.T) { a.emit() },
			"sync": func(t *rapid.T) {
				p := a.request(t, limit)
				sent = append(sent, p)
				if rapid.IntRange(0, 3).Draw(t, "request lost") == 0 {
					return
				}
				outcome, ok := coordinatorSide(b, p, pieceBytes)
				if ok && rapid.IntRange(0, 3).Draw(t, "answer lost") > 0 {
					a.receive(p, outcome)
				}
			},
			"late duplicate": func(t *rapid.T) {
				if len(sent) == 0 {
					t.Skip("nothing was sent")
				}
				// The last few boots and requests: a duplicate is late, not eternal.
				recent := sent[max(0, len(sent)-6):]
				p := rapid.SampledFrom(recent).Draw(t, "which")
				if p.BootID != fmt.Sprintf("boot%d", a.boot) && b.agent("agent").Sync.BootID != fmt.Sprintf("boot%d", a.boot) {
					t.Skip("the agent has not been heard of since")
				}
				coordinatorSide(b, p, pieceBytes)
			},
			"restart": func(*rapid.T) {
				a.boot, a.sequence, a.cursor = a.boot+1, 0, 0
				sent = nil
			},
			"back up": func(*rapid.T) { backup = a.clone() },
			"set back": func(*rapid.T) {
				boot := a.boot
				emitted := a.emitted
				a = backup.clone()
				a.boot, a.sequence, a.cursor, a.emitted = boot+1, 0, 0, emitted
				sent, wasSetBack = nil, true
			},
			"back up coordinator": func(t *rapid.T) { coordinatorBackup = snapshot(t, b.state) },
			"set coordinator back": func(t *rapid.T) {
				restore(t, b.state, coordinatorBackup)
				wasSetBack = true
			},
		})

		for round := 0; ; round++ {
			p := a.request(rt, limit)
			outcome, ok := coordinatorSide(b, p, pieceBytes)
			if !ok { // the coordinator was set back, or forward, over a boot
				a.boot, a.sequence, a.cursor = a.boot+1, 0, 0
				continue
			}
			a.receive(p, outcome)
			if outcome.ResyncID == "" && outcome.Revision == a.head && outcome.Digest == a.digest() && len(a.events) == 0 {
				break
			}
			require.Less(rt, round, 200, "no agreement: %+v", outcome)
		}
		var want []string
		for _, name := range slices.Sorted(maps.Keys(a.rows)) {
			want = append(want, string(a.rows[name].Data))
		}
		list, _, err := b.view().Certificates(fleet.CertificateFilter{Agent: "agent"}, fleet.Page{})
		require.NoError(rt, err)
		var got []string
		for _, c := range list {
			got = append(got, string(c.Data))
		}
		require.Equal(rt, want, got)
		if wasSetBack {
			return // facts of a time that did not happen are in the journal, too
		}
		var events []uint64
		for _, fact := range b.facts {
			if fact.Kind == fleet.Kind(wire.EventIssued) {
				events = append(events, uint64(len(events)+1))
			}
		}
		require.Len(rt, events, int(a.emitted), "each event is one fact")
	})
}
