package renewal

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// The transitions below change a record in memory; the store makes each of
// them durable in one transaction. They use no clock and draw no numbers.

// errSuperseded says that a step's outcome came after its order was given up.
var errSuperseded = errors.New("the order is over: another one has taken its place")

// nextNumber is a generation number that no key of this certificate has been
// deployed under.
func nextNumber(rec *store.Certificate) uint64 {
	var last uint64
	for _, g := range []*store.Generation{rec.Previous, rec.Current, rec.Next} {
		if g != nil {
			last = max(last, g.Number)
		}
	}
	for _, d := range rec.Deployments {
		last = max(last, d.Generation)
	}
	return last + 1
}

// begun records a key and the intent to order a certificate for it.
func begun(rec *store.Certificate, m *managed, keyID, orderID string, now time.Time) error {
	if rec.Phase != store.PhaseIdle {
		return errSuperseded
	}
	madeAt := now
	if cur := rec.Current; cur != nil && cur.KeyID == keyID {
		if !mayReuse(rec, m) {
			return errSuperseded
		}
		madeAt = keyMadeAt(cur)
	}
	rec.Next = &store.Generation{
		Number: nextNumber(rec), KeyID: keyID, KeyAlgorithm: m.KeyAlgorithm, KeyMadeAt: madeAt,
		ConfigDigest: m.digest, Issuer: m.asked(rec).Name,
	}
	rec.Phase = store.PhaseKeyWritten
	rec.OrderID, rec.OrderState, rec.OrderBegunAt = orderID, nil, now
	return nil
}

func ordering(rec *store.Certificate, orderID string) bool {
	return rec.OrderID == orderID && (rec.Phase == store.PhaseKeyWritten || rec.Phase == store.PhaseOrderPlaced)
}

// placed records what the issuer needs to continue the order.
func placed(rec *store.Certificate, orderID string, state json.RawMessage) error {
	if !ordering(rec, orderID) {
		return errSuperseded
	}
	rec.Phase = store.PhaseOrderPlaced
	rec.OrderState = state
	return nil
}

// issuedPair is what a record keeps of a chain, the leaf first.
func issuedPair(chain []*x509.Certificate) store.Generation {
	leaf := chain[0]
	return store.Generation{
		ChainPEM: string(pki.EncodeChainPEM(chain)), Serial: pki.SerialHex(leaf), Fingerprint: pki.Fingerprint(leaf),
		IssuerDN: leaf.Issuer.String(), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
	}
}

// issued records a checked certificate. Failures before it say nothing about the
// deployments that follow, so these start with a clean sheet.
func issued(rec *store.Certificate, orderID string, got store.Generation, now time.Time) error {
	if !ordering(rec, orderID) {
		return errSuperseded
	}
	next := rec.Next
	next.ChainPEM, next.Serial, next.Fingerprint = got.ChainPEM, got.Serial, got.Fingerprint
	next.IssuerDN, next.NotBefore, next.NotAfter = got.IssuerDN, got.NotBefore, got.NotAfter
	next.IssuedAt = now
	rec.Phase = store.PhaseIssued
	rec.OrderState = nil
	waits(rec, failure{})
	rec.OrderAttempt, rec.RetryAt = 0, time.Time{}
	for id, d := range rec.Deployments {
		d.Attempt, d.RetryAt = 0, time.Time{}
		rec.Deployments[id] = d
	}
	return nil
}

// abandoned drops the pair that was being obtained or deployed, and returns the
// id of its key file, "" if it has none or if another pair has the same.
func abandoned(rec *store.Certificate) (keyID string) {
	if rec.Next != nil {
		keyID = rec.Next.KeyID
	}
	rec.Phase = store.PhaseIdle
	rec.Next = nil
	if named(keyID, rec.Current, rec.Previous) {
		keyID = ""
	}
	rec.OrderID, rec.OrderState, rec.OrderBegunAt = "", nil, time.Time{}
	waits(rec, failure{})
	return keyID
}

// wanted marks the deployments that serve a newer pair than the current one, when
// the configuration has come back to what the current one is for: they are to be
// given that again, and not to serve other names until its renewal.
func wanted(rec *store.Certificate, m *managed) {
	if rec.Current == nil || rec.Current.ConfigDigest != m.digest {
		return
	}
	for id, d := range rec.Deployments {
		if good(d) && d.Generation > rec.Current.Number {
			d.Outcome, d.Detail = wire.DeploymentPending, "serves a certificate for an earlier configuration"
			rec.Deployments[id] = d
		}
	}
}

// failed is what a failure on the way to a certificate led to.
type failed struct {
	counted bool
	dropped string // id of the key that was given up, "" if none was
	left    bool   // the next attempt is for the next issuer
}

