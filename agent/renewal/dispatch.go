package renewal

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// clockBack is how far the wall clock must have gone back between two looks
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
	now := e.now()
	e.housekeep(now)
	names, more, err := e.due(now)
	if err != nil {
		e.log.Error("schedule cannot be read", "err", err)
		return
	}
	budget := time.NewTimer(e.cfg.TickBudget)
	defer budget.Stop()
	for i, name := range names {
		if e.stopped() {
			return
		}
		job, ok := e.claim(name, now)
		if !ok {
			continue
		}
		select {
		case e.slots <- struct{}{}:
		case <-budget.C:
			e.release(name, job)
			e.log.Warn("tick budget spent", "tick_budget", e.cfg.TickBudget.String(), "not_started", len(names)-i, "concurrency", e.cfg.Concurrency)
			return
		case <-ctx.Done():
			e.release(name, job)
			return
		}
		e.jobs.Go(func() {
			defer func() {
				<-e.slots
				e.finish(name)
			}()
			e.visit(ctx, job.managed, job.woken)
		})
	}
	if more {
		e.nudge()
	}
}

// due lists what is due by the stored schedule, and what was asked for. more
// says that the schedule holds more than that.
func (e *Engine) due(now time.Time) (names []string, more bool, err error) {
	e.mu.Lock()
	seen := make(map[string]bool, len(e.looks))
	for name := range e.looks {
		names = append(names, name)
		seen[name] = true
	}
	// Certificates that are worked on or blocked stay listed until their next
	// transaction and must not use up the limit.
	limit := len(e.working) + len(e.blocked) + 4*e.cfg.Concurrency
	e.mu.Unlock()

	listed, err := e.cfg.Store.Due(now, limit)
	if err != nil {
		return nil, false, e.storeFailed(err)
	}
	for _, name := range listed {
		if !seen[name] {
			names = append(names, name)
		}
	}
	return names, len(listed) == limit, nil
}

// claimed is a certificate that one job has to itself.
type claimed struct {
	managed *managed
	asked   bool // for by look
	woken   bool
}

// claim takes a certificate for one job, if it is free.
func (e *Engine) claim(name string, now time.Time) (claimed, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.managed[name]
	if m == nil {
		delete(e.looks, name)
		return claimed{}, false
	}
	if _, busy := e.working[name]; busy {
		return claimed{}, false // a look that was asked for stays in the list
	}
	if b, is := e.blocked[name]; is {
		if !reached(b.until, now) {
			return claimed{}, false
		}
		delete(e.blocked, name)
	}
	woken, asked := e.looks[name]
	delete(e.looks, name)
	e.working[name] = stepWait
	return claimed{managed: m, asked: asked, woken: woken}, true
}

// release gives back a certificate that was claimed and not visited.
func (e *Engine) release(name string, job claimed) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.working, name)
	if job.asked {
		e.looks[name] = e.looks[name] || job.woken
	}
}

// finish ends a job. Who asked for a look meanwhile gets one.
func (e *Engine) finish(name string) {
	e.mu.Lock()
	delete(e.working, name)
	_, again := e.looks[name]
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
		for _, name := range e.names {
			e.looks[name] = e.looks[name] || false
			e.verifyAt[name] = now
		}
	}
	e.mu.Unlock()
	if back > clockBack {
		e.log.Warn("wall clock went back; the schedule is drawn up again", "by", back.String())
	}
	if sweep {
		e.sweep(now)
	}
}

// visit carries out steps of one certificate until there is none to be done
// now.
func (e *Engine) visit(ctx context.Context, m *managed, woken bool) {
	err := e.visitSteps(ctx, m, woken)
	if err == nil || stopping(ctx) {
		return // a stop leaves the record as it is: it says what to go on with
	}
	// The failure could not be stored with the certificate, so that only memory
	// can keep the engine from trying again at once.
	e.mu.Lock()
	e.blocked[m.Name] = block{until: e.now().Add(blockPause), err: err}
	e.mu.Unlock()
	e.log.Error("certificate cannot be worked on", "certificate", m.Name, "err", err, "pause", blockPause.String())
}

func (e *Engine) visitSteps(ctx context.Context, m *managed, woken bool) (err error) {
	defer func() {
		if value := recover(); value != nil {
			e.log.Error("renewal panicked", "certificate", m.Name, "panic", fmt.Sprint(value), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v; this is a bug, report it with the log", value)
		}
	}()
	for range maxSteps {
		if stopping(ctx) || e.stopped() {
			return nil
		}
		rec, found, err := e.cfg.Store.Certificate(m.Name)
		if err != nil {
			return e.storeFailed(err)
		}
		if !found {
			return nil // start makes every record; this one was just removed
		}
		f := e.facts(m.Name)
		f.woken = woken
		next := decide(rec, m, f)
		if next.step == stepWait {
			if rec.NextAction.Equal(next.until) {
				return nil
			}
			return e.update(m, func(*store.Certificate, func(wire.Event)) error { return nil })
		}
		e.mu.Lock()
		e.working[m.Name] = next.step
		e.mu.Unlock()
		if err := e.do(ctx, m, rec, next); err != nil {
			return err
		}
		woken = false
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
	case stepNote:
		return e.update(m, func(*store.Certificate, func(wire.Event)) error { return nil })
	}
	return fmt.Errorf("step %d is unknown; this is a bug, report it", next.step)
}
