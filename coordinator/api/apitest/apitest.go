// Package apitest runs a coordinator for tests of the API and its clients: a
// real node with its log and journal on disk, the built-in CA, and the real
// server on a port of its own, with a clock that tests can move.
package apitest

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
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
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/backup"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/coordinator/issuers"
	"github.com/certctl/certctl/coordinator/metrics"
	"github.com/certctl/certctl/coordinator/peer"
	"github.com/certctl/certctl/coordinator/revocation"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/coordinator/standing"
	"github.com/certctl/certctl/shared/logring"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
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

// seamNode is the node that the API sees.
type seamNode struct {
	*cluster.Node
	fault   atomic.Pointer[error]
	waiting atomic.Pointer[func()]
	hurried atomic.Bool
	confirm atomic.Pointer[func(context.Context) (uint64, error)]
	change  atomic.Pointer[func(id string, prevIndex uint64) error]
	removed atomic.Bool
}

// Ready implements api.Node.
func (n *seamNode) Ready() cluster.Readiness {
	r := n.Node.Ready()
	r.Member = r.Member && !n.removed.Load()
	return r
}

// Propose implements api.Node.
func (n *seamNode) Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error) {
	if err := n.fault.Swap(nil); err != nil {
		return nil, *err
	}
	return n.Node.Propose(ctx, commands...)
}

// WaitIndex implements api.Node.
func (n *seamNode) WaitIndex(ctx context.Context, index uint64) error {
	if tell := n.waiting.Swap(nil); tell != nil {
		(*tell)()
	}
	if n.hurried.Load() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 0)
		defer cancel()
	}
	return n.Node.WaitIndex(ctx, index)
}

// ConsistentIndex implements api.Node.
func (n *seamNode) ConsistentIndex(ctx context.Context) (uint64, error) {
	if confirm := n.confirm.Load(); confirm != nil {
		return (*confirm)(ctx)
	}
	return n.Node.ConsistentIndex(ctx)
}

// RemoveMember implements api.Node.
func (n *seamNode) RemoveMember(ctx context.Context, id string, prevIndex uint64, actor string) error {
	if change := n.change.Load(); change != nil {
		return (*change)(id, prevIndex)
	}
	return n.Node.RemoveMember(ctx, id, prevIndex, actor)
}

// Transfer implements api.Node.
func (n *seamNode) Transfer(ctx context.Context, id string) error {
	if change := n.change.Load(); change != nil {
		return (*change)(id, 0)
	}
	return n.Node.Transfer(ctx, id)
}

// seamIssuers are the issuers that the API sees.
type seamIssuers struct{ c *Coordinator }

func (s seamIssuers) those() api.Issuers {
	if set := s.c.issuers.Load(); set != nil {
		return *set
	}
	return noIssuers{}
}

// List implements api.Issuers.
func (s seamIssuers) List() ([]resource.Issuer, bool) { return s.those().List() }

// Test implements api.Issuers.
func (s seamIssuers) Test(ctx context.Context, name, actor string) (*resource.IssuerTest, error) {
	return s.those().Test(ctx, name, actor)
}

// Resume implements api.Issuers.
func (s seamIssuers) Resume(name, actor string) error { return s.those().Resume(name, actor) }

type noIssuers struct{}

func (noIssuers) List() ([]resource.Issuer, bool) { return nil, true }
func (noIssuers) Test(context.Context, string, string) (*resource.IssuerTest, error) {
	return nil, issuers.ErrUnknown
}
func (noIssuers) Resume(string, string) error { return issuers.ErrUnknown }

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
		CutOff: func(seen, now time.Time) bool { return api.CutOff(agents.Period(), seen, now) },
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
		config.Metrics = api.Guarded(c.State, c.Now, fleet.RoleViewer, figures)
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

// Agent enrols an agent on a host, with labels that the token gives it.
func (c *Coordinator) Agent(id, host string, labels map[string]string) *Agent {
	c.t.Helper()
	token := "t" + id
	c.do(fleet.CreateEnrollmentToken{
		Actor: "local", ID: token, Labels: labels, NamePatterns: []string{"**.example.com"}, MaxUses: 1, ExpiresAt: c.Now().Add(time.Hour),
	})
	report := wire.HostReport{Hostname: host, OS: "linux", Arch: "amd64", Version: "1.2.3", StartedAt: c.Now().UTC()}
	c.do(fleet.EnrollAgent{
		TokenID: token, AgentID: id, Host: report,
		Identity: fleet.Identity{Fingerprint: "f" + id, PublicKeyFingerprint: "k" + id, Serial: "0a", NotAfter: c.Now().Add(24 * time.Hour).UTC()},
	})
	return &Agent{c: c, id: id, host: report, rows: map[string]wire.Digest{}}
}

// Agent is an enrolled agent that reports what a test makes up.
type Agent struct {
	c        *Coordinator
	id       string
	host     wire.HostReport
	sequence uint64
	revision uint64
	events   uint64
	digest   wire.Digest
	rows     map[string]wire.Digest
}

// ID is the agent's id.
func (a *Agent) ID() string { return a.id }

