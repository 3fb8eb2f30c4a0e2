package report_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/fleet/fleettest"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/coordinator/report"
)

func fill(w *world, agents, each int) {
	state, err := fleet.New()
	require.NoError(w.t, err)
	w.state, w.index = state, 0
	tb, ok := w.t.(testing.TB)
	require.True(w.t, ok)
	maker := fleettest.Large{T: tb, Agents: agents, Each: each, At: w.now, Store: w.store}
	maker.Fill()
}

// BenchmarkReport measures the first report of a fleet, one after a host has changed, and
// one of which nothing has, with a page of hosts each.
func BenchmarkReport(b *testing.B) {
	for _, size := range []struct{ agents, each int }{{1000, 10}, {10_000, 10}, {100_000, 10}} {
		if size.agents > 10_000 && testing.Short() {
			continue
		}
		w := large(b, size.agents, size.each)
		name := fmt.Sprintf("%d_hosts", size.agents)
		run := func(counter *report.Counter, w *world) {
			_, err := counter.Report(&report.Question{View: w.state.View(), Clock: health.At(w.now), Pause: pause, Limit: 100})
			require.NoError(b, err)
		}
		b.Run(name+"/first", func(b *testing.B) {
			for b.Loop() {
				run(new(report.Counter), w)
			}
		})
		counter := new(report.Counter)
		run(counter, w)
		b.Run(name+"/one_changed", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				w.now = w.now.Add(time.Millisecond)
				w.touch("u000000000000007")
				b.StartTimer()
				run(counter, w)
			}
		})
		b.Run(name+"/none_changed", func(b *testing.B) {
			for b.Loop() {
				run(counter, w)
			}
		})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		kept := new(report.Counter)
		run(kept, w)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.Logf("%s: a counter keeps %d octets for each host", name, (int64(after.HeapAlloc)-int64(before.HeapAlloc))/int64(size.agents))
		runtime.KeepAlive(kept)
	}
}
