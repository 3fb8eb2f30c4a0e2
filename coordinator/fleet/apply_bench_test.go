//go:build linux

package fleet_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

// BenchmarkApply applies syncs with one renewed certificate each, so many in one
// entry, to a fleet of a thousand agents; the time is that of one sync.
func BenchmarkApply(b *testing.B) {
	for _, batch := range []int{1, 32} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			state, err := fleet.New()
			require.NoError(b, err)
			f := &largeFleet{t: b, state: state, agents: 1000, each: 10}
			f.add(token("token"))
			for i := range f.agents {
				f.add(f.enroll(i))
			}
			for i := range f.agents {
				f.add(f.sync(i))
			}
			f.flush()
			// Each agent goes on from where it stands, one renewal at a time.
			next := make([]fleet.SyncAgent, f.agents)
			rows := make([][]fleet.Row, f.agents)
			for i := range next {
				next[i] = f.sync(i)
				rows[i], next[i].Rows = next[i].Rows, nil
			}
			entry := func(n int) []byte {
				commands := make([]fleet.Command, batch)
				for k := range commands {
					i := (n*batch + k) % f.agents
					p := &next[i]
					p.Sequence++
					p.BaseRevision = p.Revision
					p.Revision++
					p.HeadRevision = p.Revision
					rows[i][0] = f.row(i, 0, p.Revision)
					p.Rows, p.Digest = rows[i][:1], f.digest(rows[i])
					commands[k], err = fleet.NewCommand(testTime, *p)
					require.NoError(b, err)
				}
				data, err := fleet.EncodeEntry(commands)
				require.NoError(b, err)
				return data
			}
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
