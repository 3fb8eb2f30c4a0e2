package cluster_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
)

// BenchmarkPropose is a whole node: commands of 1 KiB that each change the
// state and make a fact, through the log, the tables and the journal.
func BenchmarkPropose(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			n := clustertest.Start(b)
			payload := newToken("")
			payload.Description = strings.Repeat("x", 900)
			next := make(chan int)
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for i := range next {
						p := payload
						p.ID = fmt.Sprintf("token%d", i)
						command, err := fleet.NewCommand(time.Now(), p)
						if err == nil {
							_, err = n.Propose(b.Context(), command)
						}
						if err != nil {
							b.Error(err)
						}
					}
				})
			}
			before := n.AppliedIndex()
			b.ResetTimer()
			for i := range b.N {
				next <- i
			}
			close(next)
			wg.Wait()
			b.StopTimer()
			require.Equal(b, b.N, n.State().View().Rows(fleet.TableEnrollmentTokens))
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
			b.ReportMetric(float64(b.N)/float64(n.AppliedIndex()-before), "commands/entry")
		})
	}
}
