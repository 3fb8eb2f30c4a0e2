package syncpair

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/agent/enroll"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/coordinator/agentapi"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/revocation"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

var quiet = slog.New(slog.DiscardHandler)

const patience = 60 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// coordinator is one whole coordinator behind TLS. Its port stays when it is
// started again.
type coordinator struct {
	t      *testing.T
	dir    string // of the node
	seal   string // file of the seal key
	node   *clustertest.Node
	ca     *ca.CA
	source tlsutil.CertSource
	url    string
	agents atomic.Pointer[agentapi.Service]
	lists  atomic.Pointer[revocation.Service]
	skew   atomic.Int64 // of its clock, nanoseconds
}

func (c *coordinator) now() time.Time { return time.Now().Add(time.Duration(c.skew.Load())) }

func newCoordinator(t *testing.T) *coordinator {
	t.Helper()
	return newCoordinatorAt(t, 0)
}

// newCoordinatorAt is one whose clock is off, but whose server's certificate is
// good today.
func newCoordinatorAt(t *testing.T, skew time.Duration) *coordinator {
	t.Helper()
	c := &coordinator{t: t, dir: t.TempDir(), seal: filepath.Join(t.TempDir(), "seal.key")}
	c.skew.Store(int64(skew))
	server := httptest.NewUnstartedServer(http.HandlerFunc(c.serve))
	c.url = "https://" + server.Listener.Addr().String()
	c.start(true)
	c.certifyNow()
	config, err := tlsutil.ServerConfig(tlsutil.ServerOptions{Source: &c.source})
	require.NoError(t, err)
	config.ClientAuth = tls.RequestClientCert
	server.Listener = tls.NewListener(server.Listener, config) // StartTLS would add a certificate of its own
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.Start()
	t.Cleanup(server.Close)
	return c
}

func (c *coordinator) serve(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, revocation.Prefix) {
		c.lists.Load().ServeHTTP(w, r)
		return
	}
	c.agents.Load().ServeHTTP(w, r)
}

// start runs a node on what is on disk. One that does not work stores orders and
// signs none.
func (c *coordinator) start(works bool) {
	c.t.Helper()
	var err error
	c.ca, err = ca.New(ca.Config{
		SealKeyFile: c.seal, Name: "Example", LeafLifetime: 10 * 24 * time.Hour, IdentityLifetime: 30 * 24 * time.Hour, Now: c.now,
		RevocationURL: c.url + revocation.Prefix,
	})
	require.NoError(c.t, err)
	c.node = clustertest.Restart(c.t, c.dir, func(node *cluster.Node) {
		service, err := agentapi.New(agentapi.Config{
			Node: node, CA: c.ca, Log: slog.New(slog.DiscardHandler), SyncInterval: time.Second, SyncTargetRate: 500, Now: c.now,
		})
		require.NoError(c.t, err)
		lists, err := revocation.New(revocation.Config{Node: node, CA: c.ca, Log: quiet, Now: c.now})
		require.NoError(c.t, err)
		if works {
			service.Lead(node)
			lists.Lead(node)
		}
		c.agents.Store(service)
		c.lists.Store(lists)
	})
	stored, ok := c.view().CA()
	if !ok {
		authorities, err := c.ca.Create()
		require.NoError(c.t, err)
		require.NoError(c.t, c.node.Do(fleet.InitCA{Actor: "local", Authorities: authorities}).Err())
		stored, ok = c.view().CA()
		require.True(c.t, ok)
	}
	change, needed, err := c.ca.FirstGeneration(stored, "local")
	require.NoError(c.t, err)
	if needed {
		require.NoError(c.t, c.node.Do(change).Err())
		stored, _ = c.view().CA()
	}
	require.NoError(c.t, c.ca.Unseal(stored))
}

func (c *coordinator) restart(works bool) {
	c.t.Helper()
	c.node.Stop()
	c.start(works)
}

// certify gives the server a new key and certificate.
func (c *coordinator) certify() {
	c.t.Helper()
	key, err := pki.GenerateKey(pki.DefaultKeyAlgorithm)
	require.NoError(c.t, err)
	leaf, err := c.ca.IssueServer(pki.MustParseNames("127.0.0.1"), key.Public())
	require.NoError(c.t, err)
	chain, err := c.ca.ServerChain(leaf)
	require.NoError(c.t, err)
	require.NoError(c.t, c.source.Set(chain, key))
}

