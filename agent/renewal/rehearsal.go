package renewal

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// rehearsalTick is the least that passes between two visits, like a tick of
	// the engine.
	rehearsalTick = time.Second
	// pendingLook is how often a waiting order is looked at in a drill. Its
	// result wakes it besides.
	pendingLook = time.Hour
)

var errRefuses = errors.New("its deployment fails at the beginning of the drill, and goes on failing")

// rehearsal is one certificate of a drill, with a clock of its own.
type rehearsal struct {
	m   *managed
	rec *store.Certificate
	// probed and refuses are by the id of the deployment.
	probed, refuses map[string]bool

	scenario *Scenario
	seen     map[string]validity // by issuer
	draw     func() float64
	up, end  time.Time // of the host being on, and of the drill
	now      time.Time
	keys     int
	lastFail string

	prospect Prospect
	days     map[int]*Day // by number from the beginning
}

func newRehearsal(s *Subject, scenario *Scenario, seen map[string]validity) *rehearsal {
	r := &rehearsal{
		m: s.managed(), rec: s.record(), probed: make(map[string]bool), refuses: make(map[string]bool),
		scenario: scenario, seen: seen, draw: scenario.drawsFor(s.Record.Name),
		up: scenario.From.Add(scenario.HostDown), end: scenario.From.Add(scenario.Span),
		days: make(map[int]*Day),
	}
	for _, p := range s.Places {
		r.probed[p.ID] = p.Probed
		d := r.rec.Deployments[p.ID]
		r.refuses[p.ID] = d.Attempt > 0 && (d.Outcome == wire.DeploymentFailed || d.Outcome == wire.DeploymentBroken)
	}
	r.prospect = Prospect{Name: s.Record.Name, Issuer: r.m.first().Name, SafeUntil: r.rec.Horizon(), UnservedNow: r.unserved()}
	return r
}

// run visits the certificate whenever the schedule says so.
func (r *rehearsal) run() error {
	for r.now = r.up; r.now.Before(r.end); {
		if err := untilWaiting(r.step); err != nil {
			return fmt.Errorf("certificate %q at %s: %w", r.prospect.Name, stamp(r.now), err)
		}
		if r.rec.NeedsAttention != "" && r.prospect.AttentionAt.IsZero() {
			r.prospect.AttentionAt, r.prospect.Attention = r.now, r.rec.NeedsAttention
			r.day().Attention++
		}
		next := r.rec.NextAction
		if earliest := r.now.Add(rehearsalTick); next.Before(earliest) {
			next = earliest
		}
		r.serve(next)
		r.now = next
	}
	r.prospect.Unserved = r.unserved()
	return nil
}

// serve lets time pass with what is in service now.
func (r *rehearsal) serve(until time.Time) {
	if until.After(r.end) {
		until = r.end
	}
	expiry, _ := r.rec.Served()
	if expiry.IsZero() || !expiry.Before(until) {
		return
	}
	if expiry.Before(r.now) {
		expiry = r.now
	}
	if r.prospect.ExpiredAt.IsZero() {
		r.prospect.ExpiredAt, r.prospect.Why = expiry, r.reason()
		r.dayOf(expiry).Expired++
	}
	r.prospect.ExpiredFor += until.Sub(expiry).Seconds()
}

// reason says why an expired certificate is served now.
func (r *rehearsal) reason() string {
	var places []string
	for _, d := range r.m.Deployments {
		if r.refuses[d.ID] {
			places = append(places, d.ID)
		}
	}
	name := r.orderedAt()
	if isRevoked(r.rec.Current) && len(places) == 0 && !r.scenario.away(name, r.now) {
		return "it is revoked, and not replaced yet"
	}
	switch back := r.scenario.back(name); {
	case len(places) > 0:
		return "the deployment " + strings.Join(places, ", ") + " fails now and keeps an older certificate"
	case r.scenario.Issuers[name].Refuses != nil:
		return fmt.Sprintf("its issuer %s issues nothing to this host: %s", name, r.scenario.Issuers[name].Refuses)
	case r.now.Before(back):
		return fmt.Sprintf("its issuer %s cannot be reached until %s: %s", name, stamp(back), r.scenario.Issuers[name].Why)
	case r.prospect.Renewals == 0 && r.up.After(r.scenario.From):
		return "the host is off until " + stamp(r.up)
	case r.scenario.Issuers[name].Delay > 0:
		return fmt.Sprintf("its issuer %s takes %s to issue", name, r.scenario.Issuers[name].Delay)
	}
	return "its renewal comes too late: " + r.lastFail
}

func (r *rehearsal) unserved() string {
	var places []string
	for _, d := range r.m.Deployments {
		if r.rec.Deployments[d.ID].Fingerprint == "" {
			places = append(places, d.ID)
		}
	}
	if len(r.m.Deployments) == 0 && r.rec.Current == nil {
		return "no certificate"
	}
	return strings.Join(places, ", ")
}

func (r *rehearsal) day() *Day { return r.dayOf(r.now) }

func (r *rehearsal) dayOf(at time.Time) *Day {
	first := r.scenario.From.Truncate(24 * time.Hour)
	number := int(at.Sub(first) / (24 * time.Hour))
	if r.days[number] == nil {
		r.days[number] = new(Day)
	}
	return r.days[number]
}

