package orders

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// revocationKey begins the keys of revocations in the queue: no agent's id does so.
	revocationKey = "\x00revoke\x00"
	// revokeGrace is how long whoever has asked for a revocation may be asking the
	// authority itself.
	revokeGrace = 2 * time.Minute
	// maxRevocations bounds how many are looked after at a time.
	maxRevocations = 1000
)

// revokeAgain is the pace at which an authority is asked again that has not revoked.
var revokeAgain = backoff.Policy{Initial: 2 * time.Minute, Max: 6 * time.Hour, Multiplier: 3, Jitter: 0.2}

// Revocation is a certificate of an order that is to be revoked.
type Revocation struct {
	Agent, Order string
	// Reason is a CRLReason (RFC 5280 section 5.3.1).
	Reason  int
	Comment string
}

// Revoke has the authority revoke the certificate of an order. done is false if the
// authority has taken the request and decides later. It may be asked of any node, and
// again: one that is revoked already is a success.
func (e *Engine) Revoke(ctx context.Context, v Revocation) (done bool, err error) {
	o, a, err := e.order(v.Agent, v.Order)
	if err != nil {
		return false, err
	}
	done, _, err = e.revoke(ctx, o, a, v)
	return done, err
}

// revoke asks once; outcome is what it says of the account.
func (e *Engine) revoke(ctx context.Context, o *fleet.Order, a *account, v Revocation) (done bool, outcome asyncpoll.Outcome, err error) {
	outcome.Health = asyncpoll.Unclear
	revoker, ok := a.issuer.Connector.(connector.Revoker)
	switch {
	case !ok:
		return false, outcome, fmt.Errorf("revoke a certificate at issuer %q: %w", o.Issuer, ErrUnsupported)
	case o.Serial == "":
		return false, outcome, fmt.Errorf("order %s of agent %s: %w", v.Order, v.Agent, ErrNotIssued)
	}
	ctx, cancel := context.WithTimeout(ctx, a.callTimeout)
	defer cancel()
	done, err = revoker.Revoke(ctx, &connector.Revocation{
		Request: delivered(o), Handle: handleOf(o.Brokering.Handle),
		Serial: o.Serial, Reason: v.Reason, Comment: cmp.Or(v.Comment, "revoked by certctl"),
	})
	outcome = a.note(CallRevoke, err, false, e.config.Now())
	if err != nil {
		return false, outcome, fmt.Errorf("revoke certificate %s at issuer %q: %w", o.Serial, o.Issuer, err)
	}
	e.log.Info("a certificate is revoked at its authority", append(about(o), "serial", o.Serial, "reason", v.Reason, "done", done)...)
	return done, outcome, nil
}

// delivered is what is left to be asked of an order whose certificate is delivered: its
// CSR is not kept.
func delivered(o *fleet.Order) *connector.Request {
	return &connector.Request{Reference: reference(o), CommittedAt: o.PlacedAt}
}

// revocations puts those into the queue that somebody has asked for and that are not
// done.
func (t *term) revocations() {
	now := t.e.config.Now()
	for _, o := range t.e.config.Node.State().View().OpenRevocations(maxRevocations) {
		if t.e.accounts[o.Issuer] == nil || !toRevoke(o, now) {
			continue
		}
		key := revocationKey + keyOf(o)
		t.mu.Lock()
		if _, known := t.revoking[key]; !known && t.queue.Set(o.Issuer, key, latest(now, o.Revocation.At.Add(revokeGrace))) == nil {
			t.revoking[key] = &revoking{account: o.Issuer}
		}
		t.mu.Unlock()
	}
}

// revoking is a revocation that is tried again.
type revoking struct {
	account string
	tries   int
}

// toRevoke reports whether there is still something to revoke.
func toRevoke(o *fleet.Order, now time.Time) bool {
	return o.Revocation != nil && o.Revocation.DoneAt.IsZero() && now.Before(o.NotAfter)
}

