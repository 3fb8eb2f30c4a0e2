package command

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/pki"
)

const (
	// lookInterval is how often commands are looked at besides being woken: it
	// is how exact NotBefore and the pauses of revocations are kept.
	lookInterval = 10 * time.Second
	// revokeTimeout bounds one question to an issuer, and revocations how many
	// are asked at the same time.
	revokeTimeout = time.Minute
	revocations   = 4
	// maxSteps bounds one look at a command; decide needs far fewer.
	maxSteps = 10
)

// Store is what is needed of the agent's store, with the guarantees of
// [store.Store].
type Store interface {
	Commands() ([]store.Command, error)
	UpdateCommand(id string, fn func(command *store.Command, record *store.Certificate) error) error
	Certificate(name string) (*store.Certificate, bool, error)
}

// Engine is what is needed of the renewal engine. Both store what they are told
// before they return, may be told again, and give renewal.ErrUnknown for a
// certificate that is not managed, and renewal.ErrNotInService for one that is in
// service no more.
type Engine interface {
	RenewWhile(ctx context.Context, name string, still func(*store.Certificate) bool) error
	Revoked(name, serial string, at time.Time, reason int) error
}

// Config is what a Runner is made of. OnChange and Now may be nil.
type Config struct {
	Store  Store
	Engine Engine
	// Revoker is the issuer of that name, nil if this host cannot have it revoke.
	Revoker func(issuerName string) issuer.Revoker
	// Key loads a private key; an error is no obstacle, since an issuer knows the
	// account too.
	Key func(id string) (crypto.Signer, error)
	// Now is the trusted time.
	Now func() time.Time
	// OnChange is called when there is something to tell the centre. It must
	// return at once.
	OnChange func()
	Log      *slog.Logger
}

// Runner carries out commands. Wake may be called from any goroutine.
type Runner struct {
	cfg  Config
	log  *slog.Logger
	wake chan struct{} // holds at most one
	jobs sync.WaitGroup
	free chan struct{} // a value for each revocation that may begin

	mu    sync.Mutex      // guards busy and fatal
	busy  map[string]bool // commands whose issuer is being asked
	fatal error
}

// New checks cfg.
func New(cfg Config) (*Runner, error) {
	if cfg.Store == nil || cfg.Engine == nil || cfg.Revoker == nil || cfg.Key == nil || cfg.Log == nil {
		return nil, errors.New("command: Store, Engine, Revoker, Key and Log are all required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func() {}
	}
	r := &Runner{cfg: cfg, log: cfg.Log, wake: make(chan struct{}, 1), busy: make(map[string]bool), free: make(chan struct{}, revocations)}
	for range revocations {
		r.free <- struct{}{}
	}
	return r, nil
}

// errUnmanaged is a certificate with a record and without a configuration: the
// record is about to go.
var errUnmanaged = errors.New("the certificate is not managed any more")

// Wake says that something has happened: a command was accepted, or a
// certificate has changed.
func (r *Runner) Wake() {
	select {
	case r.wake <- struct{}{}:
	default: // one is on its way
	}
}

// Run carries out commands until ctx is done, and returns nil after everything
// that it started has ended. It returns an error when what is on disk is unknown.
func (r *Runner) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer r.jobs.Wait()
	r.Wake()
	jitter.Loop(ctx, lookInterval, jitter.DefaultSchedulerJitter, r.wake, func(ctx context.Context) {
		if r.look(ctx); r.failed() != nil {
			cancel()
		}
	})
	return r.failed()
}

func (r *Runner) now() time.Time { return r.cfg.Now().Round(0).UTC() }

// look takes every command as far as it goes now.
func (r *Runner) look(ctx context.Context) {
	list, err := r.cfg.Store.Commands()
	if err != nil {
		r.stumble("", err)
		return
	}
	for i := range list {
		if list[i].State.Final() {
			continue
		}
		if err := r.advance(ctx, list[i].Request.ID); err != nil && ctx.Err() == nil {
			r.stumble(list[i].Request.ID, err)
		}
		if ctx.Err() != nil || r.failed() != nil {
			return
		}
	}
}

