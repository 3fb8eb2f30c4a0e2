package agentapi

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A faultyNode is a real node whose Propose can fail on either side of the
// change.
type faultyNode struct {
	*cluster.Node
	before, after atomic.Pointer[error] // returned once
	follower      atomic.Bool
	commands      atomic.Int64  // proposed, without last signs of life
	level         atomic.Uint32 // of another member that is still to be upgraded; 0 for none
}

func (n *faultyNode) Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error) {
	for _, command := range commands {
		if command.Type != fleet.TypeTouchAgents {
			n.commands.Add(1)
		}
	}
	if err := n.before.Swap(nil); err != nil {
		return nil, *err
	}
	for _, command := range commands {
		if required, level := fleet.RequiredLevel(command), n.level.Load(); level > 0 && required > level {
			return nil, &cluster.LevelError{Required: required, Nodes: []string{"old"}}
		}
	}
	results, err := n.Node.Propose(ctx, commands...)
	if failure := n.after.Swap(nil); failure != nil {
		return nil, *failure
	}
	return results, err
}

func (n *faultyNode) IsLeader() bool { return !n.follower.Load() && n.Node.IsLeader() }

// world is a coordinator for tests: a real node, a real CA and real TLS.
type world struct {
	t       *testing.T
	node    *faultyNode
	real    *clustertest.Node
	ca      *ca.CA
	sealKey string // file
	service *Service
	server  *httptest.Server
	skew    atomic.Int64 // of the coordinator's clock, nanoseconds
	log     logText      // of the service
	woken   atomic.Int64 // how often who works on brokered orders was
}

// logText collects a log.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// since returns what was logged after the first n octets.
func (l *logText) since(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()[n:]
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.skew.Load())) }

// sleep lets time pass for the coordinator.
func (w *world) sleep(d time.Duration) { w.skew.Add(int64(d)) }

// sealedWorld has a CA that cannot issue yet.
func sealedWorld(t *testing.T) *world {
	t.Helper()
	return newSealedWorld(t, true)
}

// stillWorld has a leader that does nothing by itself: what enters the log, and
// what meets a fault, comes from the test.
func stillWorld(t *testing.T) *world {
	t.Helper()
	w := newSealedWorld(t, false)
	w.unseal()
	return w
}

func newSealedWorld(t *testing.T, leads bool) *world {
	t.Helper()
	w := &world{t: t, sealKey: filepath.Join(t.TempDir(), "seal.key")}
	authority, err := ca.New(ca.Config{
		SealKeyFile: w.sealKey, Name: "Example",
		LeafLifetime: 30 * 24 * time.Hour, IdentityLifetime: 24 * time.Hour, Now: w.now,
	})
	require.NoError(t, err)
	w.ca = authority
	w.real = clustertest.Restart(t, t.TempDir(), func(node *cluster.Node) {
		w.node = &faultyNode{Node: node}
		w.service, err = New(Config{
			Node: w.node, CA: authority, Log: slog.New(slog.NewTextHandler(&w.log, nil)),
			SyncInterval: time.Minute, SyncTargetRate: 500,
			Reserved: pki.MustParseNames("pki.example.com", "192.0.2.1"), Now: w.now,
			Known: func(issuer string) bool { return issuer == "slow" }, Placed: func() { w.woken.Add(1) },
		})
		require.NoError(t, err)
		w.service.patience = requestPatience // a busy machine takes its time to sign
		if leads {
			w.service.Lead(node)
		}
	})
	w.server = httptest.NewUnstartedServer(w.service)
	w.server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert}
	w.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	return w
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := sealedWorld(t)
	w.unseal()
	return w
}

func (w *world) unseal() {
	w.t.Helper()
	authorities, err := w.ca.Create()
	require.NoError(w.t, err)
	w.do(fleet.InitCA{Actor: "local", Authorities: authorities})
	stored, ok := w.view().CA()
	require.True(w.t, ok)
	require.NoError(w.t, w.ca.Unseal(stored))
}

