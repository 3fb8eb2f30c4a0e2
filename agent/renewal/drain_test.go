package renewal

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
)

// Certificates that are all due at once drain through the slots as fast as the authority
// answers: a batch of Concurrency after the other, with nothing lost between two of them
// but moments. docs/operator/scale.md goes by what this logs.
func TestHowTheSlotsDrain(t *testing.T) {
	type load struct {
		due, slots int
		takes      time.Duration // one order at the authority
	}
	loads := []load{{30, 5, 10 * time.Second}}
	if os.Getenv("CERTCTL_SOAK") != "" {
		loads = []load{{120, 5, 10 * time.Second}, {120, 25, 10 * time.Second}, {120, 25, time.Minute}, {120, 100, time.Minute}}
	}
	for _, test := range loads {
		due := test.due
		t.Run(fmt.Sprintf("slots=%d,order=%s", test.slots, test.takes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.clock.set(time.Now())
				w.ca.interfere(func(ctx context.Context, _ *issuer.Order) error {
					select {
					case <-time.After(test.takes):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
				w.names = nil
				for i := range due {
					w.names = append(w.names, fmt.Sprintf("due%03d", i))
				}
				most := 0
				w.tune = func(c *Config) {
					c.Concurrency, c.Now, c.Log = test.slots, time.Now, slog.New(slog.DiscardHandler)
				}
				w.open()
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				began := time.Now()
				go func() { ended <- w.e.Run(ctx) }()
				for w.ca.issuedCount() < due && time.Since(began) < time.Hour {
					<-time.After(time.Second)
					w.e.mu.Lock()
					most = max(most, len(w.e.working))
					w.e.mu.Unlock()
				}
				took := time.Since(began)
				cancel()
				require.NoError(t, <-ended)
				w.close()
				batches := (due + test.slots - 1) / test.slots
				least := time.Duration(batches) * test.takes
				t.Logf("%d certificates due at once, %d slots, %s for an order: drained in %s; %d batches of %s are %s", due, test.slots, test.takes, took, batches, test.takes, least)
				require.Equal(t, due, w.ca.issuedCount())
				assert.LessOrEqual(t, most, test.slots)
				assert.GreaterOrEqual(t, took, least)
				assert.LessOrEqual(t, took, least+2*DefaultTickInterval, "a slot that is free waits for the next look")
			})
		})
	}
}
