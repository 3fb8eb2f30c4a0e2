package renewal

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// twoPlaces is a managed certificate with the deployments a and b.
func twoPlaces(t require.TestingT, iss issuer.Issuer) *managed {
	m, err := newManaged(Managed{
		Name: "web", Names: pki.MustParseNames("web.example.com"), KeyAlgorithm: pki.ECDSAP256, Issuers: []NamedIssuer{{Name: "ca", Issuer: iss}},
		Deployments: []Deployment{{ID: "a", Target: &place{}}, {ID: "b", Target: &place{}}},
	})
	require.NoError(t, err)
	return m
}

func TestDecide(t *testing.T) {
	m := twoPlaces(t, &authority{})
	informedM := twoPlaces(t, informed{})
	cur := func() *store.Generation {
		return &store.Generation{Number: 3, KeyID: "k3", Fingerprint: "f3", ChainPEM: "x", ConfigDigest: m.digest,
			NotBefore: noon, IssuedAt: noon, NotAfter: noon.Add(90 * day)}
	}
	next := func() *store.Generation {
		g := cur()
		g.Number, g.KeyID, g.Fingerprint = 4, "k4", "f4"
		g.NotBefore, g.IssuedAt, g.NotAfter = noon.Add(60*day), noon.Add(60*day), noon.Add(150*day)
		return g
	}
	at := func(number uint64) store.Deployment {
		return store.Deployment{Outcome: wire.DeploymentVerified, Generation: number, Fingerprint: "f" + string(rune('0'+number))}
	}
	idle := func(change func(*store.Certificate)) *store.Certificate {
		rec := &store.Certificate{
			Name: "web", Phase: store.PhaseIdle, Current: cur(), RenewAt: noon.Add(60 * day),
			Deployments: map[string]store.Deployment{"a": at(3), "b": at(3)},
		}
		if change != nil {
			change(rec)
		}
		return rec
	}
	phase := func(p store.Phase, change func(*store.Certificate)) *store.Certificate {
		return idle(func(rec *store.Certificate) {
			rec.Phase, rec.Next, rec.OrderID = p, next(), "o"
			if change != nil {
				change(rec)
			}
		})
	}
	d := func(rec *store.Certificate, id string, change func(*store.Deployment)) {
		x := rec.Deployments[id]
		change(&x)
		rec.Deployments[id] = x
	}
	verifyAt := noon.Add(1000 * day)
	now, early := noon.Add(61*day), noon.Add(day)
	soon := now.Add(time.Hour)
	for name, c := range map[string]struct {
		m     *managed
		rec   *store.Certificate
		now   time.Time
		facts facts
		want  step
		until time.Time
		ids   []string
	}{
		"nothing there yet":             {rec: &store.Certificate{Phase: store.PhaseIdle}, want: stepBegin},
		"nothing there yet, in a pause": {rec: &store.Certificate{Phase: store.PhaseIdle, RetryAt: soon}, want: stepWait, until: soon},
		"waits for its renewal":         {rec: idle(nil), now: early, want: stepWait, until: noon.Add(60 * day)},
		"its renewal time has come":     {rec: idle(nil), want: stepBegin},
		"in a pause":                    {rec: idle(func(r *store.Certificate) { r.RetryAt = soon }), want: stepWait, until: soon},
		"forced":                        {rec: idle(func(r *store.Certificate) { r.Forced = true }), now: early, want: stepBegin},
		"revoked":                       {rec: idle(func(r *store.Certificate) { r.Current.Revoked = &store.Revocation{At: noon} }), now: early, want: stepBegin},
		"revoked, in a pause": {
			rec: idle(func(r *store.Certificate) {
				r.Current.Revoked = &store.Revocation{At: noon}
				r.RetryAt, r.NeedsAttention = early.Add(time.Minute), "said"
			}), now: early, want: stepWait, until: early.Add(time.Minute)},
		"revoked, its authority is not asked about it": {
			m: informedM, rec: idle(func(r *store.Certificate) {
				r.RenewalInfo = &store.RenewalInfo{CheckAgainAt: early}
				r.Current.Revoked = &store.Revocation{At: noon}
			}), now: early, want: stepBegin},
		"configuration changed": {rec: idle(func(r *store.Certificate) { r.Current.ConfigDigest = "other" }), now: early, want: stepBegin},
		"an impossible pause":   {rec: idle(func(r *store.Certificate) { r.RetryAt = now.Add(300 * day) }), want: stepBegin},
		"verification due":      {rec: idle(nil), now: early, facts: facts{verifyAt: early}, want: stepVerify},
		"verification comes first in time": {
			rec: idle(nil), now: early, facts: facts{verifyAt: early.Add(time.Hour)}, want: stepWait, until: early.Add(time.Hour)},
		"renewal before verification": {rec: idle(nil), facts: facts{verifyAt: early}, want: stepBegin},
		"new deployment": {
			rec: idle(func(r *store.Certificate) { delete(r.Deployments, "b") }), now: early, want: stepRepair, ids: []string{"b"}},
		"failed deployment in its pause": {
			rec: idle(func(r *store.Certificate) {
				d(r, "b", func(x *store.Deployment) { x.Outcome, x.RetryAt = wire.DeploymentFailed, early.Add(time.Minute) })
			}), now: early, want: stepWait, until: early.Add(time.Minute)},
		"a newer pair that was abandoned stays": {
			rec: idle(func(r *store.Certificate) { r.Deployments["b"] = at(4) }), now: early, want: stepWait, until: noon.Add(60 * day)},
		"a newer pair that was abandoned and revoked goes": {
			rec: idle(func(r *store.Certificate) {
				r.Deployments["b"] = at(4)
				d(r, "b", func(x *store.Deployment) { x.RevokedAt = early })
			}), now: early, want: stepRepair, ids: []string{"b"}},
		"no repair with an expired certificate": {
			rec: idle(func(r *store.Certificate) {
				delete(r.Deployments, "b")
				r.RetryAt, r.NeedsAttention = noon.Add(91*day), "said"
			}), now: noon.Add(90 * day), want: stepWait, until: noon.Add(91 * day)},
		"expiry is noted": {
			rec: idle(func(r *store.Certificate) { r.RetryAt = noon.Add(91 * day) }), now: noon.Add(90 * day), want: stepNote},
		"expiry is looked at": {
			rec: idle(func(r *store.Certificate) { r.RetryAt = noon.Add(91 * day) }), now: noon.Add(89*day + 12*time.Hour), want: stepWait, until: noon.Add(90 * day)},
		"interrupted transaction before a renewal": {
			rec: idle(func(r *store.Certificate) {
				d(r, "a", func(x *store.Deployment) { x.State, x.Outcome = []byte("{}"), wire.DeploymentPending })
			}), want: stepRepair, ids: []string{"a"}},
		"interrupted transaction before an order": {
			rec: phase(store.PhaseOrderPlaced, func(r *store.Certificate) {
				d(r, "a", func(x *store.Deployment) { x.State, x.Outcome = []byte("{}"), wire.DeploymentPending })
			}), want: stepRepair, ids: []string{"a"}},
		"asks the authority": {
			m: informedM, rec: idle(func(r *store.Certificate) { r.RenewalInfo = &store.RenewalInfo{CheckAgainAt: early} }), now: early, want: stepAskAuthority},
		"will ask the authority": {
			m: informedM, rec: idle(func(r *store.Certificate) { r.RenewalInfo = &store.RenewalInfo{CheckAgainAt: early.Add(time.Hour)} }),
			now: early, want: stepWait, until: early.Add(time.Hour)},
		"asks no authority that was replaced": {
			m: informedM, rec: idle(func(r *store.Certificate) {
				r.RenewalInfo = &store.RenewalInfo{CheckAgainAt: early}
				r.Current.ConfigDigest = "other"
			}), now: early, want: stepBegin},
		"key written":              {rec: phase(store.PhaseKeyWritten, nil), want: stepOrder},
		"order placed, in a pause": {rec: phase(store.PhaseOrderPlaced, func(r *store.Certificate) { r.RetryAt = soon }), want: stepWait, until: soon},
		"order placed, woken":      {rec: phase(store.PhaseOrderPlaced, func(r *store.Certificate) { r.RetryAt = soon }), facts: facts{woken: true}, want: stepOrder},
		"order for old settings":   {rec: phase(store.PhaseOrderPlaced, func(r *store.Certificate) { r.Next.ConfigDigest = "other" }), want: stepAbandon},
		"repair while CA is away":  {rec: phase(store.PhaseOrderPlaced, func(r *store.Certificate) { r.RetryAt = soon; delete(r.Deployments, "a") }), want: stepRepair, ids: []string{"a"}},
		"issued":                   {rec: phase(store.PhaseIssued, nil), want: stepDeployNext, ids: []string{"a", "b"}},
		"issued, one is done":      {rec: phase(store.PhaseIssued, func(r *store.Certificate) { r.Deployments["a"] = at(4) }), want: stepDeployNext, ids: []string{"b"}},
		"issued, the other waits": {
			rec: phase(store.PhaseIssued, func(r *store.Certificate) {
				r.Deployments["a"] = at(4)
				r.Deployments["b"] = store.Deployment{Generation: 4, Outcome: wire.DeploymentFailed, RetryAt: soon}
			}), want: stepWait, until: soon},
		"issued, all done": {
			rec: phase(store.PhaseIssued, func(r *store.Certificate) { r.Deployments["a"], r.Deployments["b"] = at(4), at(4) }), want: stepFinish},
		"issued, all done late": {
			rec: phase(store.PhaseIssued, func(r *store.Certificate) { r.Deployments["a"], r.Deployments["b"] = at(4), at(4) }),
			now: noon.Add(200 * day), want: stepFinish},
		"issued, too old": {rec: phase(store.PhaseIssued, nil), now: noon.Add(140 * day), want: stepAbandon},
		"issued, too old, half-way at a target": {
			rec: phase(store.PhaseIssued, func(r *store.Certificate) {
				r.Deployments["b"] = store.Deployment{Generation: 4, State: []byte("{}")}
			}), now: noon.Add(140 * day), want: stepDeployNext, ids: []string{"b"}},
		"issued, settings changed": {rec: phase(store.PhaseIssued, func(r *store.Certificate) { r.Next.ConfigDigest = "other" }), want: stepAbandon},
		"issued, revoked":          {rec: phase(store.PhaseIssued, func(r *store.Certificate) { r.Next.Revoked = &store.Revocation{At: noon} }), want: stepAbandon},
		"issued, revoked, half-way at a target": {
			rec: phase(store.PhaseIssued, func(r *store.Certificate) {
				r.Next.Revoked = &store.Revocation{At: noon}
				r.Deployments["b"] = store.Deployment{Generation: 4, State: []byte("{}")}
			}), want: stepDeployNext, ids: []string{"b"}},
		"issued, key unreadable":  {rec: phase(store.PhaseIssued, func(r *store.Certificate) { r.RetryAt = soon }), want: stepWait, until: soon},
		"deployed":                {rec: phase(store.PhaseDeployed, nil), want: stepRetire},
		"key written without key": {rec: phase(store.PhaseKeyWritten, func(r *store.Certificate) { r.Next = nil }), want: stepAbandon},
		"issued without chain":    {rec: phase(store.PhaseIssued, func(r *store.Certificate) { r.Next.ChainPEM = "" }), want: stepAbandon},
		"deployed without pair":   {rec: phase(store.PhaseDeployed, func(r *store.Certificate) { r.Current = nil }), want: stepAbandon},
		"unknown phase":           {rec: phase("verifying", nil), want: stepAbandon},
	} {
		t.Run(name, func(t *testing.T) {
			if c.m == nil {
				c.m = m
			}
			if c.now.IsZero() {
				c.now = now
			}
			if c.facts.verifyAt.IsZero() {
				c.facts.verifyAt = verifyAt
			}
			c.facts.now = c.now
			got := decide(c.rec, c.m, c.facts)
			require.Equal(t, c.want.String(), got.step.String())
			assert.Equal(t, c.until, got.until)
			assert.Equal(t, c.ids, got.ids)
		})
	}
}

