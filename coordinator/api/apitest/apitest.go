// Package apitest runs a coordinator for tests of the API and its clients: a
// real node with its log and journal on disk, the built-in CA, and the real
// server on a port of its own, with a clock that tests can move.
package apitest

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/agentapi"
	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/backup"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/coordinator/metrics"
	"github.com/certctl/certctl/coordinator/peer"
	"github.com/certctl/certctl/coordinator/revocation"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/coordinator/standing"
	"github.com/certctl/certctl/shared/logring"
	"github.com/certctl/certctl/shared/pki"
)

// SyncInterval is how often agents sync in the tests' fleet.
const SyncInterval = time.Minute

// EnrollmentURL is where agents are told to go.
const EnrollmentURL = "https://pki.example.com:8443"

// NodeID is the id of the coordinator's node.
const NodeID = "test"

// RevocationURL is what certificates say of where revocation lists are.
const RevocationURL = "http://crl.example.com/ca"

// Coordinator is a running coordinator of one node.
type Coordinator struct {
	*clustertest.Node
	CA *ca.CA
	// Dir has the files of a data directory: root.pem and admin.token.
	Dir string
	// URL is where it listens. Its certificate is good for 127.0.0.1, ::1 and
	// localhost.
	URL string
	// Admin is the first API token.
	Admin apitoken.Token
	// Log is what the API has logged.
	Log *Text
	// Standing reports on the node, with Recent as its log.
	Standing *standing.Service
	Recent   *logring.Ring

	t     testing.TB
	lists *revocation.Service
	// What is served, for Beside.
	config api.Config
	agents server.Agents
	// issuers are those of UseIssuers.
	issuers atomic.Pointer[api.Issuers]
	// orders is that of UseOrders.
	orders atomic.Pointer[api.Orders]
	skew   atomic.Int64
	node   *seamNode
	http   *http.Client
}

