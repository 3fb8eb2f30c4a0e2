package asyncpoll

import (
	"container/heap"
	"time"

	"github.com/certctl/certctl/shared/backoff"
)

// account is one account's part of a Queue, whose lock it is under.
type account struct {
	name   string
	limits Limits
	items  map[string]*item
	queue  items
	open   int // questions
	// turn is when the next question may be asked at the account's rate, if none
	// had been saved up.
	turn        time.Time
	pausedUntil time.Time
	pausedFor   string
	circuit     circuit
}

func (a *account) set(key string, at time.Time) {
	i, ok := a.items[key]
	switch {
	case !ok:
		i = &item{key: key, at: at}
		a.items[key] = i
		heap.Push(&a.queue, i)
	case i.place < 0:
		i.removed = false
		if i.again.IsZero() || at.Before(i.again) {
			i.again = at
		}
	default:
		i.at = at
		heap.Fix(&a.queue, i.place)
	}
}

func (a *account) remove(key string) {
	i, ok := a.items[key]
	switch {
	case !ok:
	case i.place < 0:
		i.removed, i.again = true, time.Time{}
	default:
		heap.Remove(&a.queue, i.place)
		delete(a.items, key)
	}
}

// ready is when the next question may be asked; false if only a change can tell.
func (a *account) ready(now time.Time) (time.Time, bool) {
	if len(a.queue) == 0 || a.open >= a.limits.Concurrency || !a.circuit.allows(a.open) {
		return time.Time{}, false
	}
	at := a.queue[0].at
	// Up to Burst questions are saved up in quiet times.
	saved := time.Duration(float64(a.limits.Burst-1) / a.limits.Rate * float64(time.Second))
	for _, other := range []time.Time{a.pausedUntil, a.circuit.until, a.turn.Add(-saved)} {
		if other.After(at) {
			at = other
		}
	}
	return at, true
}

// take is the item that is ready.
func (a *account) take(now time.Time) *item {
	i := heap.Pop(&a.queue).(*item)
	if a.turn.Before(now) {
		a.turn = now
	}
	a.turn = a.turn.Add(time.Duration(float64(time.Second) / a.limits.Rate))
	a.open++
	return i
}

// settle takes note of an outcome, and reports whether the account stands otherwise
// now.
func (a *account) settle(i *item, o Outcome, now time.Time) (changed bool) {
	a.open--
	next := o.Next
	if !i.again.IsZero() && (next.IsZero() || i.again.Before(next)) {
		next = i.again
	}
	delete(a.items, i.key)
	if !i.removed && !next.IsZero() {
		i.at, i.again = next, time.Time{}
		a.items[i.key] = i
		heap.Push(&a.queue, i)
	}
	if until := now.Add(o.Pause); o.Pause > 0 && until.After(a.pausedUntil) {
		a.pausedUntil, a.pausedFor, changed = until, o.Reason, true
	}
	return a.circuit.note(o, now) || changed
}

func (a *account) status(now time.Time) AccountStatus {
	s := AccountStatus{
		Name: a.name, Orders: len(a.items), Open: a.open, Failures: a.circuit.failures, OpenUntil: a.circuit.until, Reason: a.circuit.reason,
	}
	if a.pausedUntil.After(now) {
		s.PausedUntil, s.PausedFor = a.pausedUntil, a.pausedFor
	}
	for _, i := range a.queue {
		if !i.at.After(now) {
			s.Due++
		}
	}
	if len(a.queue) > 0 {
		s.Next = a.queue[0].at
	}
	return s
}

// tolerance is how many questions in a row may fail before the circuit opens.
const tolerance = 5

// trial is the pause before an authority that fails is tried again.
var trial = backoff.Policy{Initial: 30 * time.Second, Max: 10 * time.Minute, Multiplier: 2, Jitter: 0.2}

// circuit keeps the questions from an authority that does not answer any: after some
// in a row have failed there is one at a time, with growing pauses, until one goes
// well.
type circuit struct {
	random   func() float64
	failures int // in a row
	trials   int // since it opened; 0 while it is closed
	until    time.Time
	reason   string
}

// allows reports whether a question may be asked beside those that are open.
func (c *circuit) allows(open int) bool { return c.trials == 0 || open == 0 }

func (c *circuit) close() { c.failures, c.trials, c.until, c.reason = 0, 0, time.Time{}, "" }

// note counts an outcome, and reports whether the circuit has opened or closed, or
// stays open for longer.
func (c *circuit) note(o Outcome, now time.Time) (changed bool) {
	switch o.Health {
	case Unclear:
		return false
	case Well:
		changed = c.trials > 0
		c.close()
		return changed
	case Failing:
	}
	c.failures++
	// What was asked before it opened says nothing new.
	if c.failures < tolerance || c.until.After(now) {
		return false
	}
	c.trials++
	c.until, c.reason = now.Add(trial.Delay(c.trials, c.random)), o.Reason
	return true
}
