package renewal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// A certificate that leaves the configuration is set aside: nothing of it is
// renewed, deployed or deleted, and its order rests. It is forgotten, with its
// keys, when it has not come back within Pace.KeepRemoved.

// forgetLook is how often what was set aside is looked at, at least.
const forgetLook = time.Hour

// retireAll is apply for certificates that are not configured any more. What
// their deployments installed stays where it is: a program may well go on using
// it.
func (e *Engine) retireAll(batch []application) error {
	names := make([]string, len(batch))
	for i, a := range batch {
		names[i] = a.name
	}
	now := e.now()
	detail := "no longer in the configuration; its keys are kept until " + now.Add(e.currentPace().KeepRemoved).Format(time.RFC3339)
	err := e.cfg.Store.Retire(names, now, func(rec *store.Certificate) wire.Event {
		return removalEvent(rec, detail)
	})
	if err != nil {
		return e.storeFailed(err)
	}
	e.forgetSoon()
	e.log.Info("certificates are not managed any more", "certificates", names, "kept_for", e.currentPace().KeepRemoved.String())
	return nil
}

func removalEvent(rec *store.Certificate, detail string) wire.Event {
	event := wire.Event{Kind: wire.EventRemoved, Certificate: rec.Name, Detail: detail}
	if rec.Current != nil {
		event.Serial = rec.Current.Serial
	}
	return event
}

// forgetSoon has what was set aside looked at again.
func (e *Engine) forgetSoon() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forgetAt = time.Time{}
	e.forgetAgain = true // also if that is being done now
}

// forgetDue begins to forget what was set aside long enough ago, in a job of its
// own: the servers may have to be asked what time it is.
func (e *Engine) forgetDue(ctx context.Context, now time.Time) {
	e.mu.Lock()
	due := !e.forgetting && reached(e.forgetAt, now)
	if due {
		e.forgetting, e.forgetAgain = true, false
	}
	e.mu.Unlock()
	if !due {
		return
	}
	e.jobs.Go(func() {
		next, err := e.forgetOld(ctx)
		if err != nil {
			next = e.now().Add(blockPause)
			if !stopping(ctx) && !errors.Is(err, errUnconfirmed) {
				e.log.Error("removed certificates cannot be forgotten", "err", err, "pause", blockPause.String())
			}
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.forgetting = false
		if !e.forgetAgain {
			e.forgetAt = next
		}
	})
}

// forgetOld forgets what was set aside long enough ago, and returns when to look
// again.
func (e *Engine) forgetOld(ctx context.Context) (next time.Time, err error) {
	list, err := e.cfg.Store.Removed()
	if err != nil {
		return time.Time{}, e.storeFailed(err)
	}
	sure := false // that the time is right
	next = e.now().Add(forgetLook)
	for _, r := range list {
		if stopping(ctx) || e.stopped() {
			return next, nil
		}
		until := e.keptUntil(r.At)
		if until.After(e.now()) {
			if until.Before(next) {
				next = until
			}
			continue
		}
		if !sure && e.cfg.Confirm != nil {
			if !e.cfg.Confirm(ctx, "") {
				return next, errUnconfirmed
			}
			sure = true
			if until.After(e.now()) {
				return e.now(), nil // the time was wrong; look again by the right one
			}
		}
		if err := e.forget(r); err != nil {
			return next, err
		}
	}
	return next, nil
}

func (e *Engine) keptUntil(removed time.Time) time.Time {
	return removed.Add(e.currentPace().KeepRemoved)
}

// forget deletes what is kept of a certificate, unless it has come back. The
// record goes first: a crash after it leaves keys and snapshots that the next
// sweep finds.
func (e *Engine) forget(r store.Removed) error {
	name := r.Certificate.Name
	detail := "not back in the configuration in time; its keys on this host are deleted"
	forgotten, err := e.cfg.Store.Forget(name, removalEvent(r.Certificate, detail))
	if err != nil {
		return e.storeFailed(err)
	}
	if forgotten == nil {
		return nil
	}
	rec := forgotten.Certificate
	for _, g := range []*store.Generation{rec.Previous, rec.Current, rec.Next} {
		if g != nil {
			e.discardKey(name, g.KeyID)
		}
	}
	for id := range rec.Deployments {
		e.dropScratch(e.scratch(name, id))
	}
	e.changed()
	e.log.Info("removed certificate is forgotten", "certificate", name, "removed_at", forgotten.At)
	return nil
}

// RemovedCertificate is one that is not configured any more, and kept in case
// that it comes back.
type RemovedCertificate struct {
	// Record is what is stored. It is the caller's.
	Record    *store.Certificate
	RemovedAt time.Time
	KeptUntil time.Time // when it is forgotten
}

// Removed returns what is kept of certificates that are not configured any more,
// by name.
func (e *Engine) Removed() ([]RemovedCertificate, error) {
	stored, err := e.cfg.Store.Removed()
	if err != nil {
		return nil, fmt.Errorf("removed certificates: %w", err)
	}
	list := make([]RemovedCertificate, 0, len(stored))
	for _, r := range stored {
		list = append(list, RemovedCertificate{Record: r.Certificate, RemovedAt: r.At, KeptUntil: e.keptUntil(r.At)})
	}
	// Those that a step still works on are not set aside yet.
	for _, name := range e.leavingNow() {
		rec, found, err := e.cfg.Store.Certificate(name)
		if err != nil {
			return nil, fmt.Errorf("removed certificate %q: %w", name, err)
		}
		if found {
			now := e.now()
			list = append(list, RemovedCertificate{Record: rec, RemovedAt: now, KeptUntil: e.keptUntil(now)})
		}
	}
	slices.SortFunc(list, func(a, b RemovedCertificate) int { return strings.Compare(a.Record.Name, b.Record.Name) })
	return list, nil
}

func (e *Engine) leavingNow() (names []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name := range e.pending {
		if e.roster.managed[name] == nil {
			names = append(names, name)
		}
	}
	return names
}
