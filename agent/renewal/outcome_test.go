package renewal

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/issuer"
)

// Each end is told once, with the issuer that was asked.
func TestOutcomesAreCounted(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	counts := map[Outcome]int{}
	w.tune = func(c *Config) {
		c.Count = func(issuer string, outcome Outcome) {
			mu.Lock()
			defer mu.Unlock()
			assert.Equal(t, "ca", issuer)
			counts[outcome]++
		}
	}
	w.open()
	w.settleDown()
	assert.Equal(t, map[Outcome]int{OutcomeRenewed: 1}, counts)

	w.ca.interfere(func(context.Context, *issuer.Order) error { return errors.New("no route") })
	w.toRenewal()
	w.tick()
	assert.Equal(t, map[Outcome]int{OutcomeRenewed: 1, OutcomeOrderFailed: 1}, counts)
	w.ca.interfere(nil)
	w.places[1].failWith(func(context.Context, *deploy.Task) error { return errReload })
	w.run(2*time.Hour, time.Minute)
	assert.Positive(t, counts[OutcomeDeploymentFailed])
	w.places[1].failWith(nil)
	// Its pause has grown by now, perhaps beyond what settling waits for.
	w.clock.set(w.record().Deployments["back"].RetryAt)
	w.settleDown()
	assert.Equal(t, 2, counts[OutcomeRenewed])
	assert.Equal(t, 1, counts[OutcomeOrderFailed])
}