// Whatever happens, asking again ends in waiting, for a moment that lies ahead,
// and the stored schedule says the same.
func TestDecidingAndDoingEndsInWaiting(t *testing.T) {
	root := newAuthority(t, func() time.Time { return noon })
	rapid.Check(t, func(t *rapid.T) {
		var iss issuer.Issuer = root
		if rapid.Bool().Draw(t, "informed") {
			iss = informed{authority: root}
		}
		m := twoPlaces(t, iss)
		m.ReuseKey = rapid.Bool().Draw(t, "reuse")
		life := time.Duration(rapid.Int64Range(int64(30*time.Second), int64(90*day)).Draw(t, "life"))
		rec := &store.Certificate{Name: "web", Phase: store.PhaseIdle}
		w := simulation{t: t, m: m, rec: rec, life: life, now: noon, serial: 0}
		for range rapid.IntRange(1, 15).Draw(t, "visits") {
			w.visit(rapid.Bool().Draw(t, "woken"))
			switch rapid.IntRange(0, 10).Draw(t, "then") {
			case 0:
				w.now = w.now.Add(-time.Duration(rapid.Int64Range(0, int64(400*day)).Draw(t, "back")))
			case 1:
				w.now = w.now.Add(life * 2)
			case 2:
				rec.Forced = rec.Phase == store.PhaseIdle || reuses(rec)
			case 3:
				changed := *m
				changed.digest = rapid.StringMatching("[a-z]{3}").Draw(t, "digest")
				w.m = &changed
			case 4:
				delete(rec.Deployments, "a")
			case 5:
				w.verifyAt = w.now
			case 6:
				for _, g := range []*store.Generation{rec.Current, rec.Next} {
					if g != nil && g.Serial != "" && rapid.Bool().Draw(t, "revoked") {
						require.NoError(t, revoked(rec, g.Serial, w.now, 1, w.now))
					}
				}
			default:
				w.now = w.rec.NextAction
			}
		}
	})
}