// orderFailed records a failure on the way to a certificate.
func orderFailed(rec *store.Certificate, m *managed, fail failure, now time.Time, u float64) (did failed) {
	does := actFor(fail.class)
	attempt := 1
	did.counted = does.counts
	waits(rec, fail)
	if does.counts {
		rec.OrderAttempt++
		rec.IssuerAttempt++
		attempt = rec.OrderAttempt
		noteFailure(rec, fail.err, does.attention || fail.attention, now)
	} else if rec.OrderAttempt == 0 && late(rec.Current, now) {
		// An authority that is still at it is given time, but not the last of it
		// without a word. It is said once: each look would be news otherwise.
		rec.OrderAttempt = 1
		noteFailure(rec, fail.err, false, now)
		did.counted = true
	}
	rec.RetryAt = now.Add(does.pace.pause(attempt, fail.retryAfter, rec.Current, m.Lifetime, now, u))
	did.left = goesOver(rec, m, fail, now)
	if reuses(rec) && (fail.keyRefused || did.left && fail.mayYetIssue(rec)) {
		rec.Current.KeySpent = true
	}
	if (does.drops || did.left) && rec.Next != nil {
		did.dropped = abandoned(rec)
	}
	if did.left {
		rec.IssuerAttempt = 0
		if rec.OrderIssuer = m.after(rec.OrderIssuer); rec.OrderIssuer != "" {
			rec.RetryAt = now.Add(fraction(soon(rec.Current), u))
		}
	}
	return did
}

// soon is the span within which something is done that need not wait, but that
// a fleet must not do in one moment.
func soon(cur *store.Generation) time.Duration {
	if life := usable(cur); life > 0 {
		return min(changeSpread, life/lifetimeParts)
	}
	return changeSpread
}

// waits notes what an order waits for that is under way.
func waits(rec *store.Certificate, fail failure) {
	if rec.WaitsForPerson && rec.NeedsAttention == rec.Waiting {
		rec.NeedsAttention = ""
	}
	rec.Waiting, rec.WaitsForPerson = "", false
	if fail.class == issuer.ClassPending {
		rec.Waiting, rec.WaitsForPerson = clip(fail.waiting), fail.person
	}
}

func noteFailure(rec *store.Certificate, err error, attention bool, now time.Time) {
	rec.LastError, rec.LastErrorAt = clip(err.Error()), now
	if attention {
		rec.NeedsAttention = rec.LastError
	}
}

// deploymentSaved records what a target needs to finish its transaction.
func deploymentSaved(rec *store.Certificate, id string, g *store.Generation, state json.RawMessage) error {
	if !holds(rec, g) {
		return errSuperseded
	}
	d := rec.Deployments[id]
	d.Generation, d.State = g.Number, state
	d.Outcome = wire.DeploymentPending
	setDeployment(rec, id, d)
	return nil
}

// deploymentDone records that a target has the pair in service.
func deploymentDone(rec *store.Certificate, id string, g *store.Generation, report *deploy.Report, now time.Time) error {
	if !holds(rec, g) {
		return errSuperseded
	}
	outcome := wire.DeploymentUnverified
	if report.Verified {
		outcome = wire.DeploymentVerified
	}
	setDeployment(rec, id, store.Deployment{
		Generation: g.Number, Outcome: outcome, Fingerprint: g.Fingerprint, NotAfter: g.NotAfter, At: now, Detail: clip(report.Detail),
	})
	return nil
}

// deploymentFailed records a deployment that did not work. Its state is kept
// unless the target is known to be back where it was: only with it can the next
// attempt still go back.
func deploymentFailed(rec *store.Certificate, id string, g *store.Generation, err error, now time.Time, u float64) error {
	if !holds(rec, g) {
		return errSuperseded
	}
	d := rec.Deployments[id]
	if d.Generation != g.Number {
		d.Generation, d.State, d.Attempt = g.Number, nil, 0
	}
	failed, ok := errors.AsType[*deploy.Error](err)
	back := d.State == nil // it changed nothing, or it would have saved first
	if ok {
		back = failed.RolledBack || failed.Stage == deploy.StagePrepare
	}
	d.Outcome = wire.DeploymentFailed
	if back {
		d.State = nil
	} else {
		d.Outcome, d.Fingerprint, d.NotAfter = wire.DeploymentBroken, "", time.Time{}
	}
	d.At, d.Detail = now, clip(err.Error())
	d.Attempt++
	// The deadline is the one of what the target serves now: the pair in
	// service, or for a first deployment none.
	d.RetryAt = now.Add(normalPace.pause(d.Attempt, 0, rec.Current, usable(g), now, u))
	setDeployment(rec, id, d)
	noteFailure(rec, fmt.Errorf("deployment %s: %w", id, err), true, now)
	return nil
}

