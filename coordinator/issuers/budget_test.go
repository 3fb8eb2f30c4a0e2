package issuers_test

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/issuers"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/served"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/settings"
	"github.com/certctl/certctl/shared/wire"
)

// The budget of an order reaches the authority: from the variable that an operator
// sets, by way of the settings, the connector and the engine of orders, to the moments
// at which the authority is asked about an order that it never decides about.
func TestBudgetsFromTheEnvironmentToTheAuthority(t *testing.T) {
	t.Cleanup(func() { asyncpoll.SetDefaultMaxWait(0) })
	const (
		all      = "CERTCTL_ASYNC_POLL_MAX_WAIT_SECONDS=2400"
		ofKind   = 180 * time.Second
		ofIssuer = "    poll_max_wait: 40s\n"
	)
	for _, kind := range served.Kinds() {
		if served.AtOnce(kind) { // no order waits there
			continue
		}
		variable := "CERTCTL_" + strings.ToUpper(kind) + "_POLL_MAX_WAIT_SECONDS=180"
		for _, c := range []struct {
			name   string
			issuer string
			env    []string
			budget time.Duration
		}{
			{"own", ofIssuer, []string{variable, all}, 40 * time.Second},
			{"kind", "", []string{variable, all}, ofKind},
			{"all", "", []string{all}, 40 * time.Minute},
			{"default", "", nil, 10 * time.Minute},
		} {
			t.Run(kind+"/"+c.name, func(t *testing.T) {
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) { askedWithin(t, kind, dir, c.issuer, c.env, c.budget) })
			})
		}
	}
}

// askedWithin has one order wait at a fake for two hours, and compares when that is
// asked about it with what the budget says.
func askedWithin(t *testing.T, kind, dir, issuer string, env []string, budget time.Duration) {
	t.Helper()
	var mu sync.Mutex
	var placed time.Time
	var asked []time.Time
	pipe := fakeca.NewPipe()
	fake, err := served.New(kind, dir, pipe, fakeca.Config{Delay: 30 * 24 * time.Hour, Seen: func(op fakeca.Op, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		switch {
		case op == fakeca.Place:
			placed = now
		case op == fakeca.Login || strings.HasSuffix(r.URL.Path, "/status-changes"): // is about no order
		case !placed.IsZero() && now.After(placed) && (len(asked) == 0 || !asked[len(asked)-1].Equal(now)):
			asked = append(asked, now) // several requests may be one question
		}
	}})
	require.NoError(t, err)
	serving, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- fake.Serve(serving) }()
	defer func() {
		stop()
		require.NoError(t, <-served)
	}()

	file := filepath.Join(dir, "coordinator.yaml")
	require.NoError(t, os.WriteFile(file, []byte("issuers:\n  slow:\n"+issuer+fake.Settings("    ")), 0o600))
	var s config.Settings
	_, err = settings.Load(&s, settings.Options{File: file, FileRequired: true, Env: env})
	require.NoError(t, err)
	registry, err := issuers.New(&s, issuers.Options{Dial: pipe.Dial})
	require.NoError(t, err)
	defer registry.Close()

	node := newNode(t)
	engine, err := orders.New(orders.Config{
		Node: node, NodeID: "one", Issuers: registry.Orders(), Log: slog.New(slog.DiscardHandler),
		Random: func() float64 { return 0.5 }, // no jitter
	})
	require.NoError(t, err)
	engine.Lead(node)
	leading, retire := context.WithCancel(context.Background())
	worked := make(chan error)
	go func() { worked <- node.work(leading) }()
	node.order(t, "slow")
	time.Sleep(2 * time.Hour)
	synctest.Wait()
	retire()
	require.NoError(t, <-worked)

	mu.Lock()
	defer mu.Unlock()
	require.False(t, placed.IsZero(), "the order was not placed")
	want, slow := moments(budget)
	got := make([]time.Duration, 0, len(asked))
	for _, at := range asked {
		got = append(got, at.Sub(placed).Round(time.Second))
	}
	t.Logf("asked after %v", got)
	require.Greater(t, len(got), slow+1)
	// An authority that tells what has changed is asked less often after that.
	assert.Equal(t, want[:slow+1], got[:slow+1], "until the budget of %v is spent", budget)
	if kind != config.KindDigiCert {
		assert.Equal(t, want[:min(len(want), len(got))], got[:min(len(want), len(got))])
	}
	gaps := func(i int) time.Duration { return got[i+1] - got[i] }
	assert.GreaterOrEqual(t, gaps(slow), 5*time.Minute)
	if slow+2 < len(got) {
		assert.GreaterOrEqual(t, gaps(slow+1), 10*time.Minute, "at the slow pace")
	}
}

