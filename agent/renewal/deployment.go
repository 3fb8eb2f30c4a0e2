package renewal

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// verifyTimeout bounds one target's comparison, infoTimeout one question for
// renewal information.
const (
	verifyTimeout = time.Minute
	infoTimeout   = 30 * time.Second
)

// limited is a target that knows how long it may take, because its commands have
// time limits of their own: to end them earlier would be to end them each time.
type limited interface{ TimeLimit() time.Duration }

// pair is a key and its certificate, known to match.
type pair struct {
	key   *store.Generation
	task  deploy.Task // without what differs from target to target
	chain []*x509.Certificate
}

// load reads a stored generation and checks that key and certificate belong
// together, before any target sees them.
func (e *Engine) load(m *managed, g *store.Generation) (*pair, error) {
	key, err := e.cfg.Keys.Load(g.KeyID)
	if err != nil {
		return nil, keyError(err)
	}
	chain, err := pki.ParseChainPEM([]byte(g.ChainPEM))
	if err != nil {
		return nil, fmt.Errorf("stored certificate: %w", err)
	}
	if err := pki.MatchKey(chain[0], key); err != nil {
		return nil, fmt.Errorf("stored certificate and key file %s: %w", g.KeyID, err)
	}
	e.keyWorks(g.KeyID)
	return &pair{
		key: g, chain: chain,
		task: deploy.Task{Certificate: m.Name, Generation: g.Number, Key: key, Chain: chain},
	}, nil
}

// deploy puts a generation into service at the given deployments, one after the
// other. One that fails does not keep the others from it.
func (e *Engine) deploy(ctx context.Context, m *managed, rec *store.Certificate, g *store.Generation, ids []string) error {
	p, err := e.load(m, g)
	if err != nil {
		if g == rec.Next {
			return e.failKey(m, rec, err)
		}
		for _, id := range ids {
			cause := &deploy.Error{Stage: deploy.StagePrepare, Err: err, Mend: fmt.Sprintf("run \"certctl-agent renew %s\" to replace the pair", m.Name)}
			if err := e.failDeployment(m, g, id, cause); err != nil {
				return err
			}
		}
		return nil
	}
	for _, id := range ids {
		if err := e.deployOne(ctx, m, rec, p, id); err != nil {
			return err
		}
		if stopping(ctx) || e.stopped() {
			return nil
		}
		if _, ok := e.current(m.Name); !ok {
			return nil // the rest is decided by another configuration
		}
	}
	return nil
}

func (e *Engine) deployOne(ctx context.Context, m *managed, rec *store.Certificate, p *pair, id string) error {
	g := p.key
	task := p.task
	task.ScratchDir = e.scratch(m.Name, id)
	if err := e.makeScratch(task.ScratchDir); err != nil {
		return e.failDeployment(m, g, id, &deploy.Error{Stage: deploy.StagePrepare, Err: err, Mend: "make the state directory writable for the agent"})
	}
	// The state of another pair's transaction means nothing to this one.
	if before := rec.Deployments[id]; before.Generation == g.Number {
		task.State = before.State
	}
	task.Save = func(state json.RawMessage) error {
		return e.update(m, func(rec *store.Certificate, _ func(wire.Event)) error {
			return deploymentSaved(rec, id, g, append(json.RawMessage(nil), state...))
		})
	}
	limit := e.cfg.DeployTimeout
	if slow, ok := m.targets[id].(limited); ok {
		limit = max(limit, slow.TimeLimit())
	}
	report, err := guarded(ctx, limit, e.log, "deployment "+id, func(ctx context.Context) (*deploy.Report, error) {
		return m.targets[id].Deploy(ctx, &task)
	})
	switch {
	case e.stopped():
		return nil // the store failed under Save; the next process finishes this
	case err != nil && ctx.Err() != nil:
		return ctx.Err() // a stop is no failure; what the target saved is stored
	case err != nil:
		return e.failDeployment(m, g, id, err)
	case report == nil:
		return e.failDeployment(m, g, id, errors.New("the target reported neither success nor failure; this is a bug, report it"))
	}
	err = e.update(m, func(rec *store.Certificate, emit func(wire.Event)) error {
		if err := deploymentDone(rec, id, g, report, e.now()); err != nil {
			return err
		}
		emit(wire.Event{Kind: wire.EventDeployed, Serial: g.Serial, Detail: id, Issuer: g.Issuer})
		return nil
	})
	if err != nil {
		return unlessSuperseded(err)
	}
	e.log.Info("certificate deployed", "certificate", m.Name, "deployment", id, "serial", g.Serial, "changed", report.Changed, "verified", report.Verified)
	return nil
}

func (e *Engine) failDeployment(m *managed, g *store.Generation, id string, cause error) error {
	u := e.draw()
	var state store.Deployment
	var wait string
	err := e.update(m, func(rec *store.Certificate, emit func(wire.Event)) error {
		now := e.now()
		if err := deploymentFailed(rec, id, g, cause, now, u); err != nil {
			return err
		}
		state = rec.Deployments[id]
		wait = state.RetryAt.Sub(now).String()
		emit(wire.Event{Kind: wire.EventFailed, Serial: g.Serial, Detail: rec.LastError, Issuer: g.Issuer, Reason: wire.ReasonDeployment})
		return nil
	})
	if err != nil {
		return unlessSuperseded(err)
	}
	e.count(g.Issuer, OutcomeDeploymentFailed)
	e.log.Warn("deployment failed", "certificate", m.Name, "deployment", id, "outcome", string(state.Outcome), "retry_in", wait, "err", cause)
	return nil
}

