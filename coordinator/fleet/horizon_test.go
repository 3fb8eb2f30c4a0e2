package fleet_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// report stores what an agent says of its host.
func (b *bench) report(id string, host wire.HostReport) {
	b.t.Helper()
	progress := b.agent(id).Sync
	b.ok(fleet.SyncAgent{
		AgentID: id, BootID: "b", Sequence: progress.Sequence + 1, Host: &host,
		BaseRevision: progress.Revision, Revision: progress.Revision, HeadRevision: progress.Revision, Digest: progress.Digest,
	})
}

// agentIDs lists by the filter, two a page.
// agentIDs lists agents in pages, and finds the same from the end.
func agentIDs(t testingT, v *fleet.View, f fleet.AgentFilter) []string {
	t.Helper()
	ids := agentIDsIn(t, v, f, fleet.Page{Limit: 2})
	back := agentIDsIn(t, v, f, fleet.Page{Limit: 2, Back: true})
	slices.Reverse(back)
	require.Equal(t, ids, back, "from the end")
	return ids
}

func agentIDsIn(t testingT, v *fleet.View, f fleet.AgentFilter, page fleet.Page) (ids []string) {
	t.Helper()
	for {
		list, next, err := v.Agents(f, page)
		require.NoError(t, err)
		for _, agent := range list {
			ids = append(ids, agent.ID)
		}
		if page.Cursor = next; next == "" {
			return ids
		}
	}
}

// Hosts that are not safe now come first, and no later moment is the fleet's
// while there is one.
func TestHostsByHorizon(t *testing.T) {
	b := newBench(t)
	at := func(hours int) *time.Time { t := testTime.Add(time.Duration(hours) * time.Hour); return &t }
	fleetUntil := func(now time.Time) string {
		until, ok := b.view().SafeUntil(now)
		if !ok {
			return "none"
		}
		return until.Sub(testTime).String()
	}
	assert.Equal(t, "none", fleetUntil(testTime))
	for _, id := range []string{"late", "early", "empty", "unserved", "ended", "retired"} {
		b.enroll(id)
	}
	assert.Equal(t, "none", fleetUntil(testTime))
	b.report("late", wire.HostReport{SafeUntil: at(9)})
	b.report("early", wire.HostReport{SafeUntil: at(1)})
	assert.Equal(t, "1h0m0s", fleetUntil(testTime))
	b.report("unserved", wire.HostReport{NotSafe: 2})
	assert.Equal(t, "none", fleetUntil(testTime))
	assert.Equal(t, "1h0m0s", fleetUntil(*at(1)), "what is past is true")
	b.report("retired", wire.HostReport{NotSafe: 9, SafeUntil: at(-9)})
	b.ok(fleet.RetireAgent{AgentID: "retired"})
	b.report("ended", wire.HostReport{NotSafe: 1, SafeUntil: at(-2)})
	assert.Equal(t, "-2h0m0s", fleetUntil(testTime))

	for want, f := range map[string]fleet.AgentFilter{
		"ended unserved early late":        {BySafeUntil: true},
		"ended unserved":                   {BySafeUntil: true, SafeBefore: testTime},
		"ended unserved early":             {BySafeUntil: true, SafeBefore: *at(2)},
		"early ended retired unserved":     {SafeBefore: *at(2)},
		"unserved":                         {BySafeUntil: true, NameContains: "UNSERVED"},
		"early empty ended late unserved ": {State: fleet.AgentActive},
	} {
		assert.Equal(t, strings.Fields(want), agentIDs(t, b.view(), f), "%+v", f)
	}
	b.report("unserved", wire.HostReport{SafeUntil: at(5)})
	b.report("ended", wire.HostReport{})
	assert.Equal(t, []string{"early", "unserved", "late"}, agentIDs(t, b.view(), fleet.AgentFilter{BySafeUntil: true}))
	assert.Equal(t, "1h0m0s", fleetUntil(testTime))
}

