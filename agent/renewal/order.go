package renewal

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// keyAttempts is how often in a row a new key may be unusable before it is given
// up: a file that is damaged would otherwise hold up its renewal for ever, while
// one moment without file descriptors must not cost an order.
const keyAttempts = 3

// begin makes a new key, or finds the one to be used again, and stores the intent
// to order a certificate for it. The key is on disk before the record names it; a
// crash in between leaves an orphan, which sweep removes. That both were written
// is also the proof that the disk has room, before anything is asked of the
// authority.
func (e *Engine) begin(m *managed, rec *store.Certificate, reason string) error {
	log := e.log.With("certificate", m.Name)
	if ok, err := e.takeTurn(m, rec); !ok || err != nil {
		return err
	}
	keyID, err := e.keyInService(m, rec)
	reused := keyID != ""
	if err == nil && !reused {
		keyID, _, err = e.cfg.Keys.Create(m.KeyAlgorithm)
	}
	if err != nil {
		return e.failOrder(m, rec, failure{class: issuer.ClassConfig, err: keyError(err), local: true})
	}
	orderID := rand.Text()
	err = e.update(m, func(rec *store.Certificate, _ func(wire.Event)) error {
		return begun(rec, m, keyID, orderID, e.now())
	})
	var full *notStoredError
	if errors.Is(err, errSuperseded) || errors.As(err, &full) {
		if !reused {
			e.discardKey(m.Name, keyID) // nothing was stored that names it
		}
		return unlessSuperseded(err)
	}
	if err != nil {
		return err // whether the record names the key is for the next process to see
	}
	log.Info("renewal begun", "reason", reason, "order_id", orderID, "key_reused", reused)
	return nil
}

// order begins or continues the order at the issuer, checks what comes back and
// stores it.
func (e *Engine) order(ctx context.Context, m *managed, rec *store.Certificate) error {
	key, err := e.cfg.Keys.Load(rec.Next.KeyID)
	if err != nil {
		return e.failKey(m, rec, err)
	}
	e.keyWorks(rec.Next.KeyID)
	// The disk may have filled since the record was written, perhaps days ago.
	if err := e.checkRoom(); err != nil {
		return err
	}
	orderID, isNew := rec.OrderID, rec.OrderState == nil
	iss, _ := m.issuerNamed(rec.Next.Issuer) // decide has seen that it is there
	order := &issuer.Order{
		ID: orderID, Certificate: m.Name, Names: m.Names, Key: key,
		Lifetime: m.Lifetime, State: rec.OrderState,
		Save: func(state json.RawMessage) error {
			err := e.update(m, func(rec *store.Certificate, _ func(wire.Event)) error {
				return placed(rec, orderID, append(json.RawMessage(nil), state...))
			})
			if err == nil && isNew {
				e.orderTaken(iss.Name)
			}
			return err
		},
	}
	if iss.Name == m.first().Name {
		order.Profile = m.Profile // a stand-in has other ones
	}
	if rec.Current != nil && (rec.Current.Issuer == "" || rec.Current.Issuer == iss.Name) {
		order.Replaces = leafOf(rec.Current) // which another authority never saw
	}
	answer, err := guarded(ctx, e.currentPace().IssueTimeout, e.log, "issuer "+iss.Name, func(ctx context.Context) (*issuer.Issued, error) {
		return iss.Issuer.Issue(ctx, order)
	})
	switch {
	case e.stopped():
		return nil // the store failed under Save; nothing may be concluded
	case err != nil && ctx.Err() != nil:
		return ctx.Err() // a stop is no failure
	case err != nil:
		return e.failOrder(m, rec, issuerFailure(err))
	}
	chain, err := e.check(m, iss.Name, answer, key)
	if err != nil {
		return e.failOrder(m, rec, failure{class: issuer.ClassOrderGone, err: err, attention: true})
	}
	var next store.Generation
	err = e.update(m, func(rec *store.Certificate, emit func(wire.Event)) error {
		if err := issued(rec, orderID, issuedPair(chain), e.now()); err != nil {
			return err
		}
		next = *rec.Next
		emit(wire.Event{Kind: wire.EventIssued, Serial: next.Serial, Detail: "by " + iss.Name, Issuer: iss.Name})
		return nil
	})
	if err != nil {
		return unlessSuperseded(err)
	}
	e.log.Info("certificate issued", "certificate", m.Name, "serial", next.Serial, "not_after", next.NotAfter, "issuer", iss.Name)
	return nil
}

