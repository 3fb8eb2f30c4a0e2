package orders

import (
	"context"
	"time"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
)

const (
	// changesKey is that of the question what has changed: no order has it.
	changesKey = "changes"
	// changesInterval is how often it is put, and changesOverlap how far each looks
	// back behind the one before.
	changesInterval = 5 * time.Minute
	changesOverlap  = 5 * time.Minute
	// changesBefore is how far back the first of a term looks: as far as an order may
	// not have been asked about.
	changesBefore = asyncpoll.MaxPause
	// changesFresh is how old the last answer may be for orders to be asked about less
	// often, and seldom how much less.
	changesFresh = 20 * time.Minute
	seldom       = 6
)

// An authority that tells what has changed spares most questions about orders that
// wait. It is a hint alone: an order that has changed is asked about at once, and the
// others are asked about all the same, less often.

// changes puts the question into the queue that is due for an account.
func (t *term) changes(a *account) {
	if _, ok := a.issuer.Connector.(connector.Changer); !ok || len(t.e.config.Node.State().View().OpenOrders(a.name, 1)) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, asked := t.told[a.name]; !asked {
		now := t.e.config.Now()
		t.told[a.name] = now.Add(-changesBefore)
		_ = t.queue.Set(a.name, changesKey, now.Add(changesInterval)) // it is one of its accounts
	}
}

// askChanges asks an authority what has changed.
func (t *term) askChanges(ctx context.Context, a *account) asyncpoll.Outcome {
	t.mu.Lock()
	since := t.told[a.name]
	t.mu.Unlock()
	began := t.e.config.Now()
	within, cancel := context.WithTimeout(ctx, a.callTimeout)
	defer cancel()
	within, tally := connector.WithTally(within)
	list, err := a.issuer.Connector.(connector.Changer).Changes(within, since)
	if ctx.Err() != nil {
		return asyncpoll.Outcome{Health: asyncpoll.Unclear}
	}
	outcome := a.note(CallChanges, err, tally.Answered(), t.e.config.Now())
	if err == nil {
		t.mu.Lock()
		t.told[a.name] = began.Add(-changesOverlap)
		t.mu.Unlock()
		a.changesTold(began)
		t.urge(a, list)
	}
	outcome.Next = t.e.config.Now().Add(changesInterval + time.Duration(float64(changesInterval)/5*a.random()))
	if len(t.e.config.Node.State().View().OpenOrders(a.name, 1)) == 0 {
		outcome.Next = time.Time{}
		t.mu.Lock()
		delete(t.told, a.name)
		t.mu.Unlock()
	}
	return outcome
}

// urge has those orders asked about at once of which the authority says something else
// than what is stored.
func (t *term) urge(a *account, list []connector.Status) {
	if len(list) == 0 {
		return
	}
	words := make(map[string]string, len(list))
	for _, s := range list {
		words[s.Handle.Order] = connector.Raw(s.Raw)
	}
	now := t.e.config.Now()
	for _, o := range t.e.config.Node.State().View().OpenOrders(a.name, 0) {
		if o.State != fleet.OrderPending && o.State != fleet.OrderNeedsPerson {
			continue
		}
		word, changed := words[o.Brokering.Handle.Order]
		if !changed || word == o.Brokering.Raw || !o.Brokering.Next.After(now) {
			continue
		}
		t.mu.Lock()
		t.urged[keyOf(o)] = o.ModifyIndex
		t.mu.Unlock()
		t.enqueue(o, now)
	}
}

// changesTold takes note that an authority told what has changed.
func (a *account) changesTold(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changesAt = at
}

// spare puts off the next question about an order that waits, where a change would be
// told.
func (a *account) spare(o *fleet.Order, t *turn, now time.Time) {
	a.mu.Lock()
	fresh := !a.changesAt.IsZero() && now.Sub(a.changesAt) < changesFresh
	a.mu.Unlock()
	if !fresh || !t.b.Slow || t.state != o.State || t.b.Failures > 0 || t.b.Cancel != nil {
		return
	}
	t.b.Next = now.Add(min(seldom*t.b.Next.Sub(now), asyncpoll.MaxPause))
}