// notServed records that a target serves something else than it should.
func notServed(rec *store.Certificate, id string, g *store.Generation, err error, now time.Time) error {
	if !holds(rec, g) {
		return errSuperseded
	}
	d := rec.Deployments[id]
	d.Outcome, d.Fingerprint, d.NotAfter = wire.DeploymentPending, "", time.Time{}
	d.At, d.Detail = now, clip("not in service: "+err.Error())
	setDeployment(rec, id, d)
	return nil
}

// anew is a deployment that is configured in another way than before. An
// interrupted transaction is finished, with what it saved.
func anew(d store.Deployment) store.Deployment {
	d.Attempt, d.RetryAt = 0, time.Time{}
	if d.State == nil && d.Outcome != "" {
		d.Outcome, d.Fingerprint, d.NotAfter = wire.DeploymentPending, "", time.Time{}
		d.Detail = "its configuration was changed"
	}
	return d
}

func setDeployment(rec *store.Certificate, id string, d store.Deployment) {
	if rec.Deployments == nil {
		rec.Deployments = make(map[string]store.Deployment)
	}
	rec.Deployments[id] = d
}

// holds reports whether g is still the pair that the record deploys.
func holds(rec *store.Certificate, g *store.Generation) bool {
	for _, known := range []*store.Generation{rec.Current, rec.Next} {
		if known != nil && known.Number == g.Number && known.KeyID == g.KeyID {
			return true
		}
	}
	return false
}

// finished makes the new pair the current one. renewAt and checkAt are the
// moments that were drawn for it.
func finished(rec *store.Certificate, g *store.Generation, renewAt, checkAt time.Time) error {
	if rec.Phase != store.PhaseIssued || !holds(rec, g) {
		return errSuperseded
	}
	rec.Previous, rec.Current, rec.Next = rec.Current, rec.Next, nil
	rec.Phase = store.PhaseDeployed
	rec.RenewAt = renewAt
	rec.RenewalInfo = &store.RenewalInfo{CheckAgainAt: checkAt}
	rec.Renewals++
	if named(rec.Current.KeyID, rec.Previous) {
		// What was said of the key while it was in use for this pair holds on.
		rec.Current.KeySpent = rec.Current.KeySpent || rec.Previous.KeySpent
	} else {
		rec.Forced = false
	}
	rec.OrderID, rec.OrderState, rec.OrderBegunAt = "", nil, time.Time{}
	backToFirst(rec)
	rec.OrderAttempt, rec.RetryAt = 0, time.Time{}
	return nil
}

// retired ends the renewal.
func retired(rec *store.Certificate) {
	rec.Phase = store.PhaseIdle
	rec.Previous = nil
}

// settle derives what depends on the rest of the record. Every transaction of
// the engine ends with it, so that the stored schedule is always what decide
// would say.
func settle(rec *store.Certificate, m *managed, f facts) {
	rec.Attempt = rec.OrderAttempt
	for _, d := range rec.Deployments {
		rec.Attempt += d.Attempt
	}
	if rec.Attempt == 0 {
		rec.LastError, rec.LastErrorAt, rec.NeedsAttention = "", time.Time{}, ""
	}
	if rec.WaitsForPerson && rec.NeedsAttention == "" {
		rec.NeedsAttention = rec.Waiting
	}
	markRevoked(rec)
	if isRevoked(rec.Current) {
		rec.NeedsAttention = "" // nothing about a failure counts more
	}
	if why := worry(rec, f.now); why != "" && rec.NeedsAttention == "" {
		if rec.LastError != "" {
			why += ": " + rec.LastError
		}
		rec.NeedsAttention = clip(why)
	}
	rec.PlannedAt = time.Time{}
	if rec.Current != nil {
		rec.PlannedAt = renewalTime(rec, m.informer(rec.Current) != nil)
		if isRevoked(rec.Current) {
			rec.PlannedAt = rec.Current.Revoked.At
		}
	}
	rec.NextAction = f.now
	next := decide(rec, m, f)
	if next.step == stepNote && next.reason != "" {
		rec.NeedsAttention = clip(next.reason)
		next = decide(rec, m, f)
	}
	if next.step == stepWait {
		rec.NextAction = next.until
	}
}

// clip bounds a text that is stored and reported, without cutting a character.
func clip(s string) string {
	if len(s) <= wire.MaxTextLen {
		return s
	}
	return strings.ToValidUTF8(s[:wire.MaxTextLen-len("…")], "") + "…"
}