func (c *coordinator) view() *fleet.View { return c.node.State().View() }

func (c *coordinator) token() wire.EnrollmentToken {
	c.t.Helper()
	token := wire.EnrollmentToken{ID: strings.ToLower(rand.Text()), RootPin: wire.PinOf(c.ca.Root())}
	_, _ = rand.Read(token.Secret[:])
	require.NoError(c.t, c.node.Do(fleet.CreateEnrollmentToken{
		ID: token.ID, SecretHash: token.SecretHash(), NamePatterns: []string{"**.example.com"}, MaxUses: 1, ExpiresAt: c.now().Add(time.Hour),
	}).Err())
	return token
}

// host is one agent without an engine.
type host struct {
	t      *testing.T
	store  *store.Store
	keys   *keys.Dir
	client *sync.Client
	id     string
	dial   func(ctx context.Context, network, address string) (net.Conn, error) // nil is the network
	tick   time.Duration                                                        // of an engine; 0 is a short one
}

// enrolled is a host that a token has made an agent of.
func (c *coordinator) enrolled() *host {
	c.t.Helper()
	return c.enrolledWith(c.token())
}

func (c *coordinator) enrolledWith(token wire.EnrollmentToken) *host {
	c.t.Helper()
	h := &host{t: c.t}
	dir := c.t.TempDir()
	var err error
	h.keys, err = keys.OpenDir(filepath.Join(dir, "keys"))
	require.NoError(c.t, err)
	h.store, err = store.Open(filepath.Join(dir, "state", "state.db"), store.Options{})
	require.NoError(c.t, err)
	c.t.Cleanup(func() { require.NoError(c.t, h.store.Close()) })
	identity, err := enroll.Enroll(c.t.Context(), enroll.Config{
		Servers: []string{c.url}, Token: token, Store: h.store, Keys: h.keys,
		Host: wire.HostReport{Hostname: "web1", OS: "linux", Arch: "amd64", Version: "1.0.0"}, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(c.t, err)
	h.id = identity.AgentID
	return h
}

// run starts the agent's sync and returns what stops it.
func (h *host) run() (stop func()) {
	h.t.Helper()
	var err error
	h.client, err = sync.New(sync.Config{
		Store: h.store, Keys: h.keys, Log: slog.New(slog.NewTextHandler(h.t.Output(), nil)),
		Host: wire.HostReport{Hostname: "web1", OS: "linux", Arch: "amd64", Version: "1.0.0"}, Dial: h.dial,
	})
	require.NoError(h.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.client.Run(ctx) }()
	return func() {
		cancel()
		assert.NoError(h.t, <-ended)
	}
}

// certificates gives the host that many certificates, each with a summary of
// about two kilobytes.
func (h *host) certificates(n int) {
	h.t.Helper()
	for i := range n {
		name := fmt.Sprintf("certificate-%05d", i)
		require.NoError(h.t, h.store.Update(name, func(tx *store.CertificateTx) error {
			tx.Record.Issuer, tx.Record.IssuerKind = "coordinator", "coordinator"
			tx.Record.Names = pki.MustParseNames(fmt.Sprintf("www%d.example.com", i), fmt.Sprintf("mail%d.example.com", i))
			tx.Record.LastError = strings.Repeat("the certificate authority did not answer; ", 24)
			return nil
		}))
	}
}

// agree waits until the coordinator has exactly the host's rows.
func (c *coordinator) agree(h *host) {
	c.t.Helper()
	changes, err := h.store.Changes(0, 1)
	require.NoError(c.t, err)
	require.Eventually(c.t, func() bool {
		agent, ok := c.view().Agent(h.id)
		return ok && agent.Sync.Digest == changes.Digest && agent.Sync.Revision == changes.Head && agent.Sync.ResyncID == ""
	}, patience, 10*time.Millisecond, "the coordinator has other rows than the agent")
}

// An inventory far above what one request and one log entry hold arrives whole,
// and arrives whole again when all of it is asked for.
func TestALargeInventory(t *testing.T) {
	const many = 5 * wire.MaxRows / 2
	c := newCoordinator(t)
	h := c.enrolled()
	h.certificates(many)
	defer h.run()()
	began := time.Now()
	c.agree(h)
	t.Logf("first sync: %v", time.Since(began))
	assert.Equal(t, many, c.view().Rows(fleet.TableCertificates))

	agent, ok := c.view().Agent(h.id)
	require.True(t, ok)
	assert.Zero(t, agent.Sync.Resyncs, "the first sync needs no second attempt")

	// Somebody with a copy of the identity has told something else.
	require.NoError(t, c.node.Do(fleet.SyncAgent{
		AgentID: h.id, BootID: "another-boot", Sequence: 1, BaseRevision: agent.Sync.Revision, Revision: agent.Sync.Revision,
		HeadRevision: agent.Sync.Revision, Digest: wire.Digest{1},
	}).Err())
	diverged, _ := c.view().Agent(h.id)
	require.NotEmpty(t, diverged.Sync.ResyncID)
	began = time.Now()
	c.agree(h)
	t.Logf("full resync: %v", time.Since(began))
	healed, _ := c.view().Agent(h.id)
	assert.EqualValues(t, 1, healed.Sync.Resyncs, "one full inventory is enough")
	assert.Equal(t, many, c.view().Rows(fleet.TableCertificates))

	// With nothing new, syncs go on and the log stands still.
	version := c.view().Version(fleet.TableAgents, fleet.TableCertificates)
	before := h.client.State().LastSuccess
	require.Eventually(t, func() bool { return h.client.State().LastSuccess.After(before.Add(3 * time.Second)) }, patience, 50*time.Millisecond)
	assert.Equal(t, version, c.view().Version(fleet.TableAgents, fleet.TableCertificates))
}

// A host that was away for a year, while the coordinator got new keys and
// certificates under its root, comes back by itself.
func TestAYearAway(t *testing.T) {
	c := newCoordinator(t)
	h := c.enrolled()
	h.certificates(1)
	stop := h.run()
	c.agree(h)
	stop()
	old, err := h.store.Identity()
	require.NoError(t, err)

	c.certify()
	c.skew.Store(int64(365 * 24 * time.Hour))
	h.certificates(2)
	defer h.run()()
	c.agree(h)
	require.Eventually(t, func() bool {
		identity, err := h.store.Identity()
		return err == nil && identity.Pending == nil && identity.ChainPEM != old.ChainPEM
	}, patience, 10*time.Millisecond, "the identity is not renewed")
	agent, ok := c.view().Agent(h.id)
	require.True(t, ok)
	assert.Equal(t, fleet.AgentActive, agent.State)
	assert.True(t, agent.Current.NotAfter.After(c.now()))
	require.Eventually(t, func() bool { return h.client.State().Standing == sync.Connected }, patience, 10*time.Millisecond, "the round that renewed it ends well")
}

// An order that was stored by one run of the coordinator, seen by the next and
// signed by the one after that gives one certificate, for the key that it was
// placed with.
func TestAnOrderOverTwoRestarts(t *testing.T) {
	c := newCoordinator(t)
	h := c.enrolled()
	c.restart(false)
	defer h.run()()
	key, err := pki.GenerateKey(pki.DefaultKeyAlgorithm)
	require.NoError(t, err)
	names := pki.MustParseNames("www.example.com")
	csr, err := pki.CreateCSR(key, names)
	require.NoError(t, err)
	const id = "order-0001"
	require.NoError(t, h.store.PutOrder(store.Order{Request: wire.OrderRequest{ID: id, Certificate: "www", CSR: csr}}))
	h.client.Urge()
	requested := func() bool {
		order, ok := c.view().Order(h.id, id)
		return ok && order.State == fleet.OrderRequested
	}
	require.Eventually(t, requested, patience, 10*time.Millisecond)
	c.restart(false)
	require.True(t, requested(), "an acknowledged order outlives a restart")
	c.restart(true)

	var result *wire.OrderResult
	require.Eventually(t, func() bool {
		order, known, err := h.store.Order(id)
		require.NoError(t, err)
		require.True(t, known)
		result = order.Result
		return result != nil
	}, patience, 10*time.Millisecond)
	require.Equal(t, wire.OrderIssued, result.State)
	chain, err := pki.ParseChainPEM([]byte(result.Chain))
	require.NoError(t, err)
	_, err = pki.CheckIssued(chain, key.Public(), names, time.Now())
	require.NoError(t, err)

	// The result is collected, and the order is not worked on again.
	require.Eventually(t, func() bool {
		order, ok := c.view().Order(h.id, id)
		return ok && order.State == fleet.OrderCollected && order.Serial == pki.SerialHex(chain[0])
	}, patience, 10*time.Millisecond)
	assert.Equal(t, 1, c.view().Rows(fleet.TableOrders))
}
