package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/agentapi"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/pass"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// follows is a node that does not lead, with the tables of the one that does.
type follows struct{ *cluster.Node }

// IsLeader is that of agentapi.Node.
func (follows) IsLeader() bool { return false }

// counted is a service that knows how many of its requests are worked on.
type counted struct {
	*agentapi.Service
	present, most atomic.Int64
}

// ServeHTTP implements http.Handler.
func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := c.present.Add(1)
	defer c.present.Add(-1)
	for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
	}
	c.Service.ServeHTTP(w, r)
}

// within carries requests to a handler without a network.
type within struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (h within) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), r.Context().Err()
}

// front is a server that is asked without its port.
func front(t *testing.T, node Node, authority *ca.CA, agents Agents, inFlight int) *Server {
	t.Helper()
	listener, err := Listen(t.Context(), "127.0.0.1:0", ListenSetting)
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	names, err := NamesOf([]string{"pki.example.com"})
	require.NoError(t, err)
	s, err := New(Config{
		Listener: listener, Names: names, Node: node, CA: authority, Agents: agents, API: answer("api"), Lists: answer("list"), MaxInFlight: inFlight, Log: quiet,
	})
	require.NoError(t, err)
	return s
}

// The whole fleet comes at once, to all three nodes. The leader works on so many at
// a time as it has places, no matter which node they come to; who finds no place
// is told at once when to come back, spread over the time that the rate which is
// set for the cluster needs for so many; and nobody is told anything else.
func TestAFleetComesAtOnce(t *testing.T) {
	const (
		fleetSize, inFlight, rate = 3000, 16, 10
		period                    = fleetSize / rate * time.Second
	)
	authority := newCA(t, t.TempDir())
	var leader *counted
	var service *agentapi.Service
	node := clustertest.Restart(t, t.TempDir(), func(n *cluster.Node) {
		var err error
		service, err = agentapi.New(agentapi.Config{Node: n, CA: authority, Log: quiet, SyncInterval: time.Minute, SyncTargetRate: rate})
		require.NoError(t, err)
		leader = &counted{Service: service}
	})
	require.NoError(t, Bootstrap(t.Context(), node, authority, t.TempDir(), quiet))
	fronts := []*Server{front(t, node, authority, leader, inFlight)}
	passed := pass.Receive(func(context.Context) (string, bool) { return "node-b", true }, node.IsLeader, fronts[0])
	var followers []*agentapi.Service
	for range 2 {
		other, err := agentapi.New(agentapi.Config{
			Node: follows{node.Node}, CA: authority, Log: quiet, SyncInterval: time.Minute, SyncTargetRate: rate,
			Leader: func() (http.RoundTripper, string, bool) { return within{passed}, "https://node-a", true },
		})
		require.NoError(t, err)
		followers = append(followers, other)
		fronts = append(fronts, front(t, node, authority, other, inFlight))
	}

	agents := joined(t, node, authority, fleetSize)
	require.Equal(t, period, service.Period())
	var all sync.WaitGroup
	var answered, unknown atomic.Int64
	pauses := make([]time.Duration, fleetSize) // of those that were refused
	for i, cert := range agents {
		all.Go(func() {
			w := send(fronts[i%len(fronts)], cert, 1)
			var p wire.Problem
			switch err := json.Unmarshal(w.Body.Bytes(), &p); {
			case w.Code == http.StatusOK:
				answered.Add(1)
			case err == nil && w.Code == http.StatusServiceUnavailable && p.Code == wire.CodeOverloaded && w.Header().Get("Retry-After") != "":
				pauses[i] = p.RetryAfter()
			default:
				unknown.Add(1)
				t.Logf("%d %s", w.Code, w.Body)
			}
		})
	}
	all.Wait()
	assert.Zero(t, unknown.Load())
	assert.LessOrEqual(t, leader.most.Load(), int64(inFlight))
	assert.GreaterOrEqual(t, answered.Load(), int64(inFlight))

	// Those who were refused come back at the rate that is set, more or less.
	refused, quarters := 0, [5]int{}
	for _, pause := range pauses {
		if pause > 0 {
			refused++
			quarters[min(int(4*(pause-time.Second)/period), 4)]++
		}
	}
	t.Logf("%d answered, %d refused, %v of them in each quarter of %v; at most %d were worked on at a time", answered.Load(), refused, quarters, period, leader.most.Load())
	assert.EqualValues(t, fleetSize, int64(refused)+answered.Load())
	if refused > fleetSize/2 {
		for _, n := range quarters[:4] {
			assert.InDelta(t, refused/4, n, float64(refused)/10)
		}
	}
	counts := service.Counts()
	assert.EqualValues(t, answered.Load(), counts.Accepted+counts.Unchanged)

	// Whoever comes when there is room is answered, at any node, and told of one
	// place in the period.
	for i, cert := range agents[:60] {
		w := send(fronts[i%len(fronts)], cert, 2)
		require.Equal(t, http.StatusOK, w.Code, "%s", w.Body)
		var response wire.SyncResponse
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &response))
		assert.GreaterOrEqual(t, response.PauseMillis, (period / 2).Milliseconds())
		assert.LessOrEqual(t, response.PauseMillis, (period * 3 / 2).Milliseconds())
	}
	for _, other := range followers {
		assert.GreaterOrEqual(t, other.Counts().Passed.Answered, uint64(20))
		assert.Zero(t, other.Counts().Passed.Failed)
	}
}

// joined are the identities of so many agents, which have one key.
func joined(t *testing.T, node *clustertest.Node, authority *ca.CA, n int) (identities []*x509.Certificate) {
	t.Helper()
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	token := wire.EnrollmentToken{ID: "token1", RootPin: wire.PinOf(authority.Root())}
	_, _ = rand.Read(token.Secret[:])
	require.NoError(t, node.Do(fleet.CreateEnrollmentToken{ID: token.ID, SecretHash: token.SecretHash(), ExpiresAt: time.Now().Add(time.Hour)}).Err())
	const batch = 100
	for len(identities) < n {
		var commands []fleet.Command
		for range min(batch, n-len(identities)) {
			id := fmt.Sprintf("agent%011d", len(identities))
			cert, err := authority.IssueIdentity(id, key.(*ecdsa.PrivateKey).Public())
			require.NoError(t, err)
			identities = append(identities, cert)
			command, err := fleet.NewCommand(time.Now(), fleet.EnrollAgent{
				TokenID: token.ID, SecretHash: token.SecretHash(), AgentID: id, Host: wire.HostReport{Hostname: id},
				Identity: fleet.Identity{
					Certificate: cert.Raw, Fingerprint: pki.Fingerprint(cert), PublicKeyFingerprint: id,
					Serial: pki.SerialHex(cert), NotAfter: cert.NotAfter.UTC(),
				},
			})
			require.NoError(t, err)
			commands = append(commands, command)
		}
		results, err := node.Propose(t.Context(), commands...)
		require.NoError(t, err)
		for _, result := range results {
			require.NoError(t, result.Err())
		}
	}
	return identities
}

// send is a sync of an agent at a front.
func send(s *Server, cert *x509.Certificate, sequence uint64) *httptest.ResponseRecorder {
	body, err := json.Marshal(wire.SyncRequest{
		Protocol: wire.Protocol, BootID: "boot-one", Sequence: sequence, SentAt: time.Now(), Host: wire.HostReport{Hostname: "host"},
	})
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequest(http.MethodPost, wire.SyncPath, strings.NewReader(string(body)))
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}