// Whatever hosts report: the list by horizon and the fleet's horizon are what a
// plain look at all agents gives.
func TestHorizonsOfAnyFleet(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(rt)
		type host struct {
			id    string
			rank  int
			until time.Time
		}
		var want []host
		for i := range rapid.IntRange(1, 6).Draw(rt, "hosts") {
			h := host{id: fmt.Sprintf("agent%d", i)}
			b.enroll(h.id)
			report := wire.HostReport{NotSafe: rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(rt, "not safe")}
			if rapid.Bool().Draw(rt, "serves") {
				h.until = testTime.Add(time.Duration(rapid.IntRange(-3, 3).Draw(rt, "until")) * time.Hour)
				report.SafeUntil = &h.until
			}
			b.report(h.id, report)
			switch {
			case report.NotSafe > 0 && report.SafeUntil == nil:
				h.rank = 1
			case report.NotSafe == 0 && report.SafeUntil != nil:
				h.rank = 2
			case report.NotSafe == 0:
				continue // it has nothing to serve
			}
			if rapid.IntRange(0, 4).Draw(rt, "retired") == 0 {
				b.ok(fleet.RetireAgent{AgentID: h.id})
				continue
			}
			want = append(want, h)
		}
		slices.SortFunc(want, func(a, b host) int {
			if a.rank != b.rank {
				return a.rank - b.rank
			}
			if c := a.until.Compare(b.until); c != 0 {
				return c
			}
			return strings.Compare(a.id, b.id)
		})
		var ids []string
		for _, h := range want {
			ids = append(ids, h.id)
		}
		// What is read back from a snapshot is in the same order.
		again, err := fleet.New()
		require.NoError(rt, err)
		require.NoError(rt, again.Restore(bytes.NewReader(snapshot(rt, b.state))))
		for _, v := range []*fleet.View{b.view(), again.View()} {
			require.Equal(rt, ids, agentIDs(rt, v, fleet.AgentFilter{BySafeUntil: true}))
			now := testTime
			until, ok := v.SafeUntil(now)
			waits := slices.ContainsFunc(want, func(h host) bool { return h.rank == 1 })
			if ok && waits && want[0].rank > 0 {
				require.False(rt, now.Before(until), "%v", want)
			}
			if !waits {
				require.Equal(rt, len(want) > 0, ok)
			}
			if ok {
				require.True(rt, slices.ContainsFunc(want, func(h host) bool { return h.until.Equal(until) }))
			}
		}
	})
}

// The count of certificates that ask for a person follows the rows.
func TestNeedingAttention(t *testing.T) {
	b := newBench(t)
	inventory(b, 2, 7) // every sixth asks
	assert.Equal(t, 2, b.view().NeedingAttention("agent00"))
	assert.Equal(t, 1, b.view().NeedingAttention("agent01"))
	assert.Zero(t, b.view().NeedingAttention("agent0"), "an id that others begin with")
	data := snapshot(t, b.state)

	whole := func(want int, p fleet.SyncAgent) {
		t.Helper()
		p.AgentID, p.BootID, p.Sequence, p.BaseRevision = "agent00", "b", b.agent("agent00").Sync.Sequence+1, b.agent("agent00").Sync.Revision
		p.Revision, p.HeadRevision = p.BaseRevision+1, p.BaseRevision+1
		b.ok(p)
		assert.Equal(t, want, b.view().NeedingAttention("agent00"))
	}
	whole(1, fleet.SyncAgent{Rows: []fleet.Row{row(t, wire.Row{Name: "c00", Revision: 8, Data: []byte(`{"state":"valid"}`)})}})
	whole(0, fleet.SyncAgent{Removed: []fleet.Removal{{Name: "c06", Revision: 9}}})
	b.ok(fleet.RetireAgent{AgentID: "agent01"})
	assert.Zero(t, b.view().NeedingAttention("agent01"))

	require.NoError(t, b.state.Restore(bytes.NewReader(data)))
	assert.Equal(t, 2, b.view().NeedingAttention("agent00"))
}

// What a version of before wrote, which knew no count of what is not safe, is
// still read: a snapshot, and a sync (version 3) that came after it.
func TestReportsOfAnEarlierVersion(t *testing.T) {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		return data
	}
	b := newBench(t)
	require.NoError(t, b.state.Restore(bytes.NewReader(read("sync-v3.snapshot"))))
	entry := read("sync-v3.entry")
	commands, err := fleet.DecodeEntry(entry)
	require.NoError(t, err)
	require.EqualValues(t, 3, commands[0].Version)
	results, _, err := b.state.Apply(b.state.Index()+1, entry)
	require.NoError(t, err)
	require.NoError(t, results[0].Err())

	assert.Equal(t, []string{"agent01", "agent00"}, agentIDs(t, b.view(), fleet.AgentFilter{BySafeUntil: true}))
	until, ok := b.view().SafeUntil(testTime)
	require.True(t, ok)
	assert.True(t, until.Equal(testTime.Add(time.Hour)))
	assert.Zero(t, b.agent("agent00").Host.NotSafe)
	assert.Equal(t, []string{"look"}, b.agent("agent01").Host.Warnings)
	assert.Equal(t, 1, b.view().NeedingAttention("agent00"))

	// What is written now says by its version that an earlier one cannot read it.
	command := b.command(fleet.SyncAgent{AgentID: "agent00", BootID: "b", Sequence: 3, Host: &wire.HostReport{NotSafe: 1}})
	assert.EqualValues(t, 4, command.Version)
}