// SafeUntil reports the offline horizon of a host that is safe until then.
func (a *Agent) SafeUntil(at time.Time) {
	a.c.t.Helper()
	a.host.SafeUntil, a.host.NotSafe = &at, 0
	a.sync(nil, nil)
}

// NotSafe reports that so many certificates are not safe now.
func (a *Agent) NotSafe(n int) {
	a.c.t.Helper()
	a.host.SafeUntil, a.host.NotSafe = nil, n
	a.sync(nil, nil)
}

// Warn reports findings about the host.
func (a *Agent) Warn(warnings ...string) {
	a.c.t.Helper()
	a.host.Warnings = warnings
	a.sync(nil, nil)
}

// ClockSkew reports how far the host's clock is ahead.
func (a *Agent) ClockSkew(by time.Duration) {
	a.c.t.Helper()
	a.host.ClockSkewSeconds = int64(by / time.Second)
	a.sync(nil, nil)
}

// Report sends the summary of one certificate.
func (a *Agent) Report(name string, summary wire.Summary) {
	a.c.t.Helper()
	data, err := json.Marshal(summary)
	require.NoError(a.c.t, err)
	a.revision++
	row := wire.Row{Name: name, Revision: a.revision, Data: data}
	stored, err := fleet.NewRow(row)
	require.NoError(a.c.t, err)
	if before, ok := a.rows[name]; ok {
		a.digest.Toggle(before)
	}
	a.rows[name] = row.Hash()
	a.digest.Toggle(row.Hash())
	a.sync([]fleet.Row{stored}, nil)
}

// Event reports a routine fact.
func (a *Agent) Event(kind wire.EventKind, certificate, detail string) {
	a.c.t.Helper()
	a.events++
	a.sync(nil, []wire.Event{{Sequence: a.events, At: a.c.Now().UTC(), Kind: kind, Certificate: certificate, Detail: detail}})
}

// Assignment reports what the agent made of an assignment.
func (a *Agent) Assignment(report wire.AssignmentReport) {
	a.c.t.Helper()
	a.sequence++
	a.c.do(fleet.SyncAgent{
		AgentID: a.id, BootID: "boot-of-" + a.id, Sequence: a.sequence, BaseRevision: a.revision, Revision: a.revision,
		HeadRevision: a.revision, Digest: a.digest, DesiredDigest: "some", Reports: []wire.AssignmentReport{report},
	})
}

// Command reports what became of a command.
func (a *Agent) Command(id string, state wire.CommandState, detail string) {
	a.c.t.Helper()
	a.sequence++
	a.c.do(fleet.SyncAgent{
		AgentID: a.id, BootID: "boot-of-" + a.id, Sequence: a.sequence, BaseRevision: a.revision, Revision: a.revision,
		HeadRevision: a.revision, Digest: a.digest, Commands: []fleet.CommandReport{{ID: id, State: state, Detail: detail, At: a.c.Now().UTC()}},
	})
}

// Issued lets the built-in CA have issued a certificate to the agent.
func (a *Agent) Issued(name string, summary wire.Summary) {
	a.c.t.Helper()
	a.sequence++
	id := "order-" + summary.Serial
	a.c.do(fleet.SyncAgent{
		AgentID: a.id, BootID: "boot-of-" + a.id, Sequence: a.sequence, BaseRevision: a.revision, Revision: a.revision,
		HeadRevision: a.revision, Digest: a.digest,
		Orders: []fleet.OrderPlacement{{ID: id, Certificate: name, Issuer: agentapi.BuiltinIssuer, CSR: []byte(id), Names: summary.Names}},
	}, fleet.CompleteOrder{Agent: a.id, ID: id, ChainPEM: "chain", Serial: summary.Serial, Fingerprint: summary.Fingerprint, NotAfter: summary.NotAfter})
}

func (a *Agent) sync(rows []fleet.Row, events []wire.Event) {
	a.c.t.Helper()
	a.sequence++
	host := a.host
	a.c.do(fleet.SyncAgent{
		AgentID: a.id, BootID: "boot-of-" + a.id, Sequence: a.sequence, Host: &host,
		BaseRevision: a.revision - uint64(len(rows)), Revision: a.revision, HeadRevision: a.revision, Digest: a.digest,
		Rows: rows, Events: events,
	})
}

// Valid is a summary of a certificate that is in service, from a day before now
// to a time after it. Serial number and fingerprint follow from the first name.
func Valid(now time.Time, left time.Duration, names ...string) wire.Summary {
	now = now.UTC().Truncate(time.Second)
	sum := sha256.Sum256([]byte(names[0]))
	fingerprint := hex.EncodeToString(sum[:])
	return wire.Summary{
		Names: pki.MustParseNames(names...), State: wire.StateValid, Issuer: "letsencrypt", IssuerKind: "acme",
		Serial: fingerprint[:16], Fingerprint: fingerprint, IssuerDN: "CN=Example CA", KeyAlgorithm: "ecdsa-p256",
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(left), RenewAt: now.Add(left / 2), Renewals: 1,
		Deployments: []wire.DeploymentSummary{{ID: "nginx", State: wire.DeploymentVerified, Fingerprint: fingerprint, At: now}},
	}
}
