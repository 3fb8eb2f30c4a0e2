package renewal

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
)

// Another interval holds from its setting on, and ends nothing.
func TestPaceChangesWhileTheEngineRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tune = func(c *Config) { c.TickInterval, c.Concurrency, c.Now = time.Hour, 1, time.Now }
		w.names = []string{"a", "b", "c"}
		w.open()
		running := make(chan string, 3)
		release := make(chan struct{})
		w.ca.interfere(func(ctx context.Context, order *issuer.Order) error {
			running <- order.Certificate
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.e.Run(ctx) }()
		<-running
		synctest.Wait()
		assert.Empty(t, running, "one at a time")

		require.Error(t, w.e.SetPace(Pace{Concurrency: -1}))
		require.Error(t, w.e.SetPace(Pace{KeepRemoved: -1}))
		require.NoError(t, w.e.SetPace(Pace{Concurrency: 3, TickInterval: time.Second}))
		<-time.After(2 * time.Second)
		synctest.Wait()
		assert.Len(t, running, 2, "the others, and soon")
		close(release)
		<-time.After(2 * time.Second)
		synctest.Wait()
		assert.Equal(t, 3, w.ca.issuedCount(), "the first one was not cancelled")
		cancel()
		require.NoError(t, <-ended)
	})
}