// checkRoom returns nil if what the authority is about to be asked for could be
// stored. Otherwise it is not asked.
func (e *Engine) checkRoom() error {
	err := e.cfg.Store.CheckRoom()
	if err == nil {
		return nil
	}
	if passes(err) || errors.Is(err, store.ErrStateUnknown) {
		return e.storeFailed(err)
	}
	return fmt.Errorf("nothing is ordered, because its result could not be stored: %w; check the disk", err)
}

// check decides whether what the authority sent may be deployed.
func (e *Engine) check(m *managed, from string, answer *issuer.Issued, key crypto.Signer) ([]*x509.Certificate, error) {
	var sent []*x509.Certificate
	if answer != nil {
		sent = answer.Chain
	}
	chain, err := pki.CheckIssued(sent, key.Public(), m.Names, e.now())
	if err == nil {
		err = checkRecordable(chain[0])
	}
	if err != nil {
		return nil, fmt.Errorf("issuer %s sent a certificate that cannot be used and was not deployed: %w; look at the authority, and at this host's clock if it says expired", from, err)
	}
	return chain, nil
}

// maxSerial is how many octets a serial number may have (RFC 5280, section
// 4.1.2.2).
const maxSerial = 20

// checkRecordable refuses what could not be stored or reported once it is in
// service: a row that the coordinator does not take holds up all that follow.
func checkRecordable(leaf *x509.Certificate) error {
	if n := len(leaf.SerialNumber.Bytes()); n > maxSerial {
		return fmt.Errorf("its serial number has %d octets; at most %d are allowed", n, maxSerial)
	}
	if !storable(leaf.NotBefore, leaf.NotAfter) {
		return errors.New("its validity is outside the years 1 to 9999")
	}
	return nil
}

// failOrder stores a failure on the way to a certificate.
func (e *Engine) failOrder(m *managed, seen *store.Certificate, fail failure) error {
	u, now := e.draw(), e.now()
	if err := e.withdraw(m, fail, now); err != nil {
		return err
	}
	from := m.asked(seen).Name
	var did failed
	var next, wait string
	err := e.update(m, func(rec *store.Certificate, emit func(wire.Event)) error {
		if rec.OrderID != seen.OrderID || rec.Phase != seen.Phase && !ordering(rec, seen.OrderID) {
			return errSuperseded
		}
		did = orderFailed(rec, m, fail, now, u)
		next = m.asked(rec).Name
		if did.counted || did.left {
			detail := from + ": " + clip(fail.err.Error())
			if did.left {
				detail = fmt.Sprintf("%s is asked instead of %s: %v", next, from, fail.err)
			}
			emit(wire.Event{Kind: wire.EventFailed, Detail: clip(detail), Issuer: from, Reason: fail.reason()})
		}
		wait = rec.RetryAt.Sub(now).String()
		return nil
	})
	if err != nil {
		return unlessSuperseded(err)
	}
	if did.counted || did.left {
		e.count(from, OutcomeOrderFailed)
	}
	if fail.limited && !fail.local {
		if err := e.orderLimited(from, m.Name, fail, now); err != nil {
			return err
		}
	}
	log := e.log.With("certificate", m.Name, "issuer", from, "class", fail.class.String(), "retry_in", wait)
	switch {
	case did.left:
		log.Warn("renewal goes over to another issuer", "next_issuer", next, "err", fail.err)
	case did.counted:
		log.Warn("renewal attempt failed", "err", fail.err)
	default:
		log.Debug("order is pending", "err", fail.err)
	}
	e.discardKey(m.Name, did.dropped)
	return nil
}