func (r *rehearsal) facts() facts { return facts{now: r.now, verifyAt: r.end} }

// step is one step of a visit: what the engine decides, with simulated effects,
// and what follows from it in the record.
func (r *rehearsal) step() (waits bool, err error) {
	next := decide(r.rec, r.m, r.facts())
	err = r.do(next)
	settle(r.rec, r.m, r.facts())
	return next.step == stepWait, err
}

func (r *rehearsal) do(next action) error {
	switch next.step {
	case stepWait, stepNote:
		return nil // settling is all
	case stepBegin:
		r.keys++
		id := "drill-" + strconv.Itoa(r.keys)
		return begun(r.rec, r.m, id, id, r.now)
	case stepOrder:
		return r.order()
	case stepAbandon:
		abandoned(r.rec)
		return nil
	case stepDeployNext:
		return r.deploy(r.rec.Next, next.ids)
	case stepRepair:
		return r.deploy(r.rec.Current, next.ids)
	case stepFinish:
		if r.prospect.RenewedAt.IsZero() {
			r.prospect.RenewedAt = r.now
		}
		r.prospect.Renewals++
		r.day().Renewed++
		g := r.rec.Next
		renewAt, checkAt := moments(g, r.now, r.draw(), r.draw())
		return finished(r.rec, g, renewAt, checkAt)
	case stepGoOver:
		wentOver(r.rec, next.issuer)
		return nil
	case stepRetire:
		retired(r.rec)
		return nil
	case stepAskAuthority:
		r.askAuthority()
		return nil
	case stepVerify:
		return nil // every program goes on serving what it was given
	}
	return fmt.Errorf("a drill does not know the step %q; this is a bug, report it", next.step)
}

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
			refused.RetryAfter = pendingLook
		}
		r.fail(&refused)
		return nil
	}
	if back := r.scenario.back(name); r.now.Before(back) {
		down := &issuer.Error{Class: issuer.ClassRetry, Err: errors.New(iss.Why)}
		if iss.Brokered {
			down.Class, down.RetryAfter, down.Committed = issuer.ClassPending, min(back.Sub(r.now), pendingLook), true
		}
		r.fail(down)
		return nil
	}
	ready := r.now.Add(iss.Delay)
	if stored := r.rec.OrderState; len(stored) == 0 || json.Unmarshal(stored, &ready) != nil {
		// A new order, or one of the real issuer, about which nothing is known.
		state, err := json.Marshal(ready)
		if err != nil {
			return fmt.Errorf("state of a simulated order: %w", err)
		}
		if err := placed(r.rec, r.rec.OrderID, state); err != nil {
			return err
		}
	}
	if wait := ready.Sub(r.now); wait > 0 {
		r.fail(&issuer.Error{Class: issuer.ClassPending, RetryAfter: min(wait, pendingLook), Committed: true, Err: errors.New("the authority is still at it")})
		return nil
	}
	typical := r.typical(name)
	life := typical.lifetime
	if r.m.Lifetime > 0 {
		life = min(life, r.m.Lifetime+typical.backdate)
	}
	begin := r.now.Add(-typical.backdate)
	return issued(r.rec, r.rec.OrderID, store.Generation{
		ChainPEM: omitted, Serial: r.rec.OrderID, Fingerprint: r.rec.OrderID,
		NotBefore: begin, NotAfter: begin.Add(life),
	}, r.now)
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

func (r *rehearsal) fail(failed *issuer.Error) {
	if did := orderFailed(r.rec, r.m, issuerFailure(failed), r.now, r.draw()); did.counted {
		r.failed(failed.Error())
	}
}

func (r *rehearsal) failed(why string) {
	r.lastFail = why
	r.prospect.LastError = why
	r.prospect.Failures++
	r.day().Failures++
}

// deploy puts a pair into service where that does not fail already.
func (r *rehearsal) deploy(g *store.Generation, ids []string) error {
	for _, id := range ids {
		if r.refuses[id] {
			if err := deploymentFailed(r.rec, id, g, errRefuses, r.now, r.draw()); err != nil {
				return err
			}
			r.failed("deployment " + id + ": " + errRefuses.Error())
			continue
		}
		if err := deploymentDone(r.rec, id, g, &deploy.Report{Changed: true, Verified: r.probed[id]}, r.now); err != nil {
			return err
		}
	}
	return nil
}

// askAuthority lets the authority repeat what it said, if it can be reached. Of
// a certificate about which it said nothing it is not asked again: nothing would
// come of it but time spent.
func (r *rehearsal) askAuthority() {
	name := r.m.issuerOf(r.rec.Current)
	kept := r.rec.RenewalInfo
	// Errors leave the record's moments as they are, which is all that counts.
	switch {
	case r.scenario.away(name, r.now):
		_, _ = applyRenewalInfo(r.rec, nil, errors.New(r.scenario.Issuers[name].Why), r.now, r.draw())
	case kept.SelectedAt.IsZero():
		r.rec.RenewalInfo = nil
	default:
		info := &issuer.RenewalInfo{
			WindowStart: kept.WindowStart, WindowEnd: kept.WindowEnd, ExplanationURL: kept.ExplanationURL, RetryAfter: maxInfoPause,
		}
		_, _ = applyRenewalInfo(r.rec, info, nil, r.now, r.draw())
	}
}
