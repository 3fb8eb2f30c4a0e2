package acme

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/internal/testca/pebble"
	"github.com/certctl/certctl/shared/pki"
)

func TestMain(m *testing.M) {
	// These tests wait for an authority more than they compute. A value on the
	// command line still wins: it is parsed after this.
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// disk is a KeyStore and StateStore that outlives issuers.
type disk struct {
	mu     sync.Mutex
	keys   map[string]crypto.Signer
	states map[string]json.RawMessage
	fail   error // what every save of a state returns
}

func newDisk() *disk {
	return &disk{keys: map[string]crypto.Signer{}, states: map[string]json.RawMessage{}}
}

func (d *disk) Create(a pki.KeyAlgorithm) (string, crypto.Signer, error) {
	key, err := pki.GenerateKey(a)
	if err != nil {
		return "", nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id := fmt.Sprintf("key-%d", len(d.keys)+1)
	d.keys[id] = key
	return id, key, nil
}

func (d *disk) Load(id string) (crypto.Signer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key, ok := d.keys[id]
	if !ok {
		return nil, fmt.Errorf("no key %s", id)
	}
	return key, nil
}

func (d *disk) IssuerState(name string) (json.RawMessage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.states[name], nil
}

func (d *disk) SaveIssuerState(name string, state json.RawMessage) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.states[name] = bytes.Clone(state)
	return nil
}

// logBuffer collects log lines of concurrent writers.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func configFor(ca *pebble.Server, d *disk) Config {
	return Config{
		Name: "pebble", DirectoryURL: ca.DirectoryURL, RootCAs: ca.ServerRoots, TermsAgreed: true,
		Contact: []string{"ops@certctl.test"},
		Solver:  HTTP01{Listen: loopback(ca.HTTPPort)},
		Keys:    d, State: d, Log: slog.New(slog.DiscardHandler),
		OrdersPer10s: 1000,
	}
}

func open(t testing.TB, config Config) *Issuer {
	t.Helper()
	i, err := New(config)
	require.NoError(t, err)
	t.Cleanup(i.Close)
	return i
}

var orderNumber atomic.Int64

// newOrder is an order whose saved state is kept in it, as the engine does.
func newOrder(t testing.TB, names ...string) *issuer.Order {
	t.Helper()
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	order := &issuer.Order{
		ID: strconv.FormatInt(orderNumber.Add(1), 10), Certificate: "test",
		Names: pki.MustParseNames(names...), Key: key,
	}
	order.Save = func(state json.RawMessage) error {
		order.State = bytes.Clone(state)
		return nil
	}
	return order
}

// uniqueName is a name that no other order has, so that no authorization of
// another test is reused.
func uniqueName() string { return fmt.Sprintf("host%d.example", orderNumber.Add(1)) }

// checkIssued is the engine's own check, and that the chain ends at a root of the CA.
func checkIssued(t testing.TB, order *issuer.Order, issued *issuer.Issued, roots ...*x509.Certificate) {
	t.Helper()
	chain, err := pki.CheckIssued(issued.Chain, order.Key.Public(), order.Names, time.Now())
	require.NoError(t, err)
	require.Equal(t, chain, issued.Chain, "already leaf first and without the root")
	if len(roots) == 0 {
		return
	}
	pool, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: intermediates})
	require.NoError(t, err)
}

// expectIssued waits until Pebble has logged that many certificates, which it
// does just after an order became valid, and requires that there are no more.
func expectIssued(t testing.TB, ca *pebble.Server, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return len(ca.Ledger().Issued) >= n }, 60*time.Second, 5*time.Millisecond)
	assert.Len(t, ca.Ledger().Issued, n, "certificates issued by the authority")
}

func requireClass(t testing.TB, want issuer.Class, err error) *issuer.Error {
	t.Helper()
	require.Error(t, err)
	got := issuer.Classify(err)
	require.Equal(t, want.String(), got.Class.String(), "%v", err)
	return got
}

func deadline(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
