package renewal

import (
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// step is what can come next for a certificate.
type step int

const (
	stepWait         step = iota // nothing until action.until
	stepBegin                    // make a new key and the intent to order
	stepOrder                    // begin or continue the order
	stepAbandon                  // drop the pair that is being obtained or deployed
	stepDeployNext               // put the new pair into service at action.ids
	stepFinish                   // every deployment serves the new pair
	stepRetire                   // remove the key that was replaced
	stepAskAuthority             // fetch renewal information (RFC 9773)
	stepVerify                   // compare what is in service with the record
	stepRepair                   // put the current pair into service at action.ids
	stepNote                     // store that a person is needed
	stepGoOver                   // ask action.issuer instead, which has a turn
)

var stepNames = map[step]string{
	stepWait: "waiting", stepBegin: "making a key", stepOrder: "obtaining", stepAbandon: "abandoning",
	stepDeployNext: "deploying", stepFinish: "finishing", stepRetire: "retiring the old key",
	stepAskAuthority: "asking for renewal information", stepVerify: "verifying", stepRepair: "repairing",
	stepNote: "noting", stepGoOver: "going over to another issuer",
}

// String says what is being done, for status.
func (s step) String() string { return stepNames[s] }

// action is one decision.
type action struct {
	step   step
	reason string    // of stepBegin, stepAbandon and stepGoOver, for the log and events; of stepNote if it is known
	issuer string    // of stepGoOver
	ids    []string  // of stepDeployNext and stepRepair, in configured order
	until  time.Time // of stepWait
	// byTime says that nothing but the time calls for a step that costs an order.
	byTime bool
	// forTurn says that a stepWait is one for a turn at the issuer, which comes at
	// turn.
	forTurn bool
	turn    time.Time
}

// facts are what a decision depends on beside the record and its configuration.
type facts struct {
	now time.Time // trusted time
	// verifyAt is when the deployments are to be verified again. It is not
	// stored, so that every start verifies.
	verifyAt time.Time
	// woken opens the gate of a waiting order once.
	woken bool
	// turn says when the issuer may be asked for a new order for the record: a
	// moment ahead, or the zero time. nil asks nobody to wait.
	turn func(iss NamedIssuer, rec *store.Certificate, now time.Time) time.Time
	// would is the same for an issuer that the record does not wait for.
	would func(iss NamedIssuer, rec *store.Certificate, now time.Time) time.Time
}

// turnAt is when the certificate may begin an order, the zero time if now.
func (f facts) turnAt(rec *store.Certificate, m *managed) time.Time {
	if f.turn == nil {
		return time.Time{}
	}
	iss := m.asked(rec)
	if rec.Next != nil {
		iss, _ = m.issuerNamed(rec.Next.Issuer)
	}
	return f.turn(iss, rec, f.now)
}

// decide is the whole policy: the one step that comes next. It has no effects,
// and each step that it names leads, done or failed, to a record for which it
// names another one, so that asking again ends in stepWait.
func decide(rec *store.Certificate, m *managed, f facts) action {
	if reason := contradiction(rec); reason != "" {
		return action{step: stepAbandon, reason: reason}
	}
	switch rec.Phase {
	case store.PhaseDeployed:
		return action{step: stepRetire}
	case store.PhaseIssued:
		return decideIssued(rec, m, f)
	case store.PhaseKeyWritten, store.PhaseOrderPlaced:
		if rec.Next.ConfigDigest != m.digest {
			return action{step: stepAbandon, reason: "its configuration was changed"}
		}
		if _, ok := m.issuerNamed(rec.Next.Issuer); !ok {
			return action{step: stepAbandon, reason: "its issuer is not in the configuration any more"}
		}
		if reuses(rec) && keySpent(rec) {
			return action{step: stepAbandon, reason: reasonSpent}
		}
		// What a crash left half-way at a target comes before the network.
		if ids := openTransactions(rec, m, rec.Current, f); len(ids) > 0 {
			return action{step: stepRepair, ids: ids}
		}
		if !f.woken && !reached(rec.RetryAt, f.now) {
			return maintain(rec, m, f, rec.RetryAt)
		}
		if rec.OrderState == nil {
			// Nothing is known of an order yet: it is one of the new ones that an
			// issuer takes none of while it is paused.
			if at := f.turnAt(rec, m); !at.IsZero() {
				return maintain(rec, m, f, at)
			}
		}
		return action{step: stepOrder}
	default:
		return decideIdle(rec, m, f)
	}
}

// contradiction names what is wrong with a record that no step of this engine
// leaves. Going on from it could deploy half a pair; beginning anew cannot.
func contradiction(rec *store.Certificate) string {
	switch rec.Phase {
	case store.PhaseIdle:
		return ""
	case store.PhaseKeyWritten, store.PhaseOrderPlaced:
		if rec.Next == nil || rec.OrderID == "" {
			return "its record names no key or no order"
		}
	case store.PhaseIssued:
		if rec.Next == nil || rec.Next.ChainPEM == "" {
			return "its record holds no certificate"
		}
	case store.PhaseDeployed:
		if rec.Current == nil {
			return "its record holds no certificate in service"
		}
	default:
		return "its record is in an unknown phase"
	}
	return ""
}

func decideIdle(rec *store.Certificate, m *managed, f facts) action {
	if ids := openTransactions(rec, m, rec.Current, f); len(ids) > 0 {
		return action{step: stepRepair, ids: ids}
	}
	if asksAuthority(rec, m, f.now) && reached(rec.RenewalInfo.CheckAgainAt, f.now) {
		return action{step: stepAskAuthority}
	}
	reason := renewalReason(rec, m, f.now)
	if reason != "" && reached(rec.RetryAt, f.now) {
		if at := f.turnAt(rec, m); !at.IsZero() {
			return decideTurn(rec, m, f, at)
		}
		return action{step: stepBegin, reason: reason, byTime: reason == reasonTime}
	}
	until := rec.RetryAt
	if reason == "" {
		until = renewalTime(rec, m.informer(rec.Current) != nil)
	}
	return maintain(rec, m, f, until)
}

// asksAuthority reports whether the certificate in service is one whose
// authority may say when to renew.
func asksAuthority(rec *store.Certificate, m *managed, now time.Time) bool {
	return m.informer(rec.Current) != nil && rec.Current != nil && rec.RenewalInfo != nil &&
		rec.Current.ConfigDigest == m.digest && !ended(rec.Current, now)
}

const reasonTime = "its renewal time has come"

// renewalReason says why a new certificate is needed; "" if none is.
func renewalReason(rec *store.Certificate, m *managed, now time.Time) string {
	switch {
	case rec.Current == nil:
		return "there is none yet"
	case isRevoked(rec.Current):
		return "it is revoked"
	case rec.Forced:
		return "an operator asked for it"
	case rec.Current.ConfigDigest != m.digest:
		return "its configuration was changed"
	case !now.Before(renewalTime(rec, m.informer(rec.Current) != nil)):
		return reasonTime
	}
	return ""
}

func decideIssued(rec *store.Certificate, m *managed, f facts) action {
	next := rec.Next
	gate := reached(rec.RetryAt, f.now)
	// An open transaction is finished before anything else, even with a pair
	// that is not wanted any more: the target may be half-way.
	if ids := openTransactions(rec, m, next, f); gate && len(ids) > 0 {
		return action{step: stepDeployNext, ids: ids}
	}
	if isRevoked(next) {
		return action{step: stepAbandon, reason: "it was revoked before it was in service everywhere"}
	}
	if next.ConfigDigest != m.digest {
		return action{step: stepAbandon, reason: "its configuration was changed"}
	}
	if reuses(rec) && keySpent(rec) {
		return action{step: stepAbandon, reason: reasonSpent}
	}
	waiting := false
	until := windowEnd(next)
	if rec.RetryAt.After(f.now) && rec.RetryAt.Before(until) {
		until = rec.RetryAt
	}
	var due []string
	for _, d := range m.Deployments {
		state := rec.Deployments[d.ID]
		if serves(state, next) {
			continue
		}
		waiting = true
		if at := gateOf(state, next); reached(at, f.now) {
			due = append(due, d.ID)
		} else if at.Before(until) {
			until = at
		}
	}
	switch {
	case !waiting:
		return action{step: stepFinish}
	case !f.now.Before(windowEnd(next)):
		return action{step: stepAbandon, reason: "its own renewal time came before every deployment had worked", byTime: true}
	case gate && len(due) > 0:
		return action{step: stepDeployNext, ids: due}
	}
	return action{step: stepWait, until: until}
}

// maintain looks after the certificate in service while nothing of a renewal
// can be done before until.
func maintain(rec *store.Certificate, m *managed, f facts, until time.Time) action {
	earlier := func(at time.Time) {
		if at.Before(until) {
			until = at
		}
	}
	cur := rec.Current
	if cur != nil && !expired(cur, f.now) {
		if verifiable(rec, m) {
			if !f.now.Before(f.verifyAt) {
				return action{step: stepVerify}
			}
			earlier(f.verifyAt)
		}
		var due []string
		for _, d := range m.Deployments {
			state := rec.Deployments[d.ID]
			if inService(state, cur) {
				continue
			}
			if at := gateOf(state, cur); reached(at, f.now) {
				due = append(due, d.ID)
			} else {
				earlier(at)
			}
		}
		if len(due) > 0 {
			return action{step: stepRepair, ids: due}
		}
		if rec.Phase == store.PhaseIdle && asksAuthority(rec, m, f.now) {
			earlier(rec.RenewalInfo.CheckAgainAt)
		}
		earlier(cur.NotAfter)
	}
	if rec.NeedsAttention == "" && worry(rec, f.now) != "" {
		return action{step: stepNote}
	}
	return action{step: stepWait, until: until}
}

func good(d store.Deployment) bool {
	return d.Outcome == wire.DeploymentVerified || d.Outcome == wire.DeploymentUnverified
}

// serves reports whether the deployment ended well with that generation.
func serves(d store.Deployment, g *store.Generation) bool {
	return good(d) && d.Generation == g.Number && d.Fingerprint == g.Fingerprint
}

// inService reports whether nothing has to be done at a deployment while cur is
// the current pair. A newer pair may be there: one that was abandoned after it
// had reached some of the targets. Going back from it to an older one would
// help nobody, unless it is revoked and the older one is not.
func inService(d store.Deployment, cur *store.Generation) bool {
	return serves(d, cur) || good(d) && d.Generation > cur.Number && (d.RevokedAt.IsZero() || isRevoked(cur))
}

// gateOf is when the deployment of g may be tried again.
func gateOf(d store.Deployment, g *store.Generation) time.Time {
	if d.Generation >= g.Number {
		return d.RetryAt
	}
	return time.Time{}
}

// openTransactions lists the deployments of g that were interrupted.
func openTransactions(rec *store.Certificate, m *managed, g *store.Generation, f facts) []string {
	if g == nil {
		return nil
	}
	var ids []string
	for _, d := range m.Deployments {
		state := rec.Deployments[d.ID]
		if state.State != nil && state.Generation == g.Number && reached(state.RetryAt, f.now) {
			ids = append(ids, d.ID)
		}
	}
	return ids
}

// verifiable reports whether any deployment claims to serve the current pair.
func verifiable(rec *store.Certificate, m *managed) bool {
	for _, d := range m.Deployments {
		if serves(rec.Deployments[d.ID], rec.Current) {
			return true
		}
	}
	return false
}