// A Text collects what is written to it.
type Text struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (t *Text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

// String is everything that was written so far.
func (t *Text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// UseIssuers sets what the API knows of accounts at authorities. Before, it knows
// none.
func (c *Coordinator) UseIssuers(list api.Issuers) { c.issuers.Store(&list) }

// Start runs a coordinator until the test's end.
func Start(t testing.TB) *Coordinator { return StartWith(t, nil) }

// StartWith is Start with a database for the history, which is none of the
// coordinator's business; nil: there is none.
func StartWith(t testing.TB, database api.Database) *Coordinator {
	t.Helper()
	c := &Coordinator{t: t, Dir: t.TempDir(), Log: new(Text), Recent: new(logring.Ring)}
	quiet := slog.New(slog.DiscardHandler)
	authority, err := ca.New(ca.Config{
		SealKeyFile: filepath.Join(c.Dir, "seal.key"), Name: "Example", LeafLifetime: time.Hour, IdentityLifetime: time.Hour,
		RevocationURL: RevocationURL,
	})
	require.NoError(t, err)
	c.CA = authority
	var agents *agentapi.Service
	c.Node = clustertest.Restart(t, t.TempDir(), func(node *cluster.Node) {
		agents, err = agentapi.New(agentapi.Config{
			Node: node, CA: authority, Log: quiet, SyncInterval: SyncInterval, SyncTargetRate: 500,
			Reserved: pki.MustParseNames("pki.example.com"), Now: c.Now,
		})
		require.NoError(t, err)
		agents.Lead(node)
		c.lists, err = revocation.New(revocation.Config{Node: node, CA: authority, Log: quiet, Now: c.Now})
		require.NoError(t, err)
		c.lists.Lead(node)
	})
	require.NoError(t, server.Bootstrap(t.Context(), c.Node, authority, c.Dir, quiet))
	// The first revocation list is a fact of the journal: it is always there.
	require.Eventually(t, func() bool {
		_, _, published := c.Node.State().View().NewestList()
		return published
	}, 60*time.Second, time.Millisecond)
	text, err := os.ReadFile(filepath.Join(c.Dir, server.AdminTokenFile))
	require.NoError(t, err)
	c.Admin, err = apitoken.Parse(string(text))
	require.NoError(t, err)

	c.node = &seamNode{Node: c.Node.Node}
	c.Standing, err = standing.New(standing.Config{
		NodeID: NodeID, DataDir: c.Node.Dir, Node: c.Node.Node, Journal: c.Journal, Log: quiet, Now: c.Now, Recent: c.Recent,
	})
	require.NoError(t, err)
	afresh := func(time.Duration) time.Duration { return 0 } // a slow machine counts afresh too
	c.config = api.Config{
		Node: c.node, Journal: c.Journal, Presence: agents, Pause: agents.Period, Cluster: c.Standing, Departing: c.node.Node, Issuers: seamIssuers{c}, Orders: seamOrders{c},
		Database:  database,
		Authority: authority, EnrollmentURL: EnrollmentURL, Log: slog.New(slog.NewTextHandler(c.Log, nil)), Now: c.Now, Keep: afresh,
	}
	handler, err := api.New(c.config)
	require.NoError(t, err)
	figures, err := metrics.New(metrics.Config{
		Node: c.Node.Node, Journal: c.Journal, Presence: agents, Log: quiet, Now: c.Now,
		CutOff: func(seen, now time.Time) bool { return health.CutOff(agents.Period(), seen, now) },
		Keep:   afresh, Agents: agents.Counts, DataDir: c.Node.Dir,
		// Of other nodes, and of files, this coordinator has none.
		Peers: func() peer.Stats {
			return peer.Stats{Connections: map[peer.ConnectionKind]int{{Peer: "other", Protocol: "certctl-raft/1"}: 2}, Refused: map[peer.Reason]uint64{"not_member": 1}}
		},
		Certificate: func() time.Time { return c.Now().Add(30 * 24 * time.Hour) },
		Backups:     func() backup.Status { return backup.Status{Newest: "some", Time: c.Now(), Size: 1, Good: 1} },
		Orders:      figuredOrders{c},
		Database:    func() postgres.Status { return postgres.Status{Leads: true, Attached: true} },
	})
	require.NoError(t, err)
	c.agents = agents
	c.URL = c.serve(handler, figures)
	return c
}

// Beside serves the same node once more, with another configuration of the API, and
// returns the URL.
func (c *Coordinator) Beside(change func(*api.Config)) string {
	c.t.Helper()
	config := c.config
	change(&config)
	handler, err := api.New(config)
	require.NoError(c.t, err)
	return c.serve(handler, nil)
}

// serve serves on a port of its own, and figures too unless they are nil.
func (c *Coordinator) serve(handler http.Handler, figures *metrics.Exporter) (url string) {
	c.t.Helper()
	listener, err := server.Listen(context.Background(), "127.0.0.1:0", server.ListenSetting)
	require.NoError(c.t, err)
	names, err := server.NamesOf(nil)
	require.NoError(c.t, err)
	config := server.Config{
		Listener: listener, Names: names, Node: c.Node, CA: c.CA, Agents: c.agents, API: handler, Lists: c.lists,
		RootFile: filepath.Join(c.Dir, server.RootFile), MaxInFlight: 64, Log: slog.New(slog.DiscardHandler),
	}
	if figures != nil {
		config.Metrics = api.NewGate(0, 0, nil).Guard(c.State, c.Now, fleet.RoleViewer, figures)
		config.Observe = func(kind server.Kind, status int, took time.Duration) { figures.Observe(string(kind), status, took) }
	}
	front, err := server.New(config)
	require.NoError(c.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- front.Run(ctx) }()
	c.t.Cleanup(func() {
		cancel()
		require.NoError(c.t, <-ended)
	})
	return "https://" + front.Addr().String()
}

// Now is the coordinator's clock.
func (c *Coordinator) Now() time.Time { return time.Now().Add(time.Duration(c.skew.Load())) }

// Sleep lets time pass for the coordinator.
func (c *Coordinator) Sleep(d time.Duration) { c.skew.Add(int64(d)) }

// FailNext makes the API's next change fail with err before it is stored.
func (c *Coordinator) FailNext(err error) { c.node.fault.Store(&err) }

// OnWait calls fn when the next read begins to wait for this node to be as new as
// it asks.
func (c *Coordinator) OnWait(fn func()) { c.node.waiting.Store(&fn) }

// Hurry lets reads wait no longer for what this node does not have.
func (c *Coordinator) Hurry() { c.node.hurried.Store(true) }

// Confirm makes fn the leader's word on consistent reads.
func (c *Coordinator) Confirm(fn func(context.Context) (uint64, error)) { c.node.confirm.Store(&fn) }

// OnChange makes fn what becomes of changes of the members.
func (c *Coordinator) OnChange(fn func(id string, prevIndex uint64) error) { c.node.change.Store(&fn) }

// Remove makes the node one that its cluster has removed, or a member again.
func (c *Coordinator) Remove(removed bool) { c.node.removed.Store(removed) }

// RootFile is the path of the root certificate.
func (c *Coordinator) RootFile() string { return filepath.Join(c.Dir, server.RootFile) }

// AdminTokenFile is the path of the first API token.
func (c *Coordinator) AdminTokenFile() string { return filepath.Join(c.Dir, server.AdminTokenFile) }

// HTTP is a client that trusts the coordinator's root alone.
func (c *Coordinator) HTTP() *http.Client {
	if c.http == nil {
		roots := x509.NewCertPool()
		roots.AddCert(c.CA.Root())
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig.RootCAs = roots
		c.t.Cleanup(transport.CloseIdleConnections)
		// Redirects are answers like any other.
		c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return c.http
}

// do stores a change as of the coordinator's clock.
func (c *Coordinator) do(payloads ...fleet.Payload) {
	c.t.Helper()
	var commands []fleet.Command
	for _, payload := range payloads {
		command, err := fleet.NewCommand(c.Now(), payload)
		require.NoError(c.t, err)
		commands = append(commands, command)
	}
	results, err := c.Propose(context.Background(), commands...)
	require.NoError(c.t, err)
	for _, result := range results {
		require.NoError(c.t, result.Err())
	}
}

// Token makes an API token. A lifetime of 0 does not end.
func (c *Coordinator) Token(role fleet.Role, lifetime time.Duration) apitoken.Token {
	c.t.Helper()
	token := apitoken.New()
	create := fleet.CreateAPIToken{Actor: "local", ID: token.ID, Name: "test " + string(role), Hash: token.Hash(), Role: role}
	if lifetime > 0 {
		create.ExpiresAt = c.Now().Add(lifetime)
	}
	c.do(create)
	return token
}

// Rotate gives the token of an id another secret, and ends the earlier one.
func (c *Coordinator) Rotate(token apitoken.Token) {
	c.t.Helper()
	c.do(fleet.RotateAPIToken{Actor: "local", ID: token.ID, Hash: token.Hash(), Until: c.Now().UTC()})
}
