package renewal

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// rehearsalTick is the least that passes between two visits, like a tick of the
// engine.
const rehearsalTick = time.Second

var errRefuses = errors.New("its deployment fails at the beginning of the drill, and goes on failing")

// rehearsal is one certificate of a drill.
type rehearsal struct {
	m   *managed
	rec *store.Certificate
	// probed and refuses are by the id of the deployment.
	probed, refuses map[string]bool

	t        *timeline
	scenario *Scenario
	seen     map[string]validity // by issuer
	draw     func() float64
	up       time.Time // when the host is on
	keys     int
	lastFail string

	// at is when it is due, or when the call ends that is under way (calling);
	// place is that in the schedule, below zero while it is not there.
	at      time.Time
	place   int
	calling bool
	// dueAt is since when it waits for a slot, zero if it does not; forTurn says
	// that it waits for a turn, and waited for what a call had to wait before.
	dueAt   time.Time
	forTurn bool
	waited  string
	passed  time.Time // until when it was noted what is served
	// expiry is that of what is served, unless the record was changed since.
	expiry  time.Time
	changed bool

	prospect Prospect
	days     map[int]*Day // by number from the beginning
}

func newRehearsal(s *Subject, scenario *Scenario, seen map[string]validity, t *timeline) *rehearsal {
	r := &rehearsal{
		m: s.managed(), rec: s.record(), probed: make(map[string]bool), refuses: make(map[string]bool),
		t: t, scenario: scenario, seen: seen, draw: scenario.drawsFor(s.Record.Name),
		up: t.now, passed: t.now, changed: true, place: -1, days: make(map[int]*Day),
	}
	for _, p := range s.Places {
		r.probed[p.ID] = p.Probed
		d := r.rec.Deployments[p.ID]
		r.refuses[p.ID] = d.Attempt > 0 && (d.Outcome == wire.DeploymentFailed || d.Outcome == wire.DeploymentBroken)
	}
	r.prospect = Prospect{Name: s.Record.Name, Issuer: r.m.first().Name, SafeUntil: r.rec.Horizon(), UnservedNow: r.unserved()}
	return r
}

func (r *rehearsal) noteAttention() {
	if r.rec.NeedsAttention != "" && r.prospect.AttentionAt.IsZero() {
		r.prospect.AttentionAt, r.prospect.Attention = r.t.now, r.rec.NeedsAttention
		r.day().Attention++
	}
}

