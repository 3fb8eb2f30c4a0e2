package syncpair

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/coordinator/agentapi"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	passing "github.com/certctl/certctl/coordinator/pass"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

// follows is a node that does not lead, with the tables of the one that does.
type follows struct{ *cluster.Node }

// IsLeader is that of agentapi.Node.
func (follows) IsLeader() bool { return false }

// follower is a further node of the coordinator, as agents see it.
func (c *coordinator) follower(id string) (*httptest.Server, *agentapi.Service) {
	c.t.Helper()
	caller := func(context.Context) (string, bool) { return id, true }
	peers := httptest.NewServer(passing.Receive(caller, c.node.IsLeader, http.HandlerFunc(c.serve)))
	c.t.Cleanup(peers.Close)
	way := &http.Transport{MaxIdleConnsPerHost: 16}
	c.t.Cleanup(way.CloseIdleConnections)
	service, err := agentapi.New(agentapi.Config{
		Node: follows{c.node.Node}, CA: c.ca, Log: quiet, SyncInterval: time.Second, SyncTargetRate: 500, Now: c.now,
		Leader: func() (http.RoundTripper, string, bool) { return way, peers.URL, true },
	})
	require.NoError(c.t, err)
	server := httptest.NewUnstartedServer(service)
	config, err := tlsutil.ServerConfig(tlsutil.ServerOptions{Source: &c.source})
	require.NoError(c.t, err)
	config.ClientAuth = tls.RequestClientCert
	server.Listener = tls.NewListener(server.Listener, config)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.Start()
	c.t.Cleanup(server.Close)
	c.announce(id, "https://"+server.Listener.Addr().String())
	return server, service
}

func (c *coordinator) announce(id, url string) {
	c.t.Helper()
	require.NoError(c.t, c.node.Do(fleet.AnnounceNode{Node: fleet.ClusterNode{
		ID: id, Address: id + ".example.com:8444", URL: url, Level: fleet.Level, KeyFingerprint: strings.Repeat("0", 64),
	}}).Err())
}

// Agents that were given one node learn of the others and spread over them, over
// real connections; when a node goes, its agents are with the others a moment
// later, and what they have to say arrives.
func TestAgentsUseAllNodes(t *testing.T) {
	const agents = 12
	c := newCoordinator(t)
	c.announce("node-a", c.url)
	first, firstService := c.follower("node-b")
	_, secondService := c.follower("node-c")

	var hosts []*host
	var stops []func()
	for range agents {
		hosts = append(hosts, c.enrolled())
	}
	runAll := func() {
		stops = nil
		for _, h := range hosts {
			stops = append(stops, h.run())
		}
	}
	stopAll := func() {
		for _, stop := range stops {
			stop()
		}
	}
	runAll()
	for _, h := range hosts {
		require.Eventually(t, func() bool {
			identity, err := h.store.Identity()
			return err == nil && len(identity.Nodes) == 3
		}, patience, 10*time.Millisecond)
	}
	stopAll()

	runAll()
	defer func() { stopAll() }()
	at := map[string]int{}
	for _, h := range hosts {
		require.Eventually(t, func() bool { return h.client.State().Standing == sync.Connected }, patience, 10*time.Millisecond)
		at[h.client.State().Server]++
	}
	assert.Greater(t, len(at), 1, "%v", at)
	passed := firstService.Counts().Passed.Answered + secondService.Counts().Passed.Answered
	assert.Positive(t, passed)

	first.CloseClientConnections()
	first.Close()
	for i, h := range hosts {
		require.NoError(t, h.store.Append(wire.Event{Kind: wire.EventIssued, Detail: fmt.Sprintf("after the loss %d", i)}))
		h.client.Kick()
	}
	gone := "https://" + first.Listener.Addr().String()
	for _, h := range hosts {
		require.Eventually(t, func() bool {
			waiting, err := h.store.Events(1)
			return err == nil && len(waiting) == 0
		}, patience, 10*time.Millisecond)
		state := h.client.State()
		assert.Equal(t, sync.Connected, state.Standing)
		assert.NotEqual(t, gone, state.Server)
		identity, err := h.store.Identity()
		require.NoError(t, err)
		assert.Contains(t, identity.Nodes, state.Server)
		assert.True(t, slices.Contains(identity.Nodes, gone), "it may come back")
	}
	assert.Zero(t, secondService.Counts().Passed.Failed)
}