// moments are when an order is asked about within two hours of its placement, without
// jitter, and which of them is the first that finds the budget spent.
func moments(budget time.Duration) (list []time.Duration, slow int) {
	quick := []time.Duration{5 * time.Second, 15 * time.Second, 45 * time.Second, 135 * time.Second, 5 * time.Minute}
	slower := []time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, time.Hour}
	at := time.Duration(0)
	for i := 0; at < budget; i++ {
		at += quick[min(i, len(quick)-1)]
		list = append(list, at)
	}
	slow = len(list) - 1
	for i := 0; ; i++ {
		at += slower[min(i, len(slower)-1)]
		if at > 2*time.Hour {
			return list, slow
		}
		list = append(list, at)
	}
}

// node is a cluster of one that is always led.
type node struct {
	state *fleet.State
	work  func(ctx context.Context) error
	mu    sync.Mutex
}

func newNode(t *testing.T) *node {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	n := &node{state: state}
	n.do(t, fleet.CreateEnrollmentToken{Actor: "local", ID: "token", SecretHash: [32]byte{42}, NamePatterns: []string{"**.example.com"}, ExpiresAt: time.Now().AddDate(1, 0, 0)})
	n.do(t, fleet.EnrollAgent{
		TokenID: "token", SecretHash: [32]byte{42}, AgentID: "a",
		Identity: fleet.Identity{Certificate: []byte("a"), Fingerprint: "f", PublicKeyFingerprint: "k", Serial: "0a", NotAfter: time.Now().AddDate(0, 3, 0)},
		Host:     wire.HostReport{Hostname: "a", OS: "linux", Arch: "amd64", StartedAt: time.Now()}, Names: pki.MustParseNames("www.example.com"),
	})
	return n
}

func (n *node) do(t *testing.T, payload fleet.Payload) {
	t.Helper()
	command, err := fleet.NewCommand(time.Now(), payload)
	require.NoError(t, err)
	results, err := n.Propose(context.Background(), command)
	require.NoError(t, err)
	require.NoError(t, results[0].Err())
}

// order has the agent order a certificate at an issuer.
func (n *node) order(t *testing.T, issuer string) {
	t.Helper()
	n.do(t, fleet.SyncAgent{AgentID: "a", BootID: "boot", Sequence: 1, Orders: []fleet.OrderPlacement{placement(t, "one", issuer, "www.example.com")}})
}

// placement is an order with a key of its own.
func placement(t *testing.T, id, issuer string, names ...string) fleet.OrderPlacement {
	t.Helper()
	key, err := pki.GenerateKey("ecdsa-p256")
	require.NoError(t, err)
	parsed := pki.MustParseNames(names...)
	csr, err := pki.CreateCSR(key, parsed)
	require.NoError(t, err)
	fingerprint, err := pki.PublicKeyFingerprint(key.Public())
	require.NoError(t, err)
	return fleet.OrderPlacement{ID: id, Certificate: "web", Issuer: issuer, CSR: csr, Names: parsed, PublicKeyFingerprint: fingerprint}
}

func (n *node) State() *fleet.State { return n.state }

func (n *node) Propose(_ context.Context, commands ...fleet.Command) ([]fleet.Result, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	entry, err := fleet.EncodeEntry(commands)
	if err != nil {
		return nil, err
	}
	results, _, err := n.state.Apply(n.state.Index()+1, entry)
	return slices.Clone(results), err
}

func (n *node) VerifyLeader(context.Context) error              { return nil }
func (n *node) Term() uint64                                    { return 1 }
func (n *node) Lead(_ string, work func(context.Context) error) { n.work = work }
