package renewal

import (
	"fmt"
	"slices"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// A renewal begins with the first issuer of its certificate, and each renewal
// does. When that one cannot, the next of the list stands in; after the last one
// comes the first again.
//
// Two issuers are never at work for one renewal. An order of which a certificate
// may come is continued, not left, with one exception: when the certificate in
// service is about to expire, or there is none, and the authority has had its
// time. Then the key of that order is destroyed first, so that a certificate
// which was issued for it after all is of no use to anybody and never deployed. A
// key that is in service cannot be: it is spent then, the stand-in is asked with a
// new one, and it is destroyed with the pair that it is of.

const (
	// leaveAttempts is how often an issuer must have failed in a row before a
	// stand-in is asked for a certificate at risk.
	leaveAttempts = 3

	// unsettledPatience is how old an order must be at least before it may be left
	// although a certificate may come of it; less for short lifetimes, of which it
	// is unsettledPart.
	unsettledPatience = 24 * time.Hour
	unsettledPart     = 1.0 / 40
)

// atRisk reports whether the certificate in service is in the second half of
// the time from its renewal to its expiry, or there is no valid one: a revoked
// one is not valid.
func atRisk(rec *store.Certificate, now time.Time) bool {
	cur := rec.Current
	if cur == nil || ended(cur, now) {
		return true
	}
	renewAt := rec.RenewAt
	if renewAt.IsZero() || renewAt.After(cur.NotAfter) {
		renewAt = windowEnd(cur)
	}
	return now.After(renewAt.Add(cur.NotAfter.Sub(renewAt) / 2))
}

// lastResort reports whether even an order of which a certificate may come is to
// be left.
func lastResort(rec *store.Certificate, now time.Time) bool {
	cur := rec.Current
	patience := unsettledPatience
	if cur != nil {
		if cur.End().Sub(now) > fraction(usable(cur), lastPart) {
			return false
		}
		patience = min(patience, fraction(usable(cur), unsettledPart))
	}
	return !rec.OrderBegunAt.IsZero() && now.Sub(rec.OrderBegunAt) >= patience
}

// goesOver reports whether the next attempt is for the next issuer. The failure
// is counted in rec already.
func goesOver(rec *store.Certificate, m *managed, fail failure, now time.Time) bool {
	does := actFor(fail.class)
	switch {
	case len(m.Issuers) < 2 || fail.local:
		return false
	case fail.mayYetIssue(rec):
		return lastResort(rec, now)
	case does.leaves == leavesAtOnce:
		return true
	case !atRisk(rec, now):
		return false
	}
	// What is no failure, or is sure to last, needs no repetition.
	return rec.IssuerAttempt >= leaveAttempts || fail.limited || !does.counts
}

// tooLate reports whether a turn at that moment is of little use: it comes after
// half of what is left, or while nothing valid is in service after a long time.
func tooLate(rec *store.Certificate, at, now time.Time) bool {
	cur := rec.Current
	if cur == nil || ended(cur, now) {
		return at.Sub(now) > unservedPause
	}
	return at.Sub(now) > cur.End().Sub(now)/retryAfterParts
}

// decideTurn is what comes while an issuer has no turn before at. One that comes
// too late is as good as a limit of the issuer: a stand-in is asked, and where none
// has a turn either, a person.
func decideTurn(rec *store.Certificate, m *managed, f facts, at time.Time) action {
	late := tooLate(rec, at, f.now)
	asked := m.asked(rec).Name
	why := fmt.Sprintf("its turn at issuer %s comes too late, at %s", asked, stamp(at))
	if late && f.would != nil {
		for name, left := m.after(rec.OrderIssuer), len(m.Issuers)-1; left > 0; name, left = m.after(name), left-1 {
			iss, _ := m.issuerNamed(name)
			if iss.Name != asked && !tooLate(rec, f.would(iss, rec, f.now), f.now) {
				return action{step: stepGoOver, issuer: name, reason: why}
			}
		}
	}
	waiting := maintain(rec, m, f, at)
	if waiting.step == stepWait && late && rec.Current != nil && rec.NeedsAttention == "" {
		return action{step: stepNote, reason: fmt.Sprintf("%s; raise issuers.%s.limits, or give it fallback_issuers", why, asked)}
	}
	waiting.forTurn, waiting.turn = waiting.step == stepWait, at
	return waiting
}

// goOver has the next order be for another issuer, because the one that would be
// asked has no turn in time.
func (e *Engine) goOver(m *managed, seen *store.Certificate, next action) error {
	from := m.asked(seen).Name
	to, _ := m.issuerNamed(next.issuer)
	detail := fmt.Sprintf("%s is asked instead of %s: %s", to.Name, from, next.reason)
	err := e.update(m, func(rec *store.Certificate, emit func(wire.Event)) error {
		if rec.Phase != store.PhaseIdle || rec.OrderIssuer != seen.OrderIssuer {
			return errSuperseded
		}
		wentOver(rec, next.issuer)
		emit(wire.Event{Kind: wire.EventFailed, Detail: clip(detail), Issuer: from, Reason: wire.ReasonNoTurn})
		return nil
	})
	if err != nil {
		return unlessSuperseded(err)
	}
	e.turns.leaveOthers(m.Name, to.Name)
	e.log.Warn("renewal goes over to another issuer", "certificate", m.Name, "issuer", from, "next_issuer", to.Name, "reason", next.reason)
	return nil
}

// wentOver makes the next order one for another issuer of the list.
func wentOver(rec *store.Certificate, to string) { rec.OrderIssuer, rec.IssuerAttempt = to, 0 }

// after names the issuer that comes after the one of that name in the list; ""
// is the first one, which comes after the last.
func (m *managed) after(name string) string {
	at := 0 // also of a name that is not in the list any more
	if name != "" {
		at = max(slices.IndexFunc(m.Issuers, func(i NamedIssuer) bool { return i.Name == name }), 0)
	}
	if at+1 == len(m.Issuers) {
		return ""
	}
	return m.Issuers[at+1].Name
}

// asked is the issuer that the next order is for.
func (m *managed) asked(rec *store.Certificate) NamedIssuer {
	iss, ok := m.issuerNamed(rec.OrderIssuer)
	if !ok {
		return m.first()
	}
	return iss
}

// backToFirst makes the next order one for the first issuer.
func backToFirst(rec *store.Certificate) { wentOver(rec, "") }