func (w *world) view() *fleet.View { return w.node.State().View() }

func (w *world) do(payload fleet.Payload) {
	w.t.Helper()
	require.NoError(w.t, w.real.Do(payload).Err())
}

// token makes an enrolment token that allows what the tests ask for.
func (w *world) token(change func(*fleet.CreateEnrollmentToken)) wire.EnrollmentToken {
	w.t.Helper()
	token := wire.EnrollmentToken{ID: newAgentID(), RootPin: wire.PinOf(w.ca.Root())}
	_, _ = rand.Read(token.Secret[:])
	create := fleet.CreateEnrollmentToken{
		ID: token.ID, SecretHash: token.SecretHash(), NamePatterns: []string{"**.example.com", "192.0.2.0/24"},
		Labels: map[string]string{"env": "test"}, MaxUses: 1, ExpiresAt: w.now().Add(time.Hour),
	}
	if change != nil {
		change(&create)
	}
	w.do(create)
	return token
}

// unchanged fails the test if fn changes the state, or makes anything enter the
// log. Last signs of life, which do by the clock, are left out.
func (w *world) unchanged(fn func()) {
	w.t.Helper()
	tables := []fleet.Table{fleet.TableAgents, fleet.TableCertificates, fleet.TableOrders, fleet.TableEnrollmentTokens, fleet.TableCA}
	before, commands := w.view().Version(tables...), w.node.commands.Load()
	fn()
	assert.Equal(w.t, commands, w.node.commands.Load(), "a command was proposed")
	assert.Equal(w.t, before, w.view().Version(tables...), "the state has changed")
}

// An agent for tests. It keeps its rows as a real one does.
type agent struct {
	w     *world
	id    string
	key   crypto.Signer
	chain []*x509.Certificate

	boot     string
	sequence uint64
	acked    uint64 // revision
	head     uint64
	digest   wire.Digest
	rows     map[string]wire.Row
}

func (w *world) newKey() crypto.Signer {
	w.t.Helper()
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(w.t, err)
	return key
}

// csr is a request without names, as agents send it for an identity.
func (w *world) csr(key crypto.Signer) []byte {
	w.t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(w.t, err)
	return der
}

var host = wire.HostReport{Hostname: "web1", OS: "linux", Arch: "amd64", Version: "1.0.0", StartedAt: time.Now()}

// enrolled is a new agent.
func (w *world) enrolled() *agent {
	w.t.Helper()
	return w.enroll(w.newKey(), w.token(nil))
}

func (w *world) enroll(key crypto.Signer, token wire.EnrollmentToken) *agent {
	w.t.Helper()
	var answer wire.EnrollResponse
	p := w.post(nil, wire.EnrollPath, wire.EnrollRequest{Protocol: wire.Protocol, Token: token.Reveal(), CSR: w.csr(key), Host: host}, &answer)
	require.Nil(w.t, p)
	a := &agent{w: w, id: answer.AgentID, key: key, rows: map[string]wire.Row{}}
	a.use(key, answer.Chain)
	a.restart()
	return a
}

func (a *agent) use(key crypto.Signer, chain string) {
	a.w.t.Helper()
	certs, err := pki.ParseChainPEM([]byte(chain))
	require.NoError(a.w.t, err)
	require.NoError(a.w.t, pki.MatchKey(certs[0], key))
	a.key, a.chain = key, certs
}

func (a *agent) restart() { a.boot, a.sequence = newAgentID(), 0 }