// askRevocation has an authority revoke what it has not yet, or finds out what it has
// decided, and stores what came of it.
func (t *term) askRevocation(ctx context.Context, a *account, key string) asyncpoll.Outcome {
	now := t.e.config.Now()
	over := asyncpoll.Outcome{Health: asyncpoll.Unclear}
	o, ok := t.order(strings.TrimPrefix(key, revocationKey))
	t.mu.Lock()
	r := t.revoking[key]
	if !ok || r == nil || !toRevoke(o, now) || o.Issuer != a.name {
		delete(t.revoking, key)
		t.mu.Unlock()
		return over
	}
	r.tries++
	tries := r.tries
	t.mu.Unlock()
	if at := o.Revocation.At.Add(revokeGrace); at.After(now) { // somebody has asked again
		over.Next = at
		return over
	}
	done, outcome, err := t.revokeOnce(ctx, o, a)
	if ctx.Err() != nil {
		return over
	}
	step := fleet.RevokeOrder{Actor: o.Revocation.By, Agent: o.Agent, ID: o.ID, Reason: o.Revocation.Reason}
	var store []fleet.Payload
	switch {
	case done:
		step.Step = fleet.RevocationDone
		store = append(store, step)
		if tell := t.replaceRevoked(o, now); tell != nil {
			store = append(store, *tell)
		}
	case err == nil && o.Revocation.TakenAt.IsZero():
		step.Step = fleet.RevocationTaken
		store = append(store, step)
	case err != nil && connector.Detail(err.Error()) != o.Revocation.Failure: // it is known otherwise
		step.Step, step.Failure = fleet.RevocationFailed, connector.Detail(err.Error())
		store = append(store, step)
	}
	if len(store) > 0 {
		if failed := t.proposeAll(ctx, store); failed != nil {
			t.e.log.Warn("what came of a revocation is not stored", append(about(o), "err", failed)...)
			done = false
		}
	}
	if done || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrNotIssued) {
		outcome.Next = time.Time{} // in vain, until somebody changes the settings
		return outcome
	}
	failure := connector.Classify(err)
	if err != nil && failure.Class == connector.ClassCredentials {
		// An account that may not revoke orders on.
		outcome = asyncpoll.Outcome{Health: asyncpoll.Unclear}
	}
	outcome.Next = now.Add(revokeAgain.DelayAfter(tries, min(failure.RetryAfter, asyncpoll.MaxPause), a.random))
	return outcome
}

// revokeOnce asks the authority to revoke; or, if it has taken that already to decide
// later, what it has decided: a second request could be a second case for somebody.
func (t *term) revokeOnce(ctx context.Context, o *fleet.Order, a *account) (done bool, outcome asyncpoll.Outcome, err error) {
	if v := o.Revocation; v.TakenAt.IsZero() || v.TakenAt.Before(v.At) {
		return t.e.revoke(ctx, o, a, Revocation{Agent: o.Agent, Order: o.ID, Reason: v.Reason})
	}
	outcome.Health = asyncpoll.Unclear
	ctx, cancel := context.WithTimeout(ctx, a.callTimeout)
	defer cancel()
	ctx, tally := connector.WithTally(ctx)
	status, err := a.issuer.Connector.Status(ctx, delivered(o), handleOf(o.Brokering.Handle))
	outcome = a.note(CallStatus, err, tally.Answered(), t.e.config.Now())
	if err != nil {
		return false, outcome, nil // it is asked again
	}
	return status.State == connector.Revoked, outcome, nil
}

// replaceRevoked tells the host that its certificate is revoked, if it has it in service
// still and does not know.
func (t *term) replaceRevoked(o *fleet.Order, now time.Time) *fleet.CommandAgent {
	view := t.e.config.Node.State().View()
	row, ok := view.Certificate(o.Agent, o.Certificate)
	if !ok || row.Columns.Fingerprint != o.Fingerprint {
		return nil
	}
	for _, open := range view.AgentCommands(o.Agent) {
		if !open.State.Final() && open.Kind == wire.CommandRenew && open.Certificate == o.Certificate && open.Serial == o.Serial && !open.RevokedAt.IsZero() {
			return nil
		}
	}
	return &fleet.CommandAgent{
		Actor: o.Revocation.By, ID: strings.ToLower(rand.Text()), Agent: o.Agent, Kind: wire.CommandRenew, Certificate: o.Certificate, Serial: o.Serial,
		Reason: o.Revocation.Reason, RevokedAt: now,
	}
}

// proposeAll has payloads stored together.
func (t *term) proposeAll(ctx context.Context, payloads []fleet.Payload) error {
	commands := make([]fleet.Command, 0, len(payloads))
	for _, payload := range payloads {
		command, err := fleet.NewCommand(t.e.config.Now(), payload)
		if err != nil {
			return err
		}
		commands = append(commands, command)
	}
	results, err := t.e.config.Node.Propose(ctx, commands...)
	if err != nil {
		return err
	}
	return results[0].Err()
}
