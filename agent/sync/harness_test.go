package sync

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/coordinatortest"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is an agent's sync with a real store, real keys and a network in memory.
// It lives in a bubble of synctest.
type host struct {
	t       *testing.T
	dir     string
	network *coordinatortest.Memory
	coord   *coordinatortest.Coordinator
	log     *slog.Logger

	store  *store.Store
	keys   *keys.Dir
	client *Client
	clock  *clock.Clock // nil is the wall clock
	stop   func()

	agentID string
	results []string // certificates that OnResult was called for
	desired int      // calls of OnDesired
	asked   int      // calls of OnCommands
	prepare func(*Client)
}

// newHost makes an enrolled host and a coordinator that serves it. Nothing runs
// before start.
func newHost(t *testing.T) *host {
	h := &host{
		t: t, dir: t.TempDir(), network: coordinatortest.NewMemory(), coord: coordinatortest.New(t),
		log: slog.New(slog.DiscardHandler), stop: func() {},
	}
	h.coord.Serve(h.network)
	h.open()
	t.Cleanup(func() { h.crash() })
	return h
}

func (h *host) enrol() {
	id, key, err := h.keys.Create(pki.DefaultKeyAlgorithm)
	require.NoError(h.t, err)
	identity := h.coord.Join(key.Public())
	identity.KeyID = id
	require.NoError(h.t, h.store.SaveIdentity(identity))
	h.agentID = identity.AgentID
}

func (h *host) open() {
	var err error
	h.keys, err = keys.OpenDir(filepath.Join(h.dir, "keys"))
	require.NoError(h.t, err)
	h.store, err = store.Open(filepath.Join(h.dir, "state", "state.db"), store.Options{})
	require.NoError(h.t, err)
}

// start runs a client.
func (h *host) start() {
	var err error
	h.client, err = New(Config{
		Store: h.store, Keys: h.keys, Log: h.log, Host: wire.HostReport{Hostname: "web1", OS: "linux"},
		Clock:      h.clock,
		OnResult:   func(certificate string) { h.results = append(h.results, certificate) },
		OnDesired:  func() { h.desired++ },
		OnCommands: func() { h.asked++ },
	})
	require.NoError(h.t, err)
	h.client.dial = h.network.Dial
	if h.prepare != nil {
		h.prepare(h.client)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.client.Run(ctx) }()
	h.stop = func() {
		cancel()
		assert.NoError(h.t, <-done)
		h.stop = func() {}
	}
}

// crash ends the client and closes the store.
func (h *host) crash() {
	h.stop()
	if h.store != nil {
		require.NoError(h.t, h.store.Close())
		h.store = nil
	}
}

func (h *host) restart() {
	h.crash()
	h.open()
	h.start()
}

// pass lets fake time pass.
func (h *host) pass(d time.Duration) {
	require.NoError(h.t, backoff.Wait(context.Background(), d))
	synctest.Wait()
}

func (h *host) agent() *coordinatortest.Agent { return h.coord.Agent(h.agentID) }

func (h *host) certificate(name, text string) {
	require.NoError(h.t, h.store.Update(name, func(tx *store.CertificateTx) error {
		tx.Record.Issuer = text
		return nil
	}))
}

func (h *host) fact(detail string) {
	require.NoError(h.t, h.store.Append(wire.Event{Kind: wire.EventIssued, Detail: detail}))
}

func (h *host) order(id, certificate string) {
	key, err := pki.GenerateKey(pki.DefaultKeyAlgorithm)
	require.NoError(h.t, err)
	csr, err := pki.CreateCSR(key, pki.MustParseNames(certificate+".example.com"))
	require.NoError(h.t, err)
	require.NoError(h.t, h.store.PutOrder(store.Order{Request: wire.OrderRequest{ID: id, Certificate: certificate, CSR: csr}}))
}

func (h *host) identity() *store.Identity {
	identity, err := h.store.Identity()
	require.NoError(h.t, err)
	return identity
}

// converged compares the coordinator's picture with the store.
func (h *host) converged() error {
	changes, err := h.store.Changes(0, 0)
	if err != nil {
		return err
	}
	events, err := h.store.Events(0)
	if err != nil {
		return err
	}
	open, err := h.store.OpenOrders()
	if err != nil {
		return err
	}
	collected, err := h.store.CollectedOrders()
	if err != nil {
		return err
	}
	a := h.agent()
	switch {
	case a.Digest() != changes.Digest:
		return fmt.Errorf("the coordinator has %d rows, the agent %d, or they differ", len(a.Rows), len(changes.Rows))
	case len(events) > 0:
		return fmt.Errorf("%d facts wait", len(events))
	case len(open) > 0:
		return fmt.Errorf("%d orders wait", len(open))
	case len(collected) > 0:
		return fmt.Errorf("%d collected orders wait", len(collected))
	}
	return nil
}

func details(a *coordinatortest.Agent) []string {
	list := []string{}
	for _, e := range a.Events {
		if e.Kind == wire.EventIssued {
			list = append(list, e.Detail)
		}
	}
	return list
}
