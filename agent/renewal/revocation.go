package renewal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

var (
	// ErrNotInService says that another certificate is in service than the one
	// that was meant: whatever was to be done about it is done.
	ErrNotInService = errors.New("no certificate with this serial number is in service")
	// ErrCannotRevoke says that this host has no way to have a certificate
	// revoked.
	ErrCannotRevoke = errors.New("this host cannot have the certificate revoked")
)

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
		return fmt.Errorf("revocation of %q: %w", name, errReloading)
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

// Revoke has the certificate in service revoked by its issuer, and then does what
// Revoked does. serial, if it is not empty, says which one is meant. A crash
// between the two leaves it to the caller to ask again, which is harmless.
//
// It returns ErrUnknown, ErrNotInService, ErrCannotRevoke where the issuer has no
// such call or is not configured any more, or the issuer's *issuer.Error.
func (e *Engine) Revoke(ctx context.Context, name, serial string, reason int) error {
	m := e.configured().managed[name]
	if m == nil {
		return fmt.Errorf("revoke %q: %w", name, ErrUnknown)
	}
	if !pki.ValidReason(reason) || reason == pki.ReasonRemoveFromCRL {
		return fmt.Errorf("revoke %q: %d is no reason to revoke of RFC 5280, section 5.3.1", name, reason)
	}
	rec, found, err := e.cfg.Store.Certificate(name)
	if err != nil {
		return fmt.Errorf("revoke %q: %w", name, err)
	}
	if !found || rec.Current == nil || serial != "" && rec.Current.Serial != serial {
		return fmt.Errorf("revoke %q: %w", name, ErrNotInService)
	}
	cur := rec.Current
	if cur.Revoked != nil {
		return nil
	}
	leaf := leafOf(cur)
	if leaf == nil {
		return fmt.Errorf("revoke %q: %w: its certificate cannot be read", name, ErrCannotRevoke)
	}
	iss, ok := m.issuerNamed(cur.Issuer)
	if !ok {
		return fmt.Errorf("revoke %q: %w: its issuer %s is not in the configuration any more; revoke it there, with another client", name, ErrCannotRevoke, cur.Issuer)
	}
	revoker, ok := iss.Issuer.(issuer.Revoker)
	if !ok {
		return fmt.Errorf("revoke %q: %w: its issuer %s (%s) takes no such request from hosts; revoke it there", name, ErrCannotRevoke, iss.Name, iss.Issuer.Kind())
	}
	key, err := e.cfg.Keys.Load(cur.KeyID)
	if err != nil {
		// The issuer may do without it.
		e.log.Warn("the key of a certificate to be revoked cannot be read", "certificate", name, "err", err)
		key = nil
	}
	_, err = guarded(ctx, e.currentPace().IssueTimeout, e.log, "issuer "+iss.Name, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, revoker.Revoke(ctx, leaf, key, reason)
	})
	if err != nil {
		return fmt.Errorf("revoke %q: %w", name, err)
	}
	e.log.Info("certificate revoked by its issuer", "certificate", name, "serial", cur.Serial, "issuer", iss.Name, "reason", pki.ReasonName(reason))
	if err := e.Revoked(name, cur.Serial, e.now(), reason); !errors.Is(err, ErrNotInService) {
		return err
	}
	return nil // it was replaced meanwhile
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
