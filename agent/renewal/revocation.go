package renewal

import (
	"errors"
	"fmt"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// ErrNotInService says that another certificate is in service than the one that
// was meant: whatever was to be done about it is done.
var ErrNotInService = errors.New("no certificate with this serial number is in service")

// Revoked records that the certificate with that serial (lower-case hex), which
// is in service or about to be, was revoked at that time for that reason
// (CRLReason; RFC 5280, section 5.3.1). One transaction stores it, reports it and
// makes a replacement with a new key due at once. What is known already is not
// stored again. It returns ErrUnknown for a name that is not managed, and
// ErrNotInService when the serial is of neither pair.
func (e *Engine) Revoked(name, serial string, at time.Time, reason int) error {
	m := e.configured().managed[name]
	if m == nil {
		return fmt.Errorf("revocation of %q: %w", name, ErrUnknown)
	}
	if !pki.ValidReason(reason) {
		return fmt.Errorf("revocation of %q: %d is no reason of RFC 5280, section 5.3.1", name, reason)
	}
	err := e.update(m, func(rec *store.Certificate, emit func(wire.Event)) error {
		if err := revoked(rec, serial, at, reason, e.now()); err != nil {
			return err
		}
		emit(wire.Event{Kind: wire.EventRevoked, Serial: serial, Detail: "reason " + pki.ReasonName(reason)})
		return nil
	})
	switch {
	case errors.Is(err, errKnownRevoked):
		return nil
	case errors.Is(err, errSuperseded):
		return fmt.Errorf("revocation of %q: %w", name, ErrReloading)
	case err != nil:
		return fmt.Errorf("revocation of %q: %w", name, err)
	}
	e.mu.Lock()
	delete(e.blocked, name)
	e.mu.Unlock()
	e.look(name, true)
	e.log.Warn("certificate is revoked; it is replaced", "certificate", name, "serial", serial, "reason", pki.ReasonName(reason))
	return nil
}

// errKnownRevoked says that nothing is new.
var errKnownRevoked = errors.New("the certificate is known to be revoked")

// revoked records a revocation, and ends the pauses that the replacement would
// have to wait for.
func revoked(rec *store.Certificate, serial string, at time.Time, reason int, now time.Time) error {
	var g *store.Generation
	for _, known := range []*store.Generation{rec.Current, rec.Next} {
		if known != nil && known.Serial != "" && known.Serial == serial {
			g = known
		}
	}
	switch {
	case g == nil:
		return ErrNotInService
	case g.Revoked != nil:
		return errKnownRevoked
	}
	at = at.UTC()
	if at.After(now) || !storable(at) || at.Before(g.NotBefore) {
		at = now // what an authority says of the past or future ends nothing then
	}
	g.Revoked = &store.Revocation{At: at, Reason: reason}
	for _, known := range []*store.Generation{rec.Current, rec.Next} {
		if known != nil && known.KeyID == g.KeyID {
			known.KeySpent = true // whatever the reason: a CA may have refused the key with it
		}
	}
	rec.RetryAt = time.Time{}
	if rec.Phase == store.PhaseIdle {
		rec.OrderAttempt = 0
		backToFirst(rec)
	}
	for id, d := range rec.Deployments {
		d.RetryAt = time.Time{}
		rec.Deployments[id] = d
	}
	return nil
}

// markRevoked notes at each deployment whether what is in service there is known
// to be revoked: it may stay there when nothing else here remembers it.
func markRevoked(rec *store.Certificate) {
	for id, d := range rec.Deployments {
		before := d.RevokedAt
		if d.Fingerprint == "" {
			d.RevokedAt = time.Time{}
		}
		for _, g := range []*store.Generation{rec.Previous, rec.Current, rec.Next} {
			if g == nil || g.Fingerprint == "" || g.Fingerprint != d.Fingerprint {
				continue
			}
			d.RevokedAt = time.Time{}
			if g.Revoked != nil {
				d.RevokedAt = g.Revoked.At
			}
		}
		if !d.RevokedAt.Equal(before) {
			rec.Deployments[id] = d
		}
	}
}

// isRevoked reports whether the pair is known to be revoked.
func isRevoked(g *store.Generation) bool { return g != nil && g.Revoked != nil }

// ended reports whether a certificate is of no use any more: expired, or revoked.
func ended(g *store.Generation, now time.Time) bool { return expired(g, now) || isRevoked(g) }

func revokedText(r *store.Revocation) string {
	return fmt.Sprintf("revoked: the certificate in service was revoked on %s (%s) and is being replaced", stamp(r.At), pki.ReasonName(r.Reason))
}