// complete makes the deployed pair the current one. Its renewal time is drawn
// here, once.
func (e *Engine) complete(m *managed, seen *store.Certificate) error {
	g := seen.Next
	renewAt, checkAt := moments(g, e.now(), e.draw(), e.draw())
	err := e.update(m, func(rec *store.Certificate, emit func(wire.Event)) error {
		if err := finished(rec, g, renewAt, checkAt); err != nil {
			return err
		}
		emit(wire.Event{Kind: wire.EventRenewed, Serial: g.Serial, Issuer: g.Issuer})
		return nil
	})
	if err != nil {
		return unlessSuperseded(err)
	}
	e.count(g.Issuer, OutcomeRenewed)
	e.log.Info("certificate in service", "certificate", m.Name, "serial", g.Serial, "not_after", g.NotAfter, "renew_at", renewAt)
	return nil
}

// retire removes the key that was replaced. A file that cannot be removed does
// not hold up anything: sweep tries again.
func (e *Engine) retire(m *managed, seen *store.Certificate) error {
	if seen.Previous != nil && !named(seen.Previous.KeyID, seen.Current, seen.Next) {
		e.discardKey(m.Name, seen.Previous.KeyID)
	}
	err := e.update(m, func(rec *store.Certificate, _ func(wire.Event)) error {
		if rec.Phase != store.PhaseDeployed {
			return errSuperseded
		}
		retired(rec)
		return nil
	})
	return unlessSuperseded(err)
}

// verify compares what is in service with the record. A deployment that serves
// something else is marked, and put right by the steps that follow.
func (e *Engine) verify(ctx context.Context, m *managed, rec *store.Certificate) error {
	cur := rec.Current
	leaf := leafOf(cur)
	missing := make(map[string]error)
	for _, d := range m.Deployments {
		if !serves(rec.Deployments[d.ID], cur) {
			continue
		}
		_, err := guarded(ctx, verifyTimeout, e.log, "verification of "+d.ID, func(ctx context.Context) (struct{}, error) {
			if leaf == nil {
				return struct{}{}, errors.New("the stored certificate cannot be read")
			}
			return struct{}{}, d.Target.Verify(ctx, leaf)
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			missing[d.ID] = err
			e.log.Warn("certificate is not in service", "certificate", m.Name, "deployment", d.ID, "err", err)
		}
	}
	e.verified(m.Name)
	err := e.update(m, func(rec *store.Certificate, emit func(wire.Event)) error {
		for _, d := range m.Deployments {
			cause := missing[d.ID]
			if cause == nil {
				continue
			}
			if err := notServed(rec, d.ID, cur, cause, e.now()); err != nil {
				return err
			}
			emit(wire.Event{
				Kind: wire.EventFailed, Serial: cur.Serial, Detail: clip(fmt.Sprintf("deployment %s: not in service: %v", d.ID, cause)),
				Issuer: cur.Issuer, Reason: wire.ReasonNotInService,
			})
		}
		return nil
	})
	return unlessSuperseded(err)
}

// askAuthority fetches and stores renewal information. Its failure is logged
// and stops nothing.
func (e *Engine) askAuthority(ctx context.Context, m *managed, rec *store.Certificate) error {
	var info *issuer.RenewalInfo
	err := fmt.Errorf("stored chain of serial %s cannot be read", rec.Current.Serial)
	informer, name := m.informer(rec.Current), m.issuerOf(rec.Current)
	if leaf := leafOf(rec.Current); leaf != nil && informer != nil {
		info, err = guarded(ctx, infoTimeout, e.log, "renewal information of "+name, func(ctx context.Context) (*issuer.RenewalInfo, error) {
			return informer.RenewalInfo(ctx, leaf)
		})
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	u := e.draw()
	var moved bool
	var problem error
	var stored store.RenewalInfo
	updateErr := e.update(m, func(now *store.Certificate, _ func(wire.Event)) error {
		if now.Current == nil || now.Current.Fingerprint != rec.Current.Fingerprint {
			return errSuperseded
		}
		moved, problem = applyRenewalInfo(now, info, err, e.now(), u)
		stored = *now.RenewalInfo
		return nil
	})
	if updateErr != nil {
		return unlessSuperseded(updateErr)
	}
	log := e.log.With("certificate", m.Name, "issuer", name)
	switch {
	case problem != nil:
		log.Warn("no renewal information; the stored renewal time stands", "err", problem)
	case moved:
		log.Info("authority suggests when to renew", "window_start", stored.WindowStart, "window_end", stored.WindowEnd, "selected_at", stored.SelectedAt, "explanation_url", stored.ExplanationURL)
	}
	return nil
}

// scratch is the directory of one target. It is named by a digest because
// names of certificates and deployments need not be names of files.
func (e *Engine) scratch(name, id string) string {
	sum := sha256.Sum256([]byte(name + "\x00" + id))
	return filepath.Join(e.cfg.ScratchDir, hex.EncodeToString(sum[:16]))
}