// stumble decides about an error: what cannot be known ends the runner, anything
// else is tried again with the next look.
func (r *Runner) stumble(id string, err error) {
	if errors.Is(err, store.ErrStateUnknown) || errors.Is(err, store.ErrDamaged) {
		r.mu.Lock()
		r.fatal = errors.Join(r.fatal, fmt.Errorf("commands: %w", err))
		r.mu.Unlock()
		return
	}
	r.log.Warn("command cannot be carried out now", "command_id", id, "err", err)
}

func (r *Runner) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fatal
}

// advance carries out steps of one command until there is none to be done now.
func (r *Runner) advance(ctx context.Context, id string) error {
	for range maxSteps {
		var c store.Command
		var next action
		// Decided within a transaction, so that command and record are of one
		// moment. It changes something only to bind and to end.
		err := r.cfg.Store.UpdateCommand(id, func(command *store.Command, rec *store.Certificate) error {
			next = decide(command, rec, r.now())
			if next.step == stepBind {
				if ended := bind(command, rec); ended.step == stepEnd {
					next = ended
				}
			}
			if next.step == stepEnd {
				command.State, command.Detail = next.state, next.detail
			}
			c = *command
			return nil
		})
		if err != nil {
			return err
		}
		switch next.step {
		case stepEnd:
			r.log.Info("command ended", "command_id", id, "kind", c.Request.Kind, "certificate", c.Request.Certificate, "state", c.State, "detail", c.Detail)
			r.cfg.OnChange()
			return nil
		case stepRenew:
			if err := r.renew(ctx, &c); err != nil {
				return err
			}
		case stepRevoke:
			if !r.begin(ctx, c) {
				return nil
			}
		case stepWait:
			return nil
		}
	}
	return fmt.Errorf("%d steps without an end; this is a bug, report it with the log", maxSteps)
}

// renew has the engine replace the certificate, which it first tells of a
// revocation. That it was asked is stored after it has stored both: a crash in
// between tells and asks twice for one replacement.
func (r *Runner) renew(ctx context.Context, c *store.Command) error {
	at := r.now()
	if revoked := c.Request.RevokedAt; !revoked.IsZero() {
		err := r.cfg.Engine.Revoked(c.Request.Certificate, c.Request.Serial, revoked, c.Request.Reason)
		if err != nil && !errors.Is(err, renewal.ErrUnknown) && !errors.Is(err, renewal.ErrNotInService) {
			return err
		}
	}
	err := r.cfg.Engine.RenewWhile(ctx, c.Request.Certificate, func(rec *store.Certificate) bool { return holds(rec, c) })
	switch {
	case errors.Is(err, renewal.ErrNotInService):
		return nil // it was replaced just now
	case errors.Is(err, renewal.ErrUnknown):
		return errUnmanaged
	case err != nil && !errors.Is(err, renewal.ErrUnderWay):
		return err
	}
	r.log.Info("the coordinator asks for a new certificate", "command_id", c.Request.ID, "kind", c.Request.Kind, "certificate", c.Request.Certificate, "serial", c.Serial)
	return r.cfg.Store.UpdateCommand(c.Request.ID, func(command *store.Command, _ *store.Certificate) error {
		command.Asked, command.AskedAt = true, at
		return nil
	})
}

// begin asks the issuer for a revocation, beside the loop: it may hang. It
// returns false, as there is nothing more to be done before that has ended.
func (r *Runner) begin(ctx context.Context, c store.Command) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[c.Request.ID] {
		return false
	}
	select {
	case <-r.free:
	default:
		return false // the end of another one looks again
	}
	r.busy[c.Request.ID] = true
	r.jobs.Go(func() {
		err := r.revoke(ctx, &c)
		r.mu.Lock()
		delete(r.busy, c.Request.ID)
		r.mu.Unlock()
		r.free <- struct{}{}
		if err != nil && ctx.Err() == nil {
			r.stumble(c.Request.ID, err)
		}
		r.Wake()
	})
	return false
}

func leafOf(g *store.Generation) (*x509.Certificate, error) {
	chain, err := pki.ParseChainPEM([]byte(g.ChainPEM))
	if err != nil {
		return nil, err
	}
	return chain[0], nil
}
