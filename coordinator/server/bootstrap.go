package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Names of the files that Bootstrap keeps in the data directory.
const (
	RootFile       = "root.pem"    // the root certificate, for everybody
	AdminTokenFile = "admin.token" // the first API token, for the coordinator's user alone
)

// bootstrapActor is whose acts these are in the journal.
const bootstrapActor = "local"

// BootstrapNode is the replicated state; *cluster.Node is one.
type BootstrapNode interface {
	State() *fleet.State
	Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error)
	Ready() cluster.Readiness
}

// Bootstrap makes what a coordinator needs to have before it serves, unless it
// is there, and unseals the CA:
//
//   - the beginning of the audit trail's chain, in the state;
//   - the built-in CA, in the state;
//   - the first generation of trust, in the state;
//   - RootFile in dataDir;
//   - an API token of the role admin, if the state has none that is usable, in
//     AdminTokenFile in dataDir.
//
// It waits for the node to know the state, and returns ctx's error if that ends
// first. It may be called at every start; a crash between any two of its steps
// is continued by the next call.
func Bootstrap(ctx context.Context, node BootstrapNode, authority *ca.CA, dataDir string, log *slog.Logger) error {
	b := &bootstrap{node: node, ca: authority, dir: dataDir, log: log}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"wait for the cluster", b.awaitState},
		{"chain of the audit trail", b.ensureChain},
		{"built-in CA", b.ensureCA},
		{"first generation of trust", b.ensureTrust},
		{"root certificate", b.ensureRootFile},
		{"first API token", b.ensureAdmin},
	} {
		if err := b.insist(ctx, step.do); err != nil {
			return fmt.Errorf("start the coordinator: %s: %w", step.what, err)
		}
	}
	return nil
}

// insist repeats a step while another node takes over the leadership in the
// middle of it. Each step begins with a look at what is there.
func (b *bootstrap) insist(ctx context.Context, step func(context.Context) error) error {
	for attempt := 1; ; attempt++ {
		err := step(ctx)
		_, unknown := errors.AsType[*cluster.UnknownOutcomeError](err)
		if !unknown && !errors.Is(err, cluster.ErrNotLeader) {
			return err
		}
		if backoff.Wait(ctx, statePoll.Delay(attempt, nil)) != nil {
			return err
		}
	}
}

type bootstrap struct {
	node BootstrapNode
	ca   *ca.CA
	dir  string
	log  *slog.Logger
}

var statePoll = backoff.Policy{Initial: 10 * time.Millisecond, Max: time.Second, Multiplier: 1.5, Jitter: 0.2}

// until polls a condition.
func until(ctx context.Context, condition func() bool) error {
	for attempt := 1; !condition(); attempt++ {
		if err := backoff.Wait(ctx, statePoll.Delay(attempt, nil)); err != nil {
			return err
		}
	}
	return nil
}

// awaitState waits until the log is applied: before, an existing CA would look
// like none.
func (b *bootstrap) awaitState(ctx context.Context) error {
	return until(ctx, func() bool {
		ready := b.node.Ready()
		return ready.LeaderKnown && ready.Applied
	})
}

// ensureChain begins the chain of the audit trail in a cluster that is being founded,
// before there is anything else in it. Elsewhere the leader sees to it when it can.
func (b *bootstrap) ensureChain(ctx context.Context) error {
	if view := b.node.State().View(); view.AuditFacts() > 0 || !b.node.Ready().Leading {
		return nil
	}
	return b.propose(ctx, fleet.BeginAuditChain{Actor: bootstrapActor}, nil)
}

func (b *bootstrap) ensureCA(ctx context.Context) error {
	var stored *fleet.CA
	var ok bool
	err := until(ctx, func() bool {
		stored, ok = b.node.State().View().CA()
		return ok || b.node.Ready().Leading // the leader makes it, the others wait for it
	})
	if err != nil {
		return err
	}
	if ok {
		return b.ca.Unseal(stored)
	}
	authorities, err := b.ca.Create()
	if err != nil {
		return err
	}
	var outcome fleet.InitializedCA
	if err := b.propose(ctx, fleet.InitCA{Actor: bootstrapActor, Authorities: authorities}, &outcome); err != nil {
		return err
	}
	if err := b.ca.Unseal(&outcome.CA); err != nil {
		return err
	}
	if outcome.Created {
		b.log.Info("the built-in CA was made", "cluster_id", b.ca.ClusterID(), "root_fingerprint", pki.Fingerprint(b.ca.Root()), "not_after", b.ca.Root().NotAfter)
	}
	return nil
}

