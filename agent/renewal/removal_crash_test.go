package renewal

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/internal/counts"
)

// After every step of a removal and of a return, while nothing is under way,
// while an order is, and in the middle of a step of one, an engine is started on a
// copy: with the certificate in its configuration it must end with one for each
// renewal, and without it must leave everything as it is, and still do so when it
// comes back.
func TestCrashAtEveryStepOfARemovalAndReturn(t *testing.T) {
	kinds := map[string]int{}
	total := 0
	for name, s := range map[string]struct {
		renewals int
		prepare  func(w *world) (remove func())
	}{
		"idle": {1, func(w *world) func() {
			return func() { w.reload(nil); w.tick() }
		}},
		"order under way": {2, func(w *world) func() {
			w.toRenewal()
			w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
				return errors.Join(errors.New("no route to host"), order.Save([]byte(`{"Number":"`+w.ca.newOrder(order.ID)+`"}`)))
			})
			w.tick()
			w.ca.interfere(nil)
			return func() { w.reload(nil); w.tick() }
		}},
		"in the middle of the order": {2, func(w *world) func() {
			w.toRenewal()
			w.ca.interfere(func(context.Context, *issuer.Order) error { w.reload(nil); return nil })
			return func() { w.tick(); w.ca.interfere(nil); w.tick() }
		}},
		"in the middle of a deployment": {2, func(w *world) func() {
			w.toRenewal()
			w.places[0].failWith(func(context.Context, *deploy.Task) error { w.reload(nil); return nil })
			return func() { w.tick(); w.places[0].failWith(nil); w.tick() }
		}},
	} {
		w := newWorld(t)
		w.tune = keepForAMonth
		w.open()
		w.settleDown()
		remove := s.prepare(w)
		points := recordCrashes(w, func() {
			remove()
			require.Len(t, w.removed(), 1)
			w.clock.advance(time.Hour)
			w.reload(w.managed())
			w.tick()
			w.settleDown()
		})
		require.NotEmpty(t, points)
		total += len(points)
		for _, p := range points {
			kinds[p.label[3:]]++
			t.Run(name+"/"+p.label, func(t *testing.T) {
				p.w.t, p.w.ca.t = t, t
				for _, place := range p.w.places {
					place.t = t
				}
				// Where it is not configured at first, nothing may happen to it.
				names, issued, orders := p.w.names, p.w.ca.issuedCount(), p.w.ca.orders()
				p.w.names = nil
				p.w.open()
				p.w.run(3*time.Hour, 30*time.Minute)
				require.Len(t, p.w.removed(), 1)
				for _, place := range p.w.places {
					deploys, _ := place.counts()
					require.Zero(t, deploys, "place %s", place.id)
				}
				require.Equal(t, issued, p.w.ca.issuedCount())
				require.Equal(t, orders, p.w.ca.orders())
				p.w.close()
				p.w.names = names
				p.w.open()
				p.w.requireServed(s.renewals)
				require.Empty(t, p.w.removed())
			})
		}
	}
	for label, times := range map[string]int{
		"store: after setting aside": 4, "store: after taking back": 4, "store: after a commit of many": 4,
		"authority: finalize's answer lost": 2, "place front: between the files": 3,
	} {
		assert.GreaterOrEqual(t, kinds[label], times, label)
	}
	counts.Report(t, "removal-crash-points", total, "states of a removal and return, on which a new agent was started")
}

// A crash of the forgetting leaves nothing that is not swept.
func TestCrashWhileForgetting(t *testing.T) {
	w := newWorld(t)
	w.tune = keepForAMonth
	w.open()
	w.settleDown()
	w.reload(nil)
	w.tick()
	w.clock.advance(31 * day)
	points := recordCrashes(w, w.tick)
	require.Len(t, points, 2, "the record, and its key")
	for _, p := range points {
		t.Run(p.label, func(t *testing.T) {
			p.w.t = t
			p.w.names = nil
			p.w.open()
			p.w.clock.advance(2 * time.Hour)
			p.w.tick()
			assert.Empty(t, p.w.removed())
			p.w.e.sweep(p.w.clock.now())
			assert.Empty(t, p.w.keyFiles())
		})
	}
}
