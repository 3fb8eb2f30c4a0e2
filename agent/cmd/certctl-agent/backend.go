package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/agent/enroll"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/revocation"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// backend is the running agent, as the control socket sees it.
type backend struct {
	configuration *configuration
	state         *localState
	engine        *renewal.Engine
	checks        *revocation.Loop
	syncer        *sync.Client
	roll          *roll
	started       time.Time
	log           *slog.Logger
}

// Status implements control.Backend.
func (b *backend) Status(context.Context) (*control.Status, error) {
	certificates, err := b.engine.Status()
	if err != nil {
		return nil, err
	}
	identity, err := b.state.store.Identity()
	if err != nil {
		return nil, err
	}
	dropped, err := b.state.store.EventsDropped()
	if err != nil {
		return nil, err
	}
	link := b.syncer.State()
	host := hostReport()
	now := b.state.clock.Reading()
	horizon, err := b.state.store.Horizon(now.Now)
	if err != nil {
		return nil, err
	}
	configuredAt, _ := b.configuration.standing()
	removed, err := b.engine.Removed()
	if err != nil {
		return nil, err
	}
	status := &control.Status{
		At: now.Now,
		Agent: control.Agent{
			Build: buildinfo.Get(), Hostname: host.Hostname, PID: os.Getpid(), StartedAt: b.started,
			StateDir: b.configuration.current().StateDir, ConfigFile: b.configuration.file(), ConfiguredAt: configuredAt,
		},
		Enrollment:   control.EnrollmentOf(identity, link.IdentityNotAfter),
		Coordinator:  control.ConnectionOf(link, dropped, now.Now),
		Clock:        control.ClockOf(now),
		SafeUntil:    horizon.SafeUntil,
		NotSafe:      horizon.NotSafe,
		Certificates: make([]control.Certificate, 0, len(certificates)),
	}
	if status.Enrollment != nil {
		status.Enrollment.IdentityProblem = link.IdentityProblem
	}
	if status.Warnings, err = hostWarnings(b.configuration, b.roll, b.state.store); err != nil {
		return nil, err
	}
	for _, r := range removed {
		status.Removed = append(status.Removed, control.RemovedOf(r))
	}
	assigned := b.assignments(status)
	for _, m := range certificates {
		policy := managed.KeyRotate
		if m.ReuseKey {
			policy = managed.KeyReuse
		}
		c := control.CertificateOf(m.Record, policy)
		c.WaitsFor, c.WaitsUntil, c.Former = m.WaitsFor, m.WaitsUntil, m.Former
		if c.Source = control.SourceLocal; assigned[c.Name] {
			c.Source = control.SourceAssigned
		}
		if check, ok := b.checks.Result(c.Name, c.Fingerprint); ok {
			c.RevocationCheck = &check
		}
		if m.Problem != "" {
			status.Warnings = append(status.Warnings, fmt.Sprintf("%s: %s", c.Name, m.Problem))
		}
		status.Certificates = append(status.Certificates, c)
	}
	return status, nil
}

// assignments adds what was made of the assignments. It returns the names of
// those that a definition of the centre is in force for.
func (b *backend) assignments(status *control.Status) (assigned map[string]bool) {
	assigned = make(map[string]bool)
	for _, v := range b.roll.judged() {
		assigned[v.Name] = v.Certificate != nil
		status.Assignments = append(status.Assignments, control.Assignment{Name: v.Name, Revision: v.Revision, State: v.State, Detail: v.Detail})
	}
	return assigned
}

// hostWarnings are findings about the host itself that a person has to look at:
// in its own status, at the coordinator and in its metrics.
func hostWarnings(inEffect *configuration, roll *roll, st *store.Store) (list []string, err error) {
	if _, problem := inEffect.standing(); problem != "" {
		list = append(list, notInEffect(problem))
	}
	wanted, err := st.Wanted()
	if err != nil {
		return nil, err
	}
	if wanted.Refusal != "" {
		list = append(list, "what the coordinator wants of this host makes no sense to this version, and what it wanted before stays in force: "+wanted.Refusal)
	}
	for _, v := range roll.judged() {
		// A host that takes none has decided that, and nobody has to be told.
		if v.State == wire.AssignmentRefused && roll.current().settings.Assignments.Accept {
			list = append(list, v.Detail)
		}
	}
	return list, nil
}

// Renew implements control.Backend.
func (b *backend) Renew(ctx context.Context, name string) (underWay bool, err error) {
	err = b.engine.Renew(ctx, name)
	switch {
	case errors.Is(err, renewal.ErrUnderWay):
		return true, nil
	case errors.Is(err, renewal.ErrUnknown):
		return false, fmt.Errorf("%w: %w", control.ErrUnknownCertificate, err)
	case errors.Is(err, renewal.ErrReloading):
		return false, fmt.Errorf("%w: %w", control.ErrNotNow, err)
	}
	return false, err
}

// Subjects implements control.Backend.
func (b *backend) Subjects(ctx context.Context, yield func(*renewal.Subject) error) error {
	return b.engine.Subjects(func(s *renewal.Subject) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return yield(s)
	})
}

// Reload implements control.Backend.
func (b *backend) Reload(context.Context) (*control.Reload, error) { return b.configuration.reload() }

// Enroll implements control.Backend.
func (b *backend) Enroll(ctx context.Context, request control.EnrollRequest) (*control.Enrollment, error) {
	done, err := enrollWith(ctx, b.configuration.current(), b.state, request, b.log)
	if err != nil {
		return nil, err
	}
	b.syncer.Kick()
	return done, nil
}

// enrollWith exchanges a token for an identity. It tells the coordinator the
// names that this host will ask it for, so that a token for other names is
// refused now and not at the first order.
func enrollWith(ctx context.Context, s *config.Settings, state *localState, request control.EnrollRequest, log *slog.Logger) (*control.Enrollment, error) {
	before, err := state.store.Identity()
	if err != nil {
		return nil, err
	}
	var brokered []pki.Names
	for i := range s.Certificates {
		if c := &s.Certificates[i]; c.Brokered() {
			names, err := pki.ParseNames(c.Names)
			if err != nil {
				return nil, fmt.Errorf("names of the certificate %q: %w", c.Name, err)
			}
			brokered = append(brokered, names)
		}
	}
	identity, err := enroll.Enroll(ctx, enroll.Config{
		Servers: request.Servers, Token: request.Token, Replace: request.Replace,
		Store: state.store, Keys: state.identityKeys, Host: hostReport(), Names: enroll.Wanted(brokered),
		Clock: state.clock, Log: log.With("part", "enroll"),
	})
	if err != nil {
		return nil, err
	}
	chain, err := pki.ParseChainPEM([]byte(identity.ChainPEM))
	if err != nil {
		return nil, err
	}
	done := control.EnrollmentOf(identity, chain[0].NotAfter)
	if before != nil && !before.Retired && before.AgentID != identity.AgentID {
		done.Replaced = before.AgentID
	}
	return done, nil
}