// ensureTrust gives a CA of before there were generations of trust its first
// one. Only the leader does; another node that leads later finds it made, or a
// rotation makes it.
func (b *bootstrap) ensureTrust(ctx context.Context) error {
	stored, ok := b.node.State().View().CA()
	if !ok || !b.node.Ready().Leading {
		return nil
	}
	change, needed, err := b.ca.FirstGeneration(stored, bootstrapActor)
	if err != nil || !needed {
		return err
	}
	err = b.propose(ctx, change, nil)
	if refused, ok := errors.AsType[*fleet.RejectedError](err); ok && refused.Code == wire.CodeConflict {
		return nil // another node was quicker
	}
	if err != nil {
		return err
	}
	stored, _ = b.node.State().View().CA()
	return b.ca.Unseal(stored)
}

func (b *bootstrap) ensureRootFile(context.Context) error {
	return writeRoots(filepath.Join(b.dir, RootFile), b.ca)
}

// writeRoots makes a file hold the roots that clients have to trust.
func writeRoots(path string, authority *ca.CA) error {
	roots := []byte(authority.RootsPEM())
	if stored, err := os.ReadFile(path); err == nil && bytes.Equal(stored, roots) {
		return nil
	}
	return durable.WriteFile(path, roots, 0o644)
}

// ensureAdmin makes sure that somebody can administer the coordinator. The
// token is in its file before the state knows it, so that no crash can leave
// behind a token that nobody has; a token in the file that the state does not
// know is such a one, and is used.
func (b *bootstrap) ensureAdmin(ctx context.Context) error {
	if b.hasAdmin(time.Now()) || !b.node.Ready().Leading {
		return nil
	}
	path := filepath.Join(b.dir, AdminTokenFile)
	token, ok, err := b.unusedToken(path)
	if err != nil {
		return err
	}
	if !ok {
		token = apitoken.New()
		own := durable.Ownership{UID: durable.Keep, GID: durable.Keep, Mode: 0o600}
		if err := durable.WriteFileOwned(path, []byte(token.Reveal()+"\n"), own); err != nil {
			return err
		}
	}
	err = b.propose(ctx, fleet.CreateAPIToken{
		Actor: bootstrapActor, ID: token.ID, Name: "first administrator", Hash: token.Hash(), Role: fleet.RoleAdmin,
	}, nil)
	if err != nil {
		return err
	}
	b.log.Info("an API token of the role admin was made", "token_id", token.ID, "file", path)
	return nil
}

func (b *bootstrap) hasAdmin(now time.Time) bool {
	for _, token := range b.node.State().View().APITokens() {
		if token.Role == fleet.RoleAdmin && token.Scope.IsZero() && token.Usable(now) {
			return true
		}
	}
	return false
}

// unusedToken reads a token that an earlier start wrote and did not get to
// store.
func (b *bootstrap) unusedToken(path string) (apitoken.Token, bool, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return apitoken.Token{}, false, nil
	}
	if err != nil {
		return apitoken.Token{}, false, err
	}
	token, err := apitoken.Parse(string(text))
	if errors.Is(err, apitoken.ErrMalformed) {
		return apitoken.Token{}, false, nil // somebody's note; it is replaced
	}
	_, known := b.node.State().View().APIToken(token.ID)
	return token, !known, err
}

func (b *bootstrap) propose(ctx context.Context, payload fleet.Payload, outcome any) error {
	command, err := fleet.NewCommand(time.Now(), payload)
	if err != nil {
		return err
	}
	results, err := b.node.Propose(ctx, command)
	if err != nil {
		return err
	}
	if outcome == nil {
		return results[0].Err()
	}
	return results[0].Decode(outcome)
}