// simulation does what the engine does, in memory, with random outcomes.
type simulation struct {
	t        *rapid.T
	m        *managed
	rec      *store.Certificate
	life     time.Duration
	now      time.Time
	verifyAt time.Time
	serial   uint64
}

func (s *simulation) visit(woken bool) {
	for range maxSteps {
		f := facts{now: s.now, verifyAt: s.verifyAt, woken: woken}
		woken = false
		a := decide(s.rec, s.m, f)
		if a.step == stepWait {
			settle(s.rec, s.m, f)
			if !a.until.After(s.now) {
				s.t.Fatalf("waits until %v, which is past %v: %+v", a.until, s.now, s.rec)
			}
			if !s.rec.NextAction.Equal(a.until) {
				s.t.Fatalf("schedule says %v, decide says %v", s.rec.NextAction, a.until)
			}
			if len(s.rec.LastError) == 0 && s.rec.Attempt > 0 {
				s.t.Fatal("failed attempts and no error")
			}
			if expired(s.rec.Current, s.now) && s.rec.NeedsAttention == "" {
				s.t.Fatal("expired and nobody is told")
			}
			return
		}
		s.do(a)
		settle(s.rec, s.m, facts{now: s.now, verifyAt: s.verifyAt})
	}
	s.t.Fatalf("does not end: %+v", s.rec)
}

