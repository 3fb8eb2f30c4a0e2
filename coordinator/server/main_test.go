package server

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
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
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func newCA(t testing.TB, dir string) *ca.CA {
	t.Helper()
	authority, err := ca.New(ca.Config{
		SealKeyFile: filepath.Join(dir, "seal.key"), Name: "Example", LeafLifetime: time.Hour, IdentityLifetime: time.Hour,
	})
	require.NoError(t, err)
	return authority
}

// A testNode is a real node that can fail around its changes and lie about
// itself.
type testNode struct {
	*clustertest.Node
	proposals     int
	before, after map[int]error // by the number of the proposal, from 1
	readiness     atomic.Pointer[cluster.Readiness]
}

func (n *testNode) Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error) {
	n.proposals++
	if err := n.before[n.proposals]; err != nil {
		return nil, err
	}
	results, err := n.Node.Propose(ctx, commands...)
	if failure := n.after[n.proposals]; failure != nil {
		return nil, failure
	}
	return results, err
}

func (n *testNode) Ready() cluster.Readiness {
	if r := n.readiness.Load(); r != nil {
		return *r
	}
	return n.Node.Ready()
}

// handler stands for the parts behind the server.
type handler struct {
	http.HandlerFunc
}

func (handler) Period() time.Duration { return time.Minute }

func answer(text string) handler {
	return handler{func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }}
}

// A running server for tests.
type running struct {
	*Server
	t      *testing.T
	ca     *ca.CA
	names  Names
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // valid once ended is closed
}

// start runs a server with the CA of an existing data directory.
func start(t *testing.T, node Node, authority *ca.CA, agents Agents, api http.Handler, change func(*Config)) *running {
	t.Helper()
	listener, err := Listen(t.Context(), "127.0.0.1:0", ListenSetting)
	require.NoError(t, err)
	names, err := NamesOf([]string{"pki.example.com"})
	require.NoError(t, err)
	config := Config{
		Listener: listener, Names: names, Node: node, CA: authority, Agents: agents, API: api, Lists: answer("list"), MaxInFlight: 8, Log: quiet,
	}
	if change != nil {
		change(&config)
	}
	server, err := New(config)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Server: server, t: t, ca: authority, names: names, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = server.Run(ctx)
	}()
	t.Cleanup(r.stop)
	return r
}

func (r *running) stop() {
	r.cancel()
	<-r.ended
	assert.NoError(r.t, r.err)
}

// client knows nothing of the server but the fingerprint of its root.
func (r *running) client(identity *tlsutil.CertSource) *http.Client {
	r.t.Helper()
	pin := tlsutil.PinOf(r.ca.Root())
	config, err := tlsutil.ClientConfig(tlsutil.ClientOptions{Pin: &pin, ServerName: "pki.example.com", Source: identity})
	require.NoError(r.t, err)
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 60 * time.Second}
}

func (r *running) url(path string) string { return "https://" + r.Addr().String() + path }

// do sends a request and returns the answer with its body read.
func (r *running) do(method, path string, header http.Header) (*http.Response, string) {
	r.t.Helper()
	request, err := http.NewRequest(method, r.url(path), nil)
	require.NoError(r.t, err)
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := r.client(nil).Do(request)
	require.NoError(r.t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(r.t, err)
	return response, string(body)
}

func (r *running) problem(method, path string) *wire.Problem {
	r.t.Helper()
	response, body := r.do(method, path, nil)
	require.Equal(r.t, wire.ProblemContentType, response.Header.Get("Content-Type"), body)
	p := new(wire.Problem)
	require.NoError(r.t, json.Unmarshal([]byte(body), p))
	assert.Equal(r.t, response.StatusCode, p.Status)
	assert.Equal(r.t, response.Header.Get("X-Request-ID"), p.RequestID)
	assert.NotEmpty(r.t, p.Mend)
	return p
}

// bootstrapped is a node with a data directory that Bootstrap has prepared.
func bootstrapped(t *testing.T) (*testNode, *ca.CA, string) {
	t.Helper()
	dir := t.TempDir()
	node := &testNode{Node: clustertest.Start(t)}
	authority := newCA(t, dir)
	require.NoError(t, Bootstrap(t.Context(), node, authority, dir, quiet))
	return node, authority, dir
}
