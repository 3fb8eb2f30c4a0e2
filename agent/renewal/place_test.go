package renewal

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/shared/pki"
)

// place is a target with a certificate file, a key file and a program that
// reads both. It survives every crash of the agent.
type place struct {
	t     *testing.T
	id    string
	point func(string)

	mu       sync.Mutex // guards what follows
	certFile string     // fingerprint of the certificate
	keyFile  string     // fingerprint of the certificate that the key belongs to
	served   string     // what the program read last
	writes   int
	deploys  int
	fail     func(ctx context.Context, task *deploy.Task) error // called when the new pair is written
}

func (p *place) clone() *place {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &place{t: p.t, id: p.id, point: func(string) {}, certFile: p.certFile, keyFile: p.keyFile, served: p.served}
}

func (p *place) Deploy(ctx context.Context, task *deploy.Task) (*deploy.Report, error) {
	leaf := task.Chain[0]
	fingerprint := pki.Fingerprint(leaf)
	if err := pki.MatchKey(leaf, task.Key); err != nil {
		p.t.Errorf("place %s was given a pair that does not match: %v", p.id, err)
	}
	if _, err := os.Stat(task.ScratchDir); err != nil {
		p.t.Errorf("place %s has no scratch directory: %v", p.id, err)
	}
	p.mu.Lock()
	p.deploys++
	inPlace := p.certFile == fingerprint && p.keyFile == fingerprint && p.served == fingerprint
	before, fail := p.served, p.fail
	p.mu.Unlock()
	if inPlace && task.State == nil {
		return &deploy.Report{Verified: true}, nil
	}
	var state struct{ Before string }
	if task.State != nil {
		if err := json.Unmarshal(task.State, &state); err != nil {
			return nil, err
		}
	} else {
		state.Before = before
		text, err := json.Marshal(state)
		if err != nil {
			return nil, err
		}
		if err := task.Save(text); err != nil {
			return nil, &deploy.Error{Stage: deploy.StagePrepare, Err: err}
		}
	}
	p.point("place " + p.id + ": before the first file")
	p.set(func() { p.certFile = fingerprint; p.writes++ })
	p.point("place " + p.id + ": between the files")
	p.set(func() { p.keyFile = fingerprint })
	p.point("place " + p.id + ": before the reload")
	if fail != nil {
		if err := fail(ctx, task); err != nil {
			var failed *deploy.Error
			if !errors.As(err, &failed) || failed.RolledBack {
				p.set(func() { p.certFile, p.keyFile, p.served = state.Before, state.Before, state.Before })
			}
			return nil, err
		}
	}
	p.set(func() {
		if p.certFile != p.keyFile {
			p.t.Errorf("place %s reloads a pair that does not match", p.id)
		}
		p.served = p.certFile
	})
	p.point("place " + p.id + ": after the reload")
	return &deploy.Report{Changed: true, Verified: true}, nil
}

func (p *place) set(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
}

func (p *place) Verify(_ context.Context, leaf *x509.Certificate) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if want := pki.Fingerprint(leaf); p.served != want {
		return fmt.Errorf("serves %.8q, want %.8q", p.served, want)
	}
	return nil
}

func (p *place) Probed() bool { return true }

func (p *place) counts() (deploys, writes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deploys, p.writes
}

func (p *place) failWith(fn func(ctx context.Context, task *deploy.Task) error) {
	p.set(func() { p.fail = fn })
}

// breakDown makes every deployment here fail, until the returned function is
// called.
func (p *place) breakDown() (mend func()) {
	p.failWith(func(context.Context, *deploy.Task) error {
		return &deploy.Error{Stage: deploy.StageReload, RolledBack: true, Err: errors.New("does not start")}
	})
	return func() { p.failWith(nil) }
}
