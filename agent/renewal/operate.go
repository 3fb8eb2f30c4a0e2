package renewal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

var (
	// ErrUnknown says that no managed certificate has that name.
	ErrUnknown = errors.New("no managed certificate has this name")
	// ErrUnderWay says that a renewal was already under way when another one was
	// asked for. It is no failure: the one under way continues at once.
	ErrUnderWay = errors.New("a renewal is already under way; it continues at once")

	// ErrReloading says that a new configuration of the certificate is not in
	// effect yet, because a step that began before goes on, or the disk is full.
	ErrReloading = errors.New("its configuration has just been changed, and is being put into effect; ask again in a moment")
)

// followWait bounds how long Renew waits for a new configuration to be in effect,
// which is the matter of a moment.
const followWait = 30 * time.Second

// Renew renews a certificate now, whatever its dates say, and with a new key; or,
// if such a renewal is under way, ends its pause and returns ErrUnderWay. The
// request is stored, and survives a crash, before Renew returns; it does not wait
// for the renewal. It does wait, a while, for a configuration that has just been
// changed, and returns ErrReloading when that takes longer.
func (e *Engine) Renew(ctx context.Context, name string) error {
	e.follow(ctx, name)
	return e.RenewWhile(ctx, name, func(*store.Certificate) bool { return true })
}

// RenewWhile is Renew for as long as the record is one for which still says so,
// which is asked within the transaction that stores the request. Otherwise
// nothing is stored and it returns ErrNotInService: so a request that is about
// one certificate never renews the one that has taken its place.
func (e *Engine) RenewWhile(ctx context.Context, name string, still func(*store.Certificate) bool) error {
	if e.configured().managed[name] == nil {
		return fmt.Errorf("renew %q: %w; \"certctl-agent list\" shows the names", name, ErrUnknown)
	}
	m, ok := e.current(name)
	if !ok {
		return fmt.Errorf("renew %q: %w", name, ErrReloading)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	underWay := false
	err := e.update(m, func(rec *store.Certificate, _ func(wire.Event)) error {
		if !still(rec) {
			return ErrNotInService
		}
		rec.RetryAt = time.Time{}
		switch rec.Phase {
		case store.PhaseIdle:
			underWay = rec.Forced // asked for before, and about to begin
			rec.Forced = true
			backToFirst(rec)
		default:
			// One for the key in service is not what was asked for: it is given up.
			again := reuses(rec) || rec.Previous != nil && named(rec.Previous.KeyID, rec.Current)
			rec.Forced = rec.Forced || again
			underWay = !again
		}
		for id, d := range rec.Deployments {
			d.RetryAt = time.Time{}
			rec.Deployments[id] = d
		}
		return nil
	})
	if errors.Is(err, errSuperseded) {
		err = ErrReloading
	}
	if err != nil {
		return fmt.Errorf("renew %q: %w", name, err)
	}
	e.mu.Lock()
	delete(e.blocked, name)
	e.mu.Unlock()
	e.look(name, true)
	e.log.Info("renewal asked for", "certificate", name, "under_way", underWay)
	if underWay {
		return fmt.Errorf("renew %q: %w", name, ErrUnderWay)
	}
	return nil
}

// Wake says that something which an order waited for has happened, such as the
// result of a brokered order: it is continued at once. An unknown name is
// ignored: the certificate may have been removed meanwhile.
func (e *Engine) Wake(name string) {
	if e.configured().managed[name] != nil {
		e.look(name, true)
	}
}

// OnChange registers a function that is called after each stored change, from
// the goroutine that made it: it must return at once and may be called several
// times for one change. Register before Run.
func (e *Engine) OnChange(fn func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onChange = append(e.onChange, fn)
}

// Status is one certificate as the engine sees it.
type Status struct {
	// Record is what is stored. It is the caller's.
	Record *store.Certificate
	// Doing is the step under way, such as "obtaining"; "" if there is none.
	Doing string
	// ReuseKey says that a renewal keeps the key where it may.
	ReuseKey bool
	// WaitsFor is the issuer at which it waits for a turn, and WaitsUntil when that
	// will come as far as is known now; "" if it does not wait. It is no failure.
	WaitsFor   string
	WaitsUntil time.Time
	// Former says that the certificate in service is of an earlier configuration,
	// with other names, another key or issuer: it is being replaced.
	Former bool
	// Problem is a failure that could not be stored with the record, such as a
	// full disk; "" if there is none.
	Problem string
}

// Names lists the managed certificates, in order. It must not be changed.
func (e *Engine) Names() []string { return e.configured().names }

// Status returns every managed certificate, by name. One that has no record yet
// has an empty one with its name.
func (e *Engine) Status() ([]Status, error) {
	now := e.configured()
	list := make([]Status, 0, len(now.names))
	for _, name := range now.names {
		rec, found, err := e.cfg.Store.Certificate(name)
		if err != nil {
			return nil, fmt.Errorf("status of certificate %q: %w", name, err)
		}
		if !found {
			rec = unknown(now.managed[name])
		}
		s := Status{
			Record: rec, ReuseKey: now.managed[name].ReuseKey,
			Former: rec.Current != nil && rec.Current.ConfigDigest != now.managed[name].digest,
		}
		if next := decide(rec, now.managed[name], e.facts(name)); next.forTurn {
			s.WaitsFor, s.WaitsUntil = now.managed[name].asked(rec).Name, next.turn
		}
		e.mu.Lock()
		if doing, busy := e.working[name]; busy && doing != stepWait {
			s.Doing = doing.String()
		}
		if b, is := e.blocked[name]; is {
			s.Problem = clip(b.err.Error())
		}
		e.mu.Unlock()
		list = append(list, s)
	}
	return list, nil
}