// pass lets time pass with what is in service now.
func (r *rehearsal) pass(until time.Time) {
	if until.After(r.t.end) {
		until = r.t.end
	}
	from := r.passed
	if !from.Before(until) {
		return
	}
	r.passed = until
	if r.changed {
		r.changed = false
		r.expiry, _ = r.rec.Served()
	}
	expiry := r.expiry
	if expiry.IsZero() || !expiry.Before(until) {
		return
	}
	if r.prospect.ExpiredAt.IsZero() {
		r.prospect.Why, r.prospect.Wants = r.reason(expiry)
		if r.prospect.Wants != "" && r.t.stopAt != nil && r.t.stopAt(r.prospect.Wants) {
			r.t.stop = true
		}
		r.prospect.ExpiredAt = later(expiry, from)
		r.dayOf(r.prospect.ExpiredAt).Expired++
	}
	r.prospect.ExpiredFor += until.Sub(later(expiry, from)).Seconds()
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// reason says why a certificate is served that has expired at that moment, and
// which limit it waited for, "" if for none.
func (r *rehearsal) reason(at time.Time) (why, wants string) {
	var places []string
	for _, d := range r.m.Deployments {
		if r.refuses[d.ID] {
			places = append(places, d.ID)
		}
	}
	name := r.orderedAt()
	wants = r.wants(at)
	if isRevoked(r.rec.Current) && len(places) == 0 && !r.scenario.away(name, at) {
		return "it is revoked, and not replaced yet", ""
	}
	switch back := r.scenario.back(name); {
	case len(places) > 0:
		return "the deployment " + strings.Join(places, ", ") + " fails now and keeps an older certificate", ""
	case r.scenario.Issuers[name].Refuses != nil:
		return fmt.Sprintf("its issuer %s issues nothing to this host: %s", name, r.scenario.Issuers[name].Refuses), ""
	case at.Before(back):
		return fmt.Sprintf("its issuer %s cannot be reached until %s: %s", name, stamp(back), r.scenario.Issuers[name].Why), ""
	case wants != "":
		return fmt.Sprintf("it waits while others are renewed, and its turn comes too late: %s is %d", wants, r.t.capacity.of(wants)), wants
	case r.prospect.Renewals == 0 && r.up.After(r.scenario.From):
		return "the host is off until " + stamp(r.up), ""
	case r.t.turns.pausedAt(name, at):
		return fmt.Sprintf("its issuer %s has said that it takes nothing new", name), ""
	case r.scenario.Issuers[name].Delay > 0:
		return fmt.Sprintf("its issuer %s takes %s to issue", name, r.scenario.Issuers[name].Delay), ""
	}
	return "its renewal comes too late: " + r.lastFail, ""
}

// wants is the limit for which it waits at that moment, although its issuer could
// be reached; "" if it is none, or if no limit could have helped.
func (r *rehearsal) wants(at time.Time) string {
	name := r.orderedAt()
	switch {
	case !at.After(r.up):
		return "" // it had expired when the host came back
	case !r.dueAt.IsZero() && !at.Before(r.dueAt):
		return r.slotLimit()
	case r.calling:
		return r.waited
	case r.forTurn && !r.t.turns.pausedAt(name, at):
		return ordersLimit(name)
	}
	return ""
}

// slotLimit is what bounds how many certificates are worked on with this one.
func (r *rehearsal) slotLimit() string {
	first := r.m.first()
	if own := first.Limits.Concurrency; own > 0 && own <= r.t.capacity.concurrency {
		return concurrencyLimit(first.Name)
	}
	return hostConcurrency
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

func (r *rehearsal) day() *Day { return r.dayOf(r.t.now) }

func (r *rehearsal) dayOf(at time.Time) *Day {
	first := r.scenario.From.Truncate(24 * time.Hour)
	number := int(at.Sub(first) / (24 * time.Hour))
	if r.days[number] == nil {
		r.days[number] = new(Day)
	}
	return r.days[number]
}

func (r *rehearsal) facts() facts {
	return facts{now: r.t.now, verifyAt: r.t.end, turn: r.t.turns.at, would: r.t.turns.would}
}

// step is one step of a visit: what the engine decides, with simulated effects,
// and what follows from it in the record.
func (r *rehearsal) step() (waits bool, err error) {
	next := decide(r.rec, r.m, r.facts())
	r.noteWait(next)
	if next.step == stepWait {
		if !next.forTurn {
			r.t.turns.leave(r.m.Name)
		}
		if !r.rec.NextAction.Equal(next.until) {
			settle(r.rec, r.m, r.facts())
		}
		return true, nil
	}
	if next.step == stepOrder {
		if takes := r.scenario.Issuers[r.orderedAt()].Takes; takes > 0 {
			r.calling, r.at = true, r.t.now.Add(takes)
			return true, nil // it goes on when that has passed
		}
	}
	r.changed = true
	err = r.do(next)
	settle(r.rec, r.m, r.facts())
	return false, err
}

// noteWait keeps what the certificate waits for, or had to wait for before its
// call of an issuer.
func (r *rehearsal) noteWait(next action) {
	r.forTurn = next.forTurn
	switch {
	case next.forTurn:
		r.waited = ordersLimit(r.orderedAt())
	case !r.dueAt.IsZero() && r.dueAt.Before(r.t.now) && r.waited == "":
		r.waited = r.slotLimit()
	case next.step == stepFinish:
		r.waited = ""
	}
}

// conclude ends the call of an issuer, and goes on with what follows from it.
func (r *rehearsal) conclude() error {
	r.calling, r.changed = false, true
	err := r.order()
	settle(r.rec, r.m, r.facts())
	if err != nil {
		return err
	}
	return untilWaiting(r.step)
}

func (r *rehearsal) do(next action) error {
	switch next.step {
	case stepWait, stepNote:
		return nil // settling is all
	case stepBegin:
		if ok, err := r.t.turns.take(r.m.asked(r.rec), r.rec, r.t.now); !ok || err != nil {
			return err
		}
		r.keys++
		id := "drill-" + strconv.Itoa(r.keys)
		return begun(r.rec, r.m, id, id, r.t.now)
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
			r.prospect.RenewedAt = r.t.now
		}
		r.prospect.Renewals++
		r.day().Renewed++
		g := r.rec.Next
		renewAt, checkAt := moments(g, r.t.now, r.draw(), r.draw())
		return finished(r.rec, g, renewAt, checkAt)
	case stepGoOver:
		wentOver(r.rec, next.issuer)
		r.t.turns.leaveOthers(r.m.Name, next.issuer)
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

// deploy puts a pair into service where that does not fail already.
func (r *rehearsal) deploy(g *store.Generation, ids []string) error {
	for _, id := range ids {
		if r.refuses[id] {
			if err := deploymentFailed(r.rec, id, g, errRefuses, r.t.now, r.draw()); err != nil {
				return err
			}
			r.failed("deployment " + id + ": " + errRefuses.Error())
			continue
		}
		if err := deploymentDone(r.rec, id, g, &deploy.Report{Changed: true, Verified: r.probed[id]}, r.t.now); err != nil {
			return err
		}
	}
	return nil
}
