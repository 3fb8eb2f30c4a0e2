package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	stdsync "sync"
	"time"

	"github.com/certctl/certctl/agent/assignment"
	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/wire"
)

// judgeInterval is how often assignments are judged anew without a cause that
// the agent hears of, such as a user or a directory that was made meanwhile.
const judgeInterval = time.Hour

// roll is the whole list of managed certificates: the host's own, and those that
// the centre defines and the host's rules allow.
type roll struct {
	store *store.Store
	log   *slog.Logger
	wake  chan struct{} // holds at most one

	applying stdsync.Mutex // held from the making of a list until the engine has it

	mu       stdsync.Mutex // guards what follows
	parts    *parts
	local    []renewal.Managed // of the configuration
	verdicts []assignment.Verdict
	said     map[string]string // refusals that were logged, by name
}

// newRoll fails where the host's own certificates are wrong.
func newRoll(p *parts, st *store.Store) (*roll, error) {
	local, err := p.managed()
	if err != nil {
		return nil, err
	}
	return &roll{parts: p, local: local, store: st, log: p.log, wake: make(chan struct{}, 1)}, nil
}

// managed is the list now, and what was made of the assignments.
func (r *roll) managed() ([]renewal.Managed, sync.Made, error) {
	r.mu.Lock()
	p, local := r.parts, r.local
	r.mu.Unlock()
	list, verdicts, made, err := r.with(p, local)
	if err != nil {
		return nil, sync.Made{}, err
	}
	if err := r.keep(verdicts); err != nil {
		return nil, sync.Made{}, err
	}
	r.mu.Lock()
	r.verdicts = verdicts
	r.mu.Unlock()
	return list, made, nil
}

// with is the list of a configuration.
func (r *roll) with(p *parts, local []renewal.Managed) ([]renewal.Managed, []assignment.Verdict, sync.Made, error) {
	desired, err := r.store.Desired()
	if err != nil {
		return nil, nil, sync.Made{}, err
	}
	identity, err := r.store.Identity()
	if err != nil {
		return nil, nil, sync.Made{}, err
	}
	accepted, err := r.store.Accepted()
	if err != nil {
		return nil, nil, sync.Made{}, err
	}
	assigned, verdicts := p.assigned(desired.Assignments, accepted, identity)
	return slices.Concat(local, assigned), verdicts, sync.Made{Digest: desired.Digest, Reports: assignment.Reports(verdicts)}, nil
}

// keep stores the definitions that are in force: a later one that is refused
// leaves them so. A disk that is full stops nothing that runs.
func (r *roll) keep(verdicts []assignment.Verdict) error {
	err := r.store.SaveAccepted(assignment.InForce(verdicts))
	if err == nil || errors.Is(err, store.ErrStateUnknown) || !durable.IsFull(err) && !durable.IsReadOnly(err) {
		return err
	}
	r.log.Warn("the definitions in force were not stored; it is tried again", "err", err)
	return nil
}

// adopt puts another configuration into effect, with what the centre wants beside
// it. An error changes nothing.
func (r *roll) adopt(p *parts, engine *renewal.Engine, tell func(sync.Made)) (renewal.Changes, error) {
	local, err := p.managed()
	if err != nil {
		return renewal.Changes{}, err
	}
	r.applying.Lock()
	defer r.applying.Unlock()
	list, verdicts, made, err := r.with(p, local)
	if err != nil {
		return renewal.Changes{}, err
	}
	did, err := engine.Reconfigure(list)
	if err != nil {
		return renewal.Changes{}, err
	}
	r.mu.Lock()
	r.parts, r.local, r.verdicts = p, local, verdicts
	r.mu.Unlock()
	if err := r.keep(verdicts); err != nil {
		return renewal.Changes{}, err
	}
	p.askForTime()
	r.complain()
	tell(made)
	return did, nil
}

// current is what the certificates in effect were made with.
func (r *roll) current() *parts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.parts
}

// brokered are the certificates that are ordered by way of the coordinator.
func (r *roll) brokered() []string {
	var names []string
	add := func(c *config.Certificate) {
		if c.Brokered() {
			names = append(names, c.Name)
		}
	}
	own := r.current().settings.Certificates
	for i := range own {
		add(&own[i])
	}
	for _, v := range r.judged() {
		if v.Certificate != nil {
			add(v.Certificate)
		}
	}
	return names
}

// assigned turns what the centre defines into what the engine manages. What this
// host does not allow, or cannot make, is refused and keeps nothing else away.
func (p *parts) assigned(list, accepted []wire.Assignment, identity *store.Identity) ([]renewal.Managed, []assignment.Verdict) {
	made := make(map[string]renewal.Managed, len(list))
	host := assignment.Host{Settings: p.settings, Accepted: accepted, Make: func(c *config.Certificate) error {
		m, err := p.certificate(c, p.ownPaths().Check, func(field string, err error) error { return fmt.Errorf("%s: %w", field, err) })
		if err == nil {
			made[c.Name] = m
		}
		return err
	}}
	if identity != nil {
		host.Patterns = identity.NamePatterns
	}
	verdicts := host.Judge(list)
	var managed []renewal.Managed
	for i := range verdicts {
		if v := &verdicts[i]; v.Certificate != nil {
			managed = append(managed, made[v.Name])
		}
	}
	return managed, verdicts
}

// Changed says that the assignments, or what they are judged by, may be others.
func (r *roll) Changed() {
	select {
	case r.wake <- struct{}{}:
	default: // one is on its way
	}
}

// run keeps the engine's list in line with what the centre wants, until ctx is
// done.
func (r *roll) run(ctx context.Context, engine *renewal.Engine, tell func(sync.Made)) error {
	var fatal error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	jitter.Loop(ctx, judgeInterval, jitter.DefaultSchedulerJitter, r.wake, func(context.Context) {
		if fatal = r.apply(engine, tell); fatal != nil {
			cancel()
		}
	})
	return fatal
}

func (r *roll) apply(engine *renewal.Engine, tell func(sync.Made)) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	list, made, err := r.managed()
	if err != nil {
		return err
	}
	did, err := engine.Reconfigure(list)
	if err != nil {
		return err
	}
	if did.Any() {
		r.log.Info("what the coordinator wants is managed", "digest", made.Digest, "added", did.Added, "removed", did.Removed, "changed", did.Changed)
	}
	r.complain()
	tell(made)
	return nil
}

// complain logs what was refused, each refusal once.
func (r *roll) complain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	said := make(map[string]string)
	for i := range r.verdicts {
		v := &r.verdicts[i]
		if v.State != wire.AssignmentRefused {
			continue
		}
		if said[v.Name] = v.Detail; r.said[v.Name] != v.Detail {
			r.log.Warn("assignment refused", "certificate", v.Name, "revision", v.Revision, "err", v.Detail)
		}
	}
	r.said = said
}

// judged is what was made of the assignments.
func (r *roll) judged() []assignment.Verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.verdicts
}

// revoker is the issuer of that name, if this host can have it revoke.
func (r *roll) revoker(name string) issuer.Revoker {
	revoker, _ := r.current().issuers[name].(issuer.Revoker)
	return revoker
}
