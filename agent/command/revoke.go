package command

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/backoff"
)

// pace is how long an issuer that does not answer is left alone.
var pace = backoff.Policy{Initial: time.Minute, Max: 6 * time.Hour, Multiplier: 2, Jitter: 0.2}

// revoke asks the issuer once, and stores what it said. An answer that is lost is
// asked for again: a certificate that is revoked already is a success.
func (r *Runner) revoke(ctx context.Context, c *store.Command) error {
	id := c.Request.ID
	leaf, err := x509.ParseCertificate(c.Leaf)
	if err != nil {
		return r.unrevoked(id, fmt.Sprintf("the certificate cannot be read: %v", err))
	}
	iss := r.cfg.Revoker(c.Issuer)
	switch {
	case iss == nil:
		return r.unrevoked(id, fmt.Sprintf("the issuer %q is not one that this host can have revoke; ask the authority itself", c.Issuer))
	case !r.now().Before(leaf.NotAfter):
		return r.unrevoked(id, "it expired before its issuer could be asked")
	}
	err = r.ask(ctx, iss, leaf, c)
	switch failure := issuer.Classify(err); {
	case ctx.Err() != nil && err != nil:
		return ctx.Err() // a stop is no failure
	case err != nil && failure.Class == issuer.ClassRefused:
		return r.unrevoked(id, failure.Error())
	case err != nil:
		return r.later(c, failure)
	}
	at := r.now()
	r.log.Warn("certificate revoked", "command_id", id, "certificate", c.Request.Certificate, "serial", c.Serial, "issuer", c.Issuer, "reason", c.Request.Reason)
	// The record first: after a crash between the two the issuer is asked again,
	// and nothing is lost.
	err = r.cfg.Engine.Revoked(c.Request.Certificate, c.Serial, at, c.Request.Reason)
	if err != nil && !errors.Is(err, renewal.ErrUnknown) && !errors.Is(err, renewal.ErrNotInService) {
		return errors.Join(err, r.later(c, issuer.Classify(err)))
	}
	return r.cfg.Store.UpdateCommand(id, func(command *store.Command, _ *store.Certificate) error {
		command.Revoked, command.Detail = at, "revoked; its replacement follows"
		return nil
	})
}

// ask calls the issuer, whose panic is a failure of this command alone.
func (r *Runner) ask(ctx context.Context, iss issuer.Revoker, leaf *x509.Certificate, c *store.Command) (err error) {
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	defer func() {
		if value := recover(); value != nil {
			r.log.Error("issuer panicked", "issuer", c.Issuer, "panic", fmt.Sprint(value), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v; this is a bug, report it with the log", value)
		}
	}()
	key, err := r.cfg.Key(c.KeyID)
	if err != nil {
		key = nil // it may have been replaced
	}
	return iss.Revoke(ctx, leaf, key, c.Request.Reason)
}

// unrevoked stores that the certificate will never be revoked from here.
func (r *Runner) unrevoked(id, why string) error {
	r.log.Error("certificate is not revoked", "command_id", id, "err", why)
	return r.cfg.Store.UpdateCommand(id, func(command *store.Command, _ *store.Certificate) error {
		command.RevokeProblem, command.Detail = why, "not revoked: "+why
		return nil
	})
}

// later stores when the issuer is asked again.
func (r *Runner) later(c *store.Command, failure *issuer.Error) error {
	wait := pace.DelayAfter(c.RevokeAttempt+1, failure.RetryAfter, nil)
	r.log.Warn("revocation failed", "command_id", c.Request.ID, "certificate", c.Request.Certificate, "issuer", c.Issuer, "retry_in", wait.String(), "err", failure)
	at := r.now().Add(wait)
	return r.cfg.Store.UpdateCommand(c.Request.ID, func(command *store.Command, _ *store.Certificate) error {
		command.RevokeAttempt++
		command.RetryAt, command.Detail = at, "not revoked yet: "+failure.Error()
		return nil
	})
}
