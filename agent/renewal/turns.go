package renewal

import (
	"sync"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// turns keep the lines of all issuers. A turn is stored as used before the order
// is begun: a crash in between costs a turn, and never an order too many.
type turns struct {
	store turnStore

	saving sync.Mutex // held from a change until it is stored; taken before mu

	mu    sync.Mutex // guards what follows; never held during a write: decisions are made within transactions
	lines map[string]*line
}

// turnStore is what turns need of a Store.
type turnStore interface {
	Turns() (map[string]store.Turns, error)
	SaveTurns(all map[string]store.Turns) error
}

func newTurns(st turnStore) *turns { return &turns{store: st, lines: make(map[string]*line)} }

// load takes up what is stored.
func (t *turns) load() error {
	stored, err := t.store.Turns()
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for issuer, state := range stored {
		t.line(issuer).Turns = state
	}
	return nil
}

// used is how far the budgets of all issuers are used up.
func (t *turns) used() map[string]store.Turns {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.inUse()
}

// inUse is used with t.mu held.
func (t *turns) inUse() map[string]store.Turns {
	all := make(map[string]store.Turns, len(t.lines))
	for name, l := range t.lines {
		if l.Turns != (store.Turns{}) {
			all[name] = l.Turns
		}
	}
	return all
}

// line is the one of an issuer. Call with t.mu held.
func (t *turns) line(issuer string) *line {
	l := t.lines[issuer]
	if l == nil {
		l = newLine()
		t.lines[issuer] = l
	}
	return l
}

// change makes a change of one line and stores it; keep false leaves it unstored.
func (t *turns) change(issuer string, fn func(l *line) (keep bool)) error {
	t.saving.Lock()
	defer t.saving.Unlock()
	t.mu.Lock()
	keep := fn(t.line(issuer))
	var all map[string]store.Turns
	if keep {
		all = t.inUse()
	}
	t.mu.Unlock()
	if !keep {
		return nil
	}
	return t.store.SaveTurns(all)
}

// at is when the certificate, which wants a new order, may ask its issuer for it:
// the zero time, or one that lies ahead if it has to wait.
func (t *turns) at(iss NamedIssuer, rec *store.Certificate, now time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[iss.Name]
	if l == nil {
		return time.Time{}
	}
	w := wishOf(rec)
	var at time.Time
	switch {
	case rec.Next == nil:
		// It wants one, or nobody would ask. Whoever asks stands in the line from
		// then on, also after a restart: the first in a paused one is its probe.
		at = l.turnOf(l.join(w, iss.Limits, now), iss.Limits, now)
	case l.probe != rec.Name:
		at = l.pausedFor(&w, now)
	}
	if !at.After(now) {
		return time.Time{}
	}
	return at
}

// would is at for an issuer that the certificate does not wait for.
func (t *turns) would(iss NamedIssuer, rec *store.Certificate, now time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[iss.Name]
	if l == nil {
		return time.Time{}
	}
	w := wishOf(rec)
	l.press(&w, iss.Limits, now)
	at := l.turnOf(&w, iss.Limits, now)
	if !at.After(now) {
		return time.Time{}
	}
	return at
}

// take takes a turn for a new order, or has the certificate wait for one.
func (t *turns) take(iss NamedIssuer, rec *store.Certificate, now time.Time) (ok bool, _ error) {
	err := t.change(iss.Name, func(l *line) (keep bool) {
		t.leaveOther(rec.Name, iss.Name)
		w := l.join(wishOf(rec), iss.Limits, now)
		if ok = !l.turnOf(w, iss.Limits, now).After(now); !ok {
			return false
		}
		before := l.Turns
		l.take(rec.Name, iss.Limits, now)
		return l.Turns != before
	})
	return ok, err
}

// leaveOthers ends the waiting of a certificate at all issuers but one.
func (t *turns) leaveOthers(name, issuer string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaveOther(name, issuer)
}

// leaveOther is leaveOthers with t.mu held.
func (t *turns) leaveOther(name, issuer string) {
	for of, l := range t.lines {
		if of != issuer {
			l.waiting.remove(name)
		}
	}
}

// leave ends the waiting of a certificate that wants no order any more.
func (t *turns) leave(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.lines {
		l.waiting.remove(name)
	}
}

// called lists the certificates whose turn has come.
func (t *turns) called(limits func(issuer, name string) (Limits, bool), now time.Time) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	for issuer, l := range t.lines {
		if len(l.waiting.byName) > 0 {
			names = append(names, l.called(func(name string) (Limits, bool) { return limits(issuer, name) }, now)...)
		}
	}
	return names
}

// nextCall is when a turn may come for somebody who waits and is called no more
// now; the zero time if nobody waits.
func (t *turns) nextCall(limits map[string]Limits, now time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	var first time.Time
	for issuer, l := range t.lines {
		if len(l.waiting.byName) == 0 {
			continue
		}
		if at := l.nextCall(limits[issuer], now); first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// pausedAt reports whether an issuer has said that it takes nothing new then.
func (t *turns) pausedAt(issuer string, at time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[issuer]
	return l != nil && l.Paused && l.limited(at)
}

// takeTurn takes a turn for a new order. Without one it is stored when the turn
// will come, which is no failure.
func (e *Engine) takeTurn(m *managed, rec *store.Certificate) (ok bool, _ error) {
	iss := m.asked(rec)
	ok, err := e.turns.take(iss, rec, e.now())
	if err != nil {
		return false, e.storeFailed(err)
	}
	if ok {
		return true, nil
	}
	e.log.Debug("renewal waits for a turn at its issuer", "certificate", m.Name, "issuer", iss.Name)
	return false, e.update(m, func(*store.Certificate, func(wire.Event)) error { return nil })
}

// orderTaken notes that an issuer has taken a new order. When that cannot be
// stored, only a pause that is over outlasts the next start.
func (e *Engine) orderTaken(issuer string) {
	if err := e.turns.change(issuer, (*line).accepted); err != nil {
		e.log.Warn("end of an issuer's pause cannot be stored", "issuer", issuer, "err", err)
	}
}

// orderLimited notes that an issuer takes nothing new for a while.
func (e *Engine) orderLimited(issuer, name string, fail failure, now time.Time) error {
	var paused bool
	var until time.Time
	err := e.turns.change(issuer, func(l *line) bool {
		l.refused(name, fail.retryAfter, now)
		paused, until = l.Paused, l.LimitedUntil
		return true
	})
	if err != nil {
		return e.storeFailed(err)
	}
	if paused {
		e.log.Warn("issuer limits this account; nothing new is ordered there for a while", "issuer", issuer, "until", until)
	}
	return nil
}

// limits are those that an issuer has for a certificate; ok is false if the
// certificate is not of that issuer any more.
func (e *Engine) limits(issuer, name string) (_ Limits, ok bool) {
	m := e.configured().managed[name]
	if m == nil {
		return Limits{}, false
	}
	iss, ok := m.issuerNamed(issuer)
	return iss.Limits, ok
}
