package renewal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// clockBack is how far the time must have gone back between two looks
	// for the whole schedule to be drawn up again: what is due by the new clock
	// may be listed far ahead.
	clockBack = time.Minute

	// maxSteps bounds one visit to a certificate. decide needs far fewer; a
	// flaw in it must not become a hot loop that orders certificates.
	maxSteps = 50
)

// tick looks at the schedule once and starts what is due. Its cost is the
// number of certificates that are due. It does not wait for what it starts:
// one authority that hangs must not hold up the others.
func (e *Engine) tick(ctx context.Context) {
	if err := e.apply(ctx, 0); err != nil {
		e.log.Error("records cannot follow the configuration", "err", err)
		return
	}
	now := e.now()
	e.housekeep(now)
	e.forgetDue(ctx, now)
	names, err := e.due(now)
	if err != nil {
		e.log.Error("schedule cannot be read", "err", err)
		return
	}
	pace := e.currentPace()
	budget, interval := time.NewTimer(pace.TickBudget), time.NewTimer(pace.TickInterval)
	defer budget.Stop()
	defer interval.Stop()
	late := false
	for queues := e.queues(names); ; {
		left := queues.begin(e.slots, e.stopped, func(issuer, name string) { e.startOne(ctx, issuer, name, now) })
		if left == 0 || e.stopped() {
			return
		}
		if late && !e.slots.full() {
			// What is left is of issuers that have used up their part. What has
			// become due meanwhile may be of another one.
			e.nudge()
			return
		}
		select {
		case <-e.slots.freed:
		case <-interval.C:
			late = true
		case <-budget.C:
			e.log.Warn("tick budget spent", "tick_budget", pace.TickBudget.String(), "not_started", left, "concurrency", pace.Concurrency)
			return
		case <-ctx.Done():
			return
		}
	}
}

// startOne starts a visit in a slot that is held already, if the certificate is
// free.
func (e *Engine) startOne(ctx context.Context, issuer, name string, now time.Time) {
	woken, ok := e.claim(name, now)
	if !ok {
		e.slots.give(issuer)
		return
	}
	e.jobs.Go(func() {
		defer func() {
			e.slots.give(issuer)
			e.finish(name)
		}()
		e.visit(ctx, name, woken)
	})
}

