//go:build linux

package fleet_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/fleet/fleettest"
)

// renewals is a fleet of so many agents, and makes entries of so many syncs with one
// renewed certificate each.
func renewals(t testing.TB, agents, batch int) (state *fleet.State, entry func(n int) []byte) {
	t.Helper()
	f := newLargeFleet(t, agents, 10)
	f.Fill()
	// Each agent goes on from where it stands, one renewal at a time.
	next := make([]fleet.SyncAgent, agents)
	rows := make([][]fleet.Row, agents)
	for i := range next {
		next[i] = f.Sync(i)
		rows[i], next[i].Rows = next[i].Rows, nil
	}
	return f.state, func(n int) []byte {
		commands := make([]fleet.Command, batch)
		var err error
		for k := range commands {
			i := (n*batch + k) % agents
			p := &next[i]
			p.Sequence++
			p.BaseRevision = p.Revision
			p.Revision++
			p.HeadRevision = p.Revision
			rows[i][0] = f.Row(i, 0, p.Revision)
			p.Rows, p.Digest = rows[i][:1], fleettest.Digest(rows[i])
			commands[k], err = fleet.NewCommand(testTime, *p)
			require.NoError(t, err)
		}
		data, err := fleet.EncodeEntry(commands)
		require.NoError(t, err)
		return data
	}
}

// BenchmarkApply applies syncs with one renewed certificate each, so many in one
// entry, to a fleet of a thousand agents; ns/sync is the time of one.
func BenchmarkApply(b *testing.B) {
	for _, batch := range []int{1, 32} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			state, entry := renewals(b, 1000, batch)
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				b.StopTimer()
				data := entry(n)
				b.StartTimer()
				_, _, err := state.Apply(state.Index()+1, data)
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/sync")
		})
	}
}

// What applying costs is mostly what it allocates: this goes by the count, which does
// not depend on the machine, and leaves room for what a sync may get in addition.
func TestApplyingASyncAllocatesLittle(t *testing.T) {
	const batch, runs, most = 32, 20, 80
	state, entry := renewals(t, 200, batch)
	var entries [][]byte
	for n := range runs + 1 {
		entries = append(entries, entry(n))
	}
	allocations := testing.AllocsPerRun(runs, func() {
		results, _, err := state.Apply(state.Index()+1, entries[0])
		require.NoError(t, err)
		require.NoError(t, results[0].Err())
		entries = entries[1:]
	}) / batch
	t.Logf("%.0f allocations for a sync", allocations)
	require.LessOrEqual(t, allocations, float64(most))
}