func (a *agent) certificate() *tls.Certificate {
	cert := &tls.Certificate{PrivateKey: a.key, Leaf: a.chain[0]}
	for _, c := range a.chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

// put changes a row of the agent's inventory.
func (a *agent) put(name string, summary wire.Summary) {
	a.w.t.Helper()
	data, err := json.Marshal(summary)
	require.NoError(a.w.t, err)
	a.head++
	if old, ok := a.rows[name]; ok {
		a.digest.Toggle(old.Hash())
	}
	row := wire.Row{Name: name, Revision: a.head, Data: data}
	a.rows[name] = row
	a.digest.Toggle(row.Hash())
}

// request is the agent's next sync.
func (a *agent) request() *wire.SyncRequest {
	a.sequence++
	r := &wire.SyncRequest{
		Protocol: wire.Protocol, BootID: a.boot, Sequence: a.sequence, SentAt: time.Now(), Host: host,
		BaseRevision: a.acked, Revision: a.head, HeadRevision: a.head, Digest: a.digest,
	}
	for _, row := range a.rows {
		if row.Revision > a.acked {
			r.Rows = append(r.Rows, row)
		}
	}
	return r
}

// send sends a sync and expects it to be answered.
func (a *agent) send(r *wire.SyncRequest) *wire.SyncResponse {
	a.w.t.Helper()
	answer := new(wire.SyncResponse)
	require.Nil(a.w.t, a.w.post(a, wire.SyncPath, r, answer))
	a.acked = answer.Revision
	return answer
}

func (a *agent) sync() *wire.SyncResponse {
	a.w.t.Helper()
	return a.send(a.request())
}

// renew asks for a new identity for key.
func (a *agent) renew(key crypto.Signer) (chain string, p *wire.Problem) {
	a.w.t.Helper()
	var answer wire.IdentityResponse
	p = a.w.post(a, wire.IdentityPath, wire.IdentityRequest{Protocol: wire.Protocol, CSR: a.w.csr(key)}, &answer)
	return answer.Chain, p
}

// order is a request for a certificate.
func (a *agent) order(names ...string) wire.OrderRequest {
	a.w.t.Helper()
	csr, err := pki.CreateCSR(a.w.newKey(), pki.MustParseNames(names...))
	require.NoError(a.w.t, err)
	return wire.OrderRequest{ID: newAgentID(), Certificate: "web", CSR: csr}
}

func (w *world) post(who *agent, path string, body, answer any) *wire.Problem {
	w.t.Helper()
	encoded, err := json.Marshal(body)
	require.NoError(w.t, err)
	return w.postRaw(who, path, bytes.NewReader(encoded), int64(len(encoded)), answer)
}

// postRaw sends a body as who, or as nobody, on a connection of its own.
func (w *world) postRaw(who *agent, path string, body io.Reader, length int64, answer any) *wire.Problem {
	w.t.Helper()
	request, err := http.NewRequest(http.MethodPost, w.server.URL+path, body)
	require.NoError(w.t, err)
	request.ContentLength = length
	response, err := w.client(who).Do(request)
	require.NoError(w.t, err)
	return w.read(response, answer)
}

func (w *world) client(who *agent) *http.Client {
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
	if who != nil {
		cert := who.certificate()
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: 2 * time.Minute}
}

func (w *world) read(response *http.Response, answer any) *wire.Problem {
	w.t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(w.t, err)
	assert.Equal(w.t, "no-store", response.Header.Get("Cache-Control"))
	if response.StatusCode == http.StatusOK {
		assert.Equal(w.t, "application/json", response.Header.Get("Content-Type"))
		require.NoError(w.t, json.Unmarshal(body, answer), "%s", body)
		return nil
	}
	p := new(wire.Problem)
	assert.Equal(w.t, wire.ProblemContentType, response.Header.Get("Content-Type"))
	require.NoError(w.t, json.Unmarshal(body, p), "%s", body)
	assert.Equal(w.t, response.StatusCode, p.Status)
	assert.NotEmpty(w.t, p.Title)
	assert.NotEmpty(w.t, p.Detail, "a problem says what is wrong")
	if p.RetryAfterSeconds > 0 {
		assert.NotEmpty(w.t, response.Header.Get("Retry-After"))
	}
	return p
}

// concurrently runs fn so often at the same time.
func concurrently(n int, fn func(int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { fn(i) })
	}
	all.Wait()
}

// secretIn reports whether a token's secret stands in a text.
func secretIn(text string, token wire.EnrollmentToken) bool {
	return strings.Contains(text, strings.Split(token.Reveal(), ".")[2])
}
