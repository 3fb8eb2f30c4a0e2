package syncpair

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	gosync "sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/coordinatortest"
	"github.com/certctl/certctl/coordinator/agentapi"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/runner"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

// storing is how long one entry takes to get into the log of a virtual
// coordinator.
const storing = 50 * time.Millisecond

// A memoryLog is a node whose log is a list of facts. Entries take their time,
// and many can be under way at once.
type memoryLog struct {
	state *fleet.State

	mu    gosync.Mutex
	facts []fleet.Fact
	moved chan struct{} // closed and replaced by each entry
}

func (n *memoryLog) State() *fleet.State      { return n.state }
func (n *memoryLog) IsLeader() bool           { return true }
func (n *memoryLog) Ready() cluster.Readiness { return cluster.Readiness{} }

func (n *memoryLog) Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error) {
	select {
	case <-time.After(storing):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	entry, err := fleet.EncodeEntry(commands)
	if err != nil {
		return nil, err
	}
	results, facts, err := n.state.Apply(n.state.Index()+1, entry)
	n.facts = append(n.facts, facts...)
	close(n.moved)
	n.moved = make(chan struct{})
	return results, err
}

func (n *memoryLog) WaitIndex(ctx context.Context, index uint64) error {
	for {
		n.mu.Lock()
		moved := n.moved
		n.mu.Unlock()
		if n.state.Index() >= index {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leadership collects the leader's work.
type leadership []runner.Task

func (l *leadership) Lead(name string, work func(context.Context) error) {
	*l = append(*l, runner.Task{Name: name, Run: work})
}

// An arrival is one request of an agent and what became of it.
type arrival struct {
	at         time.Duration // since the world began
	agent      string
	status     int // 0: its answer was lost
	code       wire.Code
	retryAfter time.Duration
}

// virtual is a coordinator in a bubble of synctest: its real server with its
// limits, its agents' side, CA and TLS, over a network and a log in memory.
// Every request is noted.
type virtual struct {
	t       *testing.T
	began   time.Time
	network *coordinatortest.Memory
	log     *memoryLog
	ca      *ca.CA
	agents  *agentapi.Service
	loses   func(agent string) bool // the answer; set before anybody comes

	mu       gosync.Mutex
	arrivals []arrival
}

// newVirtual runs a coordinator and returns what ends it.
func newVirtual(t *testing.T, inFlight, rate int, interval time.Duration) (v *virtual, stop func()) {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	v = &virtual{
		t: t, began: time.Now(), network: coordinatortest.NewMemory(), loses: func(string) bool { return false },
		log: &memoryLog{state: state, moved: make(chan struct{})},
	}
	v.ca, err = ca.New(ca.Config{
		SealKeyFile: filepath.Join(t.TempDir(), "seal.key"), Name: "Example", LeafLifetime: 10 * 24 * time.Hour, IdentityLifetime: 30 * 24 * time.Hour,
	})
	require.NoError(t, err)
	v.agents, err = agentapi.New(agentapi.Config{Node: v.log, CA: v.ca, Log: quiet, SyncInterval: interval, SyncTargetRate: rate,
		Known: func(issuer string) bool { return issuer == slow }})
	require.NoError(t, err)
	var work leadership
	v.agents.Lead(&work)
	authorities, err := v.ca.Create()
	require.NoError(t, err)
	v.do(fleet.InitCA{Actor: "local", Authorities: authorities})
	stored, ok := v.view().CA()
	require.True(t, ok)
	require.NoError(t, v.ca.Unseal(stored))
	v.do(fleet.CreateEnrollmentToken{ID: "token", NamePatterns: []string{"**.example.com"}, ExpiresAt: time.Now().Add(time.Hour)})

	names, err := server.NamesOf(nil)
	require.NoError(t, err)
	nothing := http.NotFoundHandler()
	limited, err := server.New(server.Config{
		Listener: v.network, Names: names, Node: v.log, CA: v.ca, Agents: v.agents, API: nothing, Lists: nothing, MaxInFlight: inFlight, Log: quiet,
	})
	require.NoError(t, err)
	config, err := tlsutil.ServerConfig(tlsutil.ServerOptions{Source: v.certificate()})
	require.NoError(t, err)
	config.ClientAuth = tls.RequestClientCert
	served := &http.Server{
		Handler: v.noting(limited), ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running gosync.WaitGroup
	running.Go(func() { _ = served.Serve(tls.NewListener(v.network, config)) }) // ends when it is stopped
	running.Go(func() { assert.NoError(t, runner.Run(ctx, work...)) })
	return v, func() {
		cancel()
		assert.NoError(t, v.network.Close()) // before the server's good-byes, which nobody reads
		assert.NoError(t, served.Close())
		running.Wait()
	}
}

func (v *virtual) certificate() *tlsutil.CertSource {
	v.t.Helper()
	key, err := pki.GenerateKey(pki.DefaultKeyAlgorithm)
	require.NoError(v.t, err)
	leaf, err := v.ca.IssueServer(pki.MustParseNames(coordinatortest.Host), key.Public())
	require.NoError(v.t, err)
	chain, err := v.ca.ServerChain(leaf)
	require.NoError(v.t, err)
	source := new(tlsutil.CertSource)
	require.NoError(v.t, source.Set(chain, key))
	return source
}

// noting writes down each request and its answer, and loses some answers.
func (v *virtual) noting(handler http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		agent, err := v.ca.AgentOf(r.TLS.PeerCertificates[0])
		assert.NoError(v.t, err)
		one := arrival{at: time.Since(v.began), agent: agent}
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		one.status = answer.Code
		if text := answer.Header().Get("Retry-After"); text != "" {
			seconds, err := strconv.Atoi(text)
			assert.NoError(v.t, err)
			one.retryAfter = time.Duration(seconds) * time.Second
			var problem wire.Problem
			assert.NoError(v.t, json.Unmarshal(answer.Body.Bytes(), &problem))
			one.code = problem.Code
		}
		lost := answer.Code == http.StatusOK && v.loses(agent)
		if lost {
			one.status = 0
		}
		v.mu.Lock()
		v.arrivals = append(v.arrivals, one)
		v.mu.Unlock()
		if lost {
			panic(http.ErrAbortHandler)
		}
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}
}

func (v *virtual) view() *fleet.View { return v.log.state.View() }

func (v *virtual) do(payload fleet.Payload) {
	v.t.Helper()
	command, err := fleet.NewCommand(time.Now(), payload)
	require.NoError(v.t, err)
	results, err := v.log.Propose(context.Background(), command)
	require.NoError(v.t, err)
	require.NoError(v.t, results[0].Err())
}

// host is an enrolled agent of that id.
func (v *virtual) host(id string) *host {
	v.t.Helper()
	h := &host{t: v.t, id: id, dial: v.network.Dial}
	dir := v.t.TempDir()
	var err error
	h.keys, err = keys.OpenDir(filepath.Join(dir, "keys"))
	require.NoError(v.t, err)
	h.store, err = store.Open(filepath.Join(dir, "state", "state.db"), store.Options{})
	require.NoError(v.t, err)
	v.t.Cleanup(func() { require.NoError(v.t, h.store.Close()) })
	keyID, key, err := h.keys.Create(pki.DefaultKeyAlgorithm)
	require.NoError(v.t, err)
	leaf, err := v.ca.IssueIdentity(id, key.Public())
	require.NoError(v.t, err)
	chain, err := v.ca.IdentityChain(leaf)
	require.NoError(v.t, err)
	fingerprint, err := pki.PublicKeyFingerprint(key.Public())
	require.NoError(v.t, err)
	v.do(fleet.EnrollAgent{TokenID: "token", AgentID: id, Host: wire.HostReport{Hostname: id}, Identity: fleet.Identity{
		Certificate: leaf.Raw, Fingerprint: pki.Fingerprint(leaf), PublicKeyFingerprint: fingerprint, Serial: pki.SerialHex(leaf), NotAfter: leaf.NotAfter,
	}})
	require.NoError(v.t, h.store.SaveIdentity(&store.Identity{
		AgentID: id, Servers: []string{"https://" + coordinatortest.Host}, KeyID: keyID, ChainPEM: string(pki.EncodeChainPEM(chain)),
		RootsPEM: v.ca.RootsPEM(), RenewAt: leaf.NotAfter.Add(-time.Hour),
	}))
	return h
}

// pass lets that much time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