func (s *simulation) do(a action) {
	u := rapid.Float64Range(0, 0.999).Draw(s.t, "u")
	broken := errors.New("broken")
	switch a.step {
	case stepBegin:
		s.serial++
		key := fmt.Sprintf("key %d", s.serial)
		if mayReuse(s.rec, s.m) {
			key = s.rec.Current.KeyID
		}
		if err := begun(s.rec, s.m, key, string(rune('a'+s.serial%20)), s.now); err != nil {
			s.t.Fatal(err)
		}
	case stepOrder:
		class := issuer.Class(rapid.IntRange(-2, 6).Draw(s.t, "class"))
		if class >= 0 {
			did := orderFailed(s.rec, s.m, failure{
				class: class, err: broken, retryAfter: time.Duration(u * float64(day)),
				mayIssue: rapid.Bool().Draw(s.t, "may issue"), keyRefused: rapid.Bool().Draw(s.t, "key refused"),
			}, s.now, u)
			if did.dropped != "" && named(did.dropped, s.rec.Current, s.rec.Previous) {
				s.t.Fatalf("the key in service is dropped with an order: %+v", s.rec)
			}
			return
		}
		next := s.rec.Next
		next.ChainPEM, next.Fingerprint = "chain", string(rune('A'+s.serial%20))
		next.NotBefore, next.IssuedAt, next.NotAfter = s.now.Add(-time.Hour), s.now, s.now.Add(s.life)
		s.rec.Phase, s.rec.OrderAttempt, s.rec.RetryAt = store.PhaseIssued, 0, time.Time{}
	case stepAbandon:
		if id := abandoned(s.rec); named(id, s.rec.Current, s.rec.Previous) {
			s.t.Fatalf("the key in service is dropped with an order: %+v", s.rec)
		}
	case stepDeployNext, stepRepair:
		g := s.rec.Next
		if a.step == stepRepair {
			g = s.rec.Current
		}
		for _, id := range a.ids {
			if rapid.Bool().Draw(s.t, "saves") {
				if err := deploymentSaved(s.rec, id, g, []byte("{}")); err != nil {
					s.t.Fatal(err)
				}
			}
			var err error
			switch rapid.IntRange(0, 3).Draw(s.t, "outcome") {
			case 0:
				err = deploymentFailed(s.rec, id, g, &deploy.Error{Stage: deploy.StageReload, RolledBack: true, Err: broken}, s.now, u)
			case 1:
				err = deploymentFailed(s.rec, id, g, broken, s.now, u)
			default:
				err = deploymentDone(s.rec, id, g, &deploy.Report{Verified: u < 0.5}, s.now)
			}
			if err != nil {
				s.t.Fatal(err)
			}
		}
	case stepFinish:
		start, end := lifetime(s.rec.Next)
		if err := finished(s.rec, s.rec.Next, drawRenewAt(start, end, u), firstInfoCheck(s.rec.Next, s.now, u)); err != nil {
			s.t.Fatal(err)
		}
		s.verifyAt = s.now.Add(day)
	case stepRetire:
		retired(s.rec)
	case stepAskAuthority:
		info := &issuer.RenewalInfo{WindowStart: s.now.Add(-time.Hour), WindowEnd: s.now.Add(fraction(s.life, u))}
		if _, err := applyRenewalInfo(s.rec, info, nil, s.now, u); err != nil {
			s.t.Fatal(err)
		}
	case stepVerify:
		s.verifyAt = s.now.Add(day)
		for _, id := range []string{"a", "b"} {
			if serves(s.rec.Deployments[id], s.rec.Current) && rapid.Bool().Draw(s.t, "gone") {
				if err := notServed(s.rec, id, s.rec.Current, broken, s.now); err != nil {
					s.t.Fatal(err)
				}
			}
		}
	}
}
