package agentapi

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/pass"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// elsewhere is another node of the world's cluster, as it looks to agents: it has
// the same state, and a service of its own.
type elsewhere struct {
	w       *world
	service *Service
	server  *httptest.Server
	leads   atomic.Bool
	known   atomic.Bool // it knows who leads
	log     logText
}

// follower is the node for which elsewhere's service takes its own.
type follower struct {
	*cluster.Node
	leads *atomic.Bool
}

// IsLeader implements Node.
func (f follower) IsLeader() bool { return f.leads.Load() }

func (w *world) elsewhere() *elsewhere {
	w.t.Helper()
	e := &elsewhere{w: w}
	e.known.Store(true)
	peers := httptest.NewServer(pass.Receive(func(context.Context) (string, bool) { return "node-b", true }, w.node.IsLeader, w.service))
	w.t.Cleanup(peers.Close)
	way := &http.Transport{}
	w.t.Cleanup(way.CloseIdleConnections)
	authority, err := ca.New(ca.Config{SealKey: "", SealKeyFile: w.sealKey, Name: "Example", LeafLifetime: time.Hour, IdentityLifetime: 24 * time.Hour, Now: w.now})
	require.NoError(w.t, err)
	stored, ok := w.view().CA()
	require.True(w.t, ok)
	require.NoError(w.t, authority.Unseal(stored))
	e.service, err = New(Config{
		Node: follower{w.node.Node, &e.leads}, CA: authority, Log: slog.New(slog.NewTextHandler(&e.log, nil)),
		SyncInterval: time.Minute, SyncTargetRate: 500, Reserved: pki.MustParseNames("pki.example.com"), Now: w.now,
		Leader: func() (http.RoundTripper, string, bool) { return way, peers.URL, e.known.Load() },
	})
	require.NoError(w.t, err)
	e.server = httptest.NewUnstartedServer(e.service)
	e.server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert}
	e.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	e.server.StartTLS()
	w.t.Cleanup(e.server.Close)
	return e
}

// to has the world's agents talk to another node while fn runs.
func (w *world) to(e *elsewhere, fn func()) {
	own := w.server
	defer func() { w.server = own }()
	w.server = e.server
	fn()
}

// An agent may do all it does at any node: it is the leader that answers, and
// keeps what it remembers of the agent, whichever node it comes to.
func TestAnyNodeAnswers(t *testing.T) {
	w := newWorld(t)
	e := w.elsewhere()
	var a *agent
	w.to(e, func() {
		a = w.enrolled()
		a.put("web", summary("www.example.com"))
		request := a.request()
		request.Orders = []wire.OrderRequest{a.order("www.example.com")}
		answer := a.send(request)
		assert.EqualValues(t, 1, answer.Revision)
		require.Len(t, answer.Orders, 1)
		assert.Equal(t, wire.OrderIssued, answer.Orders[0].State)

		key := w.newKey()
		chain, p := a.renew(key)
		require.Nil(t, p)
		a.use(key, chain)
		a.sync()
		assert.Zero(t, must(w.view().Agent(a.id)).Pending, "the new identity was shown to the leader")
	})
	assert.Contains(t, w.log.since(0), "remote=127.0.0.1:", "the agent's address is in the leader's log")
	_, here := e.service.LastSeen(a.id)
	assert.False(t, here)
	_, there := w.service.LastSeen(a.id)
	assert.True(t, there)

	// The order of requests holds across nodes.
	old := a.request()
	a.sync()
	w.to(e, func() {
		p := w.post(a, wire.SyncPath, old, nil)
		require.NotNil(t, p)
		assert.Equal(t, wire.CodeStale, p.Code)
	})
	counts := w.service.Counts()
	assert.EqualValues(t, 1, counts.Accepted)
	assert.EqualValues(t, 2, counts.Unchanged)
	assert.Equal(t, map[wire.Code]uint64{wire.CodeStale: 1}, counts.Refused)
	assert.Zero(t, counts.Passed)
	assert.Equal(t, Counts{Passed: pass.Counts{Answered: 5}}, e.service.Counts())
}

func must[T any](value T, ok bool) T {
	if !ok {
		panic("not found")
	}
	return value
}

// What needs no leader is answered without one; the rest by whoever becomes it.
func TestWhileNobodyLeads(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	e := w.elsewhere()
	e.known.Store(false)
	w.to(e, func() {
		p := w.post(nil, wire.SyncPath, a.request(), nil)
		require.NotNil(t, p)
		assert.Equal(t, wire.CodeIdentityMissing, p.Code)
		require.Nil(t, w.post(nil, wire.TrustPath, wire.TrustRequest{Protocol: wire.Protocol}, new(wire.TrustResponse)))

		elected := time.AfterFunc(100*time.Millisecond, func() { e.leads.Store(true) })
		defer elected.Stop()
		a.sync()
	})
	counts := e.service.Counts()
	assert.EqualValues(t, 1, counts.Accepted+counts.Unchanged, "answered here")
	assert.Zero(t, counts.Passed.Answered)
}

// A request that was passed to a node that leads no more goes no further.
func TestPassedRequestsGoNoFurther(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	e := w.elsewhere()
	w.node.follower.Store(true) // e's leader
	received := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, wire.SyncPath, nil)
	r.Header.Set("Certctl-Passed-Remote", "192.0.2.1:1")
	r.Header.Set("Certctl-Passed-Patience", "1000")
	// It leads when the request comes, and not any more when it is worked on.
	pass.Receive(func(context.Context) (string, bool) { return "node-c", true }, func() bool { return true }, e.service).ServeHTTP(received, r)
	assert.Equal(t, http.StatusServiceUnavailable, received.Code)
	p := new(wire.Problem)
	require.NoError(t, json.Unmarshal(received.Body.Bytes(), p))
	assert.Equal(t, wire.CodeUnavailable, p.Code)
	assert.Zero(t, e.service.Counts().Passed)
	w.node.follower.Store(false)
	w.to(e, func() { a.sync() })
}

// postSlowly sends a request whose body does not end until there is enough of it. One
// that is refused, because others were there at the moment, is sent again.
func (w *world) postSlowly(a *agent, enough <-chan struct{}) {
	for {
		body, rest := io.Pipe()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			w.postRaw(a, wire.SyncPath, body, -1, nil)
			_ = body.Close() // or who writes waits for a reader
		}()
		_, _ = io.WriteString(rest, "{") // fails where the answer comes first
		select {
		case <-answered:
		case <-enough:
			_ = rest.Close()
			<-answered
			return
		}
	}
}

// Who sends its bodies slowly holds few places at a node that does not lead, too.
func TestSlowBodiesElsewhere(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	e := w.elsewhere()
	w.to(e, func() {
		var slow sync.WaitGroup
		enough := make(chan struct{})
		for range maxPresent {
			slow.Go(func() { w.postSlowly(a, enough) })
		}
		assert.Eventually(t, func() bool {
			p := w.post(a, wire.SyncPath, a.request(), new(wire.SyncResponse))
			return p != nil && p.Code == wire.CodeOverloaded
		}, 60*time.Second, 10*time.Millisecond)
		close(enough)
		slow.Wait()
		a.sync()
	})
}
