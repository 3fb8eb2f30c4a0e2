package renewal

import (
	"errors"
	"fmt"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/wire"
)

// notStoredError is a transaction that was certainly not made, for want of room
// or because the disk is read-only. What is on disk is what was there before.
type notStoredError struct{ err error }

func (e *notStoredError) Error() string {
	if durable.IsReadOnly(e.err) {
		return fmt.Sprintf("the disk is read-only: %v; mount it writable, the agent goes on by itself", e.err)
	}
	return fmt.Sprintf("the disk is full: %v; free some space, the agent goes on by itself", e.err)
}

func (e *notStoredError) Unwrap() error { return e.err }

// passes reports whether an error of the disk is one that somebody can mend
// while the agent runs.
func passes(err error) bool { return durable.IsFull(err) || durable.IsReadOnly(err) }

// block keeps a certificate alone whose failure could not be stored.
type block struct {
	until time.Time
	err   error
}

// blockPause is how long.
const blockPause = time.Minute

// update makes one transaction of a record that is there: fn's change, what follows from it,
// and the events. An error of fn is returned as it is and nothing is stored.
// Every other error but *notStoredError stops the engine.
func (e *Engine) update(m *managed, fn func(rec *store.Certificate, emit func(wire.Event)) error) error {
	var refusal error
	err := e.cfg.Store.Update(m.Name, func(tx *store.CertificateTx) error {
		if tx.New {
			refusal = errSuperseded // it was set aside; apply alone makes records
			return refusal
		}
		emit := func(event wire.Event) {
			event.Certificate = m.Name
			tx.Emit(event)
		}
		if refusal = fn(tx.Record, emit); refusal != nil {
			return refusal
		}
		settle(tx.Record, m, e.facts(m.Name))
		return nil
	})
	switch {
	case err == nil:
		e.changed()
		return nil
	case refusal != nil && errors.Is(err, refusal):
		return err
	}
	return e.storeFailed(err)
}

// storeFailed decides once about an error of the store. After a failed write or
// sync nobody knows which of two states is on disk, and acting on the wrong one
// could order twice: the engine stops, and a new process reads what is there.
func (e *Engine) storeFailed(err error) error {
	if passes(err) && !errors.Is(err, store.ErrStateUnknown) {
		return &notStoredError{err}
	}
	err = fmt.Errorf("renewal: what the store holds is unknown: %w; check the disk, then restart the agent: it goes on from what is on disk", err)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fatal == nil {
		e.fatal = err
	}
	if e.stop != nil {
		e.stop(e.fatal)
	}
	return err
}

// stopped reports whether the store has failed; nothing may be begun then.
func (e *Engine) stopped() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fatal != nil
}

func (e *Engine) facts(name string) facts {
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	return facts{now: now, verifyAt: e.verifyAt[name], turn: e.turns.at, would: e.turns.would}
}

// verified puts off the next verification.
func (e *Engine) verified(name string) {
	at := e.now().Add(fraction(e.cfg.VerifyInterval, 0.9+0.2*e.draw()))
	e.mu.Lock()
	defer e.mu.Unlock()
	e.verifyAt[name] = at
}

func (e *Engine) changed() {
	e.mu.Lock()
	callbacks := e.onChange
	e.mu.Unlock()
	for _, fn := range callbacks {
		fn()
	}
}