// withdraw takes back what the issuer keeps of the order on this host, if the
// failure makes the renewal go over to another one: what is sent for it later
// could be a second certificate. A crash after it finds an order that is gone.
func (e *Engine) withdraw(m *managed, fail failure, now time.Time) error {
	if len(m.Issuers) < 2 || fail.local {
		return nil
	}
	rec, found, err := e.cfg.Store.Certificate(m.Name)
	if err != nil {
		return e.storeFailed(err)
	}
	if !found {
		return nil
	}
	if actFor(fail.class).counts {
		rec.IssuerAttempt++
	}
	if keeps, ok := m.asked(rec).Issuer.(issuer.Abandoner); ok && goesOver(rec, m, fail, now) {
		if err := keeps.Forget(m.Name); err != nil {
			return e.storeFailed(fmt.Errorf("withdraw the order at %s: %w", m.asked(rec).Name, err))
		}
	}
	return nil
}

// failKey stores that the key of the order cannot be read, and gives it up where waiting
// cannot help.
func (e *Engine) failKey(m *managed, rec *store.Certificate, err error) error {
	failures := e.keyFails(rec.Next.KeyID)
	if errors.Is(err, keys.ErrNotFound) || failures >= keyAttempts {
		return e.failOrder(m, rec, failure{class: issuer.ClassOrderGone, err: keyError(err), attention: true, local: true})
	}
	return e.failOrder(m, rec, failure{class: issuer.ClassConfig, err: keyError(err), local: true})
}

// keyWorks forgets the failures of a key. A restart forgets them too, which costs
// a few attempts more.
func (e *Engine) keyWorks(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.unusable, id)
}

func keyError(err error) error {
	if passes(err) {
		return &notStoredError{err}
	}
	return fmt.Errorf("private key: %w", err)
}

// abandon drops the pair under way; what follows from the idle record is decided
// anew.
func (e *Engine) abandon(m *managed, seen *store.Certificate, reason string) error {
	var keyID string
	err := e.update(m, func(rec *store.Certificate, _ func(wire.Event)) error {
		if rec.Phase != seen.Phase || rec.OrderID != seen.OrderID {
			return errSuperseded
		}
		changed := rec.Next != nil && rec.Next.ConfigDigest != m.digest
		if keyID = abandoned(rec); changed {
			wanted(rec, m)
		}
		return nil
	})
	if err != nil {
		return unlessSuperseded(err)
	}
	e.log.Warn("renewal abandoned", "certificate", m.Name, "reason", reason)
	e.discardKey(m.Name, keyID)
	return nil
}

// discardKey removes the file of a key that no record names any more. It comes
// after the transaction that dropped the name; when it fails or a crash comes
// first, sweep does it later.
func (e *Engine) discardKey(name, keyID string) {
	if keyID == "" {
		return
	}
	e.keyWorks(keyID)
	if err := e.cfg.Keys.Remove(keyID); err != nil && !errors.Is(err, keys.ErrNotFound) {
		e.log.Warn("unused key stays until the next sweep", "certificate", name, "key_id", keyID, "err", err)
	}
}

// leafOf is the certificate of a stored generation; nil if there is none or it
// cannot be read, since an order does not depend on it.
func leafOf(g *store.Generation) *x509.Certificate {
	if g == nil || g.ChainPEM == "" {
		return nil
	}
	chain, err := pki.ParseChainPEM([]byte(g.ChainPEM))
	if err != nil {
		return nil
	}
	return chain[0]
}

// unlessSuperseded drops the error of an outcome that came too late to matter.
func unlessSuperseded(err error) error {
	if errors.Is(err, errSuperseded) {
		return nil
	}
	return err
}
