package renewal

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
)

// pendingLook is how often a waiting order is looked at in a drill at least, where
// something may come of it. Its result wakes it besides.
const pendingLook = time.Hour

// orderedAt names the issuer that is asked, or would be.
func (r *rehearsal) orderedAt() string {
	if next := r.rec.Next; next != nil && next.Issuer != "" {
		return next.Issuer
	}
	return r.m.asked(r.rec).Name
}

// order asks the simulated issuer, which remembers in the order's state when the
// certificate will be ready.
func (r *rehearsal) order() error {
	name := r.orderedAt()
	iss := r.scenario.Issuers[name]
	if iss.Refuses != nil {
		refused := *iss.Refuses
		if refused.Class == issuer.ClassPending {
			refused.RetryAfter = r.pendingLook()
		}
		return r.fail(&refused)
	}
	if back := r.scenario.back(name); r.t.now.Before(back) {
		down := &issuer.Error{Class: issuer.ClassRetry, Err: errors.New(iss.Why)}
		if iss.Brokered {
			down.Class, down.RetryAfter, down.Committed = issuer.ClassPending, min(back.Sub(r.t.now), r.pendingLook()), true
		}
		return r.fail(down)
	}
	ready := r.t.now.Add(iss.Delay)
	if stored := r.rec.OrderState; len(stored) == 0 || json.Unmarshal(stored, &ready) != nil {
		// A new order, or one of the real issuer, about which nothing is known.
		isNew := stored == nil
		state, err := json.Marshal(ready)
		if err != nil {
			return fmt.Errorf("state of a simulated order: %w", err)
		}
		if err := placed(r.rec, r.rec.OrderID, state); err != nil {
			return err
		}
		if isNew {
			if err := r.t.turns.change(name, (*line).accepted); err != nil {
				return err
			}
		}
	}
	if wait := ready.Sub(r.t.now); wait > 0 {
		return r.fail(&issuer.Error{Class: issuer.ClassPending, RetryAfter: min(wait, r.pendingLook()), Committed: true, Err: errors.New("the authority is still at it")})
	}
	typical := r.typical(name)
	life := typical.lifetime
	if r.m.Lifetime > 0 {
		life = min(life, r.m.Lifetime+typical.backdate)
	}
	begin := r.t.now.Add(-typical.backdate)
	return issued(r.rec, r.rec.OrderID, store.Generation{
		ChainPEM: omitted, Serial: r.rec.OrderID, Fingerprint: r.rec.OrderID,
		NotBefore: begin, NotAfter: begin.Add(life),
	}, r.t.now)
}

// pendingLook is when to look at an order that waits: where nobody can stand in,
// nothing comes of a look before the certificate in service is late in life.
func (r *rehearsal) pendingLook() time.Duration {
	if cur := r.rec.Current; cur != nil && len(r.m.Issuers) == 1 {
		lateAt := cur.End().Add(-fraction(usable(cur), attentionPart))
		return max(lateAt.Sub(r.t.now), pendingLook)
	}
	return pendingLook
}

// typical is what the certificates of an issuer are like.
func (r *rehearsal) typical(name string) validity {
	v := r.seen[name]
	if asked := r.scenario.Issuers[name].Lifetime; asked > 0 {
		v = validity{lifetime: asked}
	}
	if v.lifetime <= v.backdate {
		v = validity{lifetime: defaultLifetime}
	}
	return v
}

func (r *rehearsal) fail(failed *issuer.Error) error {
	from, fail := r.orderedAt(), issuerFailure(failed)
	if did := orderFailed(r.rec, r.m, fail, r.t.now, r.draw()); did.counted {
		r.failed(failed.Error())
	}
	if !fail.limited {
		return nil
	}
	return r.t.turns.change(from, func(l *line) bool {
		l.refused(r.m.Name, fail.retryAfter, r.t.now)
		return true
	})
}

func (r *rehearsal) failed(why string) {
	r.lastFail = why
	r.prospect.LastError = why
	r.prospect.Failures++
	r.day().Failures++
}

// askAuthority lets the authority repeat what it said, if it can be reached. Of
// a certificate about which it said nothing it is not asked again: nothing would
// come of it but time spent.
func (r *rehearsal) askAuthority() {
	name := r.m.issuerOf(r.rec.Current)
	kept := r.rec.RenewalInfo
	// Errors leave the record's moments as they are, which is all that counts.
	switch {
	case r.scenario.away(name, r.t.now):
		_, _ = applyRenewalInfo(r.rec, nil, errors.New(r.scenario.Issuers[name].Why), r.t.now, r.draw())
		// Nothing comes of asking again before it can be reached, or ever.
		again := r.t.now.Add(maxPause)
		if back := r.scenario.back(name); r.scenario.Issuers[name].Refuses == nil && back.Before(again) {
			again = back
		}
		r.rec.RenewalInfo.CheckAgainAt = later(r.rec.RenewalInfo.CheckAgainAt, again)
	case kept.SelectedAt.IsZero():
		r.rec.RenewalInfo = nil
	default:
		info := &issuer.RenewalInfo{
			WindowStart: kept.WindowStart, WindowEnd: kept.WindowEnd, ExplanationURL: kept.ExplanationURL, RetryAfter: maxInfoPause,
		}
		_, _ = applyRenewalInfo(r.rec, info, nil, r.t.now, r.draw())
	}
}