// due lists what was asked for, and then what is due by the stored schedule.
// Certificates that are worked on or blocked are listed too.
func (e *Engine) due(now time.Time) ([]string, error) {
	listed, err := e.cfg.Store.Due(now, 0)
	if err != nil {
		return nil, e.storeFailed(err)
	}
	for _, name := range e.turns.called(e.limits, now) {
		if !slices.Contains(listed, name) {
			listed = append(listed, name)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	names := slices.Collect(maps.Keys(e.looks))
	for _, name := range listed {
		if _, asked := e.looks[name]; !asked {
			names = append(names, name)
		}
	}
	return names, nil
}

// claim takes a certificate for one job, if it is free. woken says that its
// waiting order is to go on.
func (e *Engine) claim(name string, now time.Time) (woken, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, busy := e.working[name]; busy {
		return false, false // a look that was asked for stays in the list
	}
	if _, ok := e.workable(name); !ok {
		return false, false
	}
	if b, is := e.blocked[name]; is {
		if !reached(b.until, now) {
			return false, false
		}
		delete(e.blocked, name)
	}
	woken = e.looks[name]
	delete(e.looks, name)
	e.working[name] = stepWait
	return woken, true
}

// finish ends a job. Who asked for a look meanwhile gets one, and so does a
// configuration that came meanwhile.
func (e *Engine) finish(name string) {
	e.mu.Lock()
	delete(e.working, name)
	_, again := e.looks[name]
	again = again || e.pending[name]
	e.mu.Unlock()
	if again {
		e.nudge()
	}
}

// look asks for a visit; woken also opens the gate of a waiting order.
func (e *Engine) look(name string, woken bool) {
	e.mu.Lock()
	e.looks[name] = e.looks[name] || woken
	e.mu.Unlock()
	e.nudge()
}

// housekeep does what belongs to no certificate.
func (e *Engine) housekeep(now time.Time) {
	e.mu.Lock()
	back := e.lastTick.Sub(now)
	e.lastTick = now
	sweep := reached(e.sweepAt, now)
	if sweep {
		e.sweepAt = now.Add(sweepInterval)
	}
	if back > clockBack {
		for _, name := range e.roster.names {
			e.looks[name] = e.looks[name] || false
			e.verifyAt[name] = now
		}
	}
	e.mu.Unlock()
	if back > clockBack {
		e.log.Warn("the time went back; the schedule is drawn up again", "by", back.String())
	}
	if sweep {
		e.sweep(e.cfg.Wall())
	}
}

// visit carries out steps of one certificate until there is none to be done
// now, or its configuration is another one.
func (e *Engine) visit(ctx context.Context, name string, woken bool) {
	err := e.visitSteps(ctx, name, woken)
	if err == nil || stopping(ctx) {
		return // a stop leaves the record as it is: it says what to go on with
	}
	// The failure could not be stored with the certificate, so that only memory
	// can keep the engine from trying again at once.
	e.mu.Lock()
	e.blocked[name] = block{until: e.now().Add(blockPause), err: err}
	e.mu.Unlock()
	if errors.Is(err, errUnconfirmed) {
		e.log.Debug("renewal waits for the time", "certificate", name)
		return // the clock says it once for all
	}
	e.log.Error("certificate cannot be worked on", "certificate", name, "err", err, "pause", blockPause.String())
}

func (e *Engine) visitSteps(ctx context.Context, name string, woken bool) (err error) {
	defer func() {
		if value := recover(); value != nil {
			e.log.Error("renewal panicked", "certificate", name, "panic", fmt.Sprint(value), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v; this is a bug, report it with the log", value)
		}
	}()
	sure := false // that the time is right
	return untilWaiting(func() (waits bool, _ error) {
		if stopping(ctx) || e.stopped() {
			return true, nil
		}
		m, ok := e.current(name)
		if !ok {
			return true, nil // another configuration is to be applied first
		}
		rec, found, err := e.cfg.Store.Certificate(name)
		if err != nil {
			return true, e.storeFailed(err)
		}
		if !found {
			return true, nil // apply makes every record
		}
		f := e.facts(name)
		f.woken = woken
		next := decide(rec, m, f)
		if next.step == stepWait {
			if !next.forTurn {
				e.turns.leave(m.Name)
			}
			if rec.NextAction.Equal(next.until) {
				return true, nil
			}
			return true, e.update(m, func(*store.Certificate, func(wire.Event)) error { return nil })
		}
		if next.byTime && !sure && e.cfg.Confirm != nil {
			sure = true
			return false, e.confirm(ctx, m) // and again, by what time it is now
		}
		e.mu.Lock()
		e.working[name] = next.step
		e.mu.Unlock()
		woken = false
		return false, e.do(ctx, m, rec, next)
	})
}

// untilWaiting carries out one step after another, until one says that there is
// nothing to be done now, or fails.
func untilWaiting(step func() (waits bool, err error)) error {
	for range maxSteps {
		if waits, err := step(); waits || err != nil {
			return err
		}
	}
	return fmt.Errorf("%d steps without an end; this is a bug, report it with the log", maxSteps)
}

// stopping reports whether the engine is to end. That is how it ends, and no
// error of anything.
func stopping(ctx context.Context) bool { return ctx.Err() != nil }

// do carries out one step. Failures of issuers and targets are stored and are
// no errors; an error means that nothing could be stored, or that ctx is done.
func (e *Engine) do(ctx context.Context, m *managed, rec *store.Certificate, next action) error {
	switch next.step {
	case stepBegin:
		return e.begin(m, rec, next.reason)
	case stepOrder:
		return e.order(ctx, m, rec)
	case stepAbandon:
		return e.abandon(m, rec, next.reason)
	case stepDeployNext:
		return e.deploy(ctx, m, rec, rec.Next, next.ids)
	case stepRepair:
		return e.deploy(ctx, m, rec, rec.Current, next.ids)
	case stepFinish:
		return e.complete(m, rec)
	case stepRetire:
		return e.retire(m, rec)
	case stepAskAuthority:
		return e.askAuthority(ctx, m, rec)
	case stepVerify:
		return e.verify(ctx, m, rec)
	case stepGoOver:
		return e.goOver(m, rec, next)
	case stepNote:
		return e.update(m, func(*store.Certificate, func(wire.Event)) error { return nil })
	}
	return fmt.Errorf("step %d is unknown; this is a bug, report it", next.step)
}
