package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/historytest"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/internal/testpostgres"
)

// BenchmarkPool measures what the size of the pool is good for, on a server that syncs
// what it promises: the export of 100,000 facts while readers page through 400,000 that
// are there already, with pools of several sizes and as many readers as stand there. The
// connections are the most that the pool had.
func BenchmarkPool(b *testing.B) {
	server, err := testpostgres.Start(testpostgres.Options{Durable: true, Settings: map[string]string{
		"shared_buffers": "128MB", "max_wal_size": "1GB", "max_connections": "100",
	}})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, server.Close()) })
	w := newWorld(b, server)
	next := uint64(1)
	more := func(count int) {
		facts := make([]fleet.Fact, count)
		for i := range facts {
			facts[i] = fleet.Fact{
				Index: next, Time: historytest.Start.Add(time.Duration(next) * time.Second), Kind: "certificate.renewed",
				Actor: fmt.Sprintf("agent:a%d", next%5000), Agent: fmt.Sprintf("a%d", next%5000), Object: fmt.Sprintf("web-%d", next%20), Detail: []byte(`{"serial":"0a"}`),
			}
			next++
		}
		for portion := range slices.Chunk(facts, 10_000) {
			w.append(portion...)
		}
	}
	more(4 * benchFacts)
	e, stop := w.start(w.config)
	exported(b, e, next-1)
	stop()
	w.exec("vacuum analyze")
	for _, size := range []int{3, 10, 50} {
		for _, readers := range []int{0, 1, 8, 64} {
			b.Run(fmt.Sprintf("pool=%d/readers=%d", size, readers), func(b *testing.B) {
				var elapsed time.Duration
				var pages []time.Duration
				connections, failed := 0, 0
				for range b.N {
					more(benchFacts)
					c := w.config
					c.MaxConns = size
					began := time.Now()
					e, stop := w.start(c)
					for !e.Status().Attached { // nobody can read before
						time.Sleep(time.Millisecond)
						require.Less(b, time.Since(began), time.Minute)
					}
					read := startReaders(b, e, readers)
					for e.Status().Through < next-1 {
						connections = max(connections, e.Status().Connections)
						time.Sleep(5 * time.Millisecond)
						require.Less(b, time.Since(began), 5*time.Minute)
					}
					elapsed += time.Since(began)
					connections = max(connections, e.Status().Connections)
					took, errs := read()
					pages, failed = append(pages, took...), failed+errs
					stop()
				}
				b.ReportMetric(float64(b.N)*benchFacts/elapsed.Seconds(), "facts/s")
				b.ReportMetric(float64(connections), "connections")
				b.ReportMetric(float64(failed), "failed-pages")
				if len(pages) > 0 {
					slices.Sort(pages)
					b.ReportMetric(float64(len(pages))/elapsed.Seconds(), "pages/s")
					b.ReportMetric(float64(pages[len(pages)/2].Microseconds())/1000, "p50-ms")
					b.ReportMetric(float64(pages[len(pages)*99/100].Microseconds())/1000, "p99-ms")
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// startReaders has readers page through the history as fast as they get answers. What it
// returns ends them, and says how long each page took and how many failed.
func startReaders(b *testing.B, e *postgres.Exporter, readers int) func() (pages []time.Duration, failed int) {
	ctx, cancel := context.WithCancel(b.Context())
	var mu sync.Mutex
	var pages []time.Duration
	failed := 0
	var running sync.WaitGroup
	for reader := range readers {
		running.Go(func() {
			for page := 0; ctx.Err() == nil; page++ {
				began := time.Now()
				_, _, err := e.Facts(ctx, history.Query{NewestFirst: true, Agent: fmt.Sprintf("a%d", (reader*997+page)%5000)})
				mu.Lock()
				switch {
				case err == nil:
					pages = append(pages, time.Since(began))
				case ctx.Err() == nil:
					failed++
				}
				mu.Unlock()
				if err != nil {
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
	return func() ([]time.Duration, int) {
		cancel()
		running.Wait()
		return pages, failed
	}
}
