package orders_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/digicert"
	"github.com/certctl/certctl/coordinator/connector/entrust"
	"github.com/certctl/certctl/coordinator/connector/globalsign"
	"github.com/certctl/certctl/coordinator/connector/sectigo"
	"github.com/certctl/certctl/coordinator/connector/vault"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/internal/fakeca"
	fakedigicert "github.com/certctl/certctl/internal/fakeca/digicert"
	fakeentrust "github.com/certctl/certctl/internal/fakeca/entrust"
	fakeglobalsign "github.com/certctl/certctl/internal/fakeca/globalsign"
	fakesectigo "github.com/certctl/certctl/internal/fakeca/sectigo"
	fakevault "github.com/certctl/certctl/internal/fakeca/vault"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errNotLeader = errors.New("this node does not lead")

// world is the replicated state, as all nodes of a cluster have it, and who leads.
type world struct {
	t     testing.TB
	state *fleet.State

	mu       sync.Mutex
	leader   string
	term     uint64
	entries  int
	commands map[fleet.Type]int
	facts    []fleet.Fact
	// before and after a command are told of it, and may fail it: before nothing is
	// stored, after the proposer does not know that it is. nil does nothing.
	before, after func(node string, c fleet.Command) error
	// refuse has the state not take a command; nil does nothing.
	refuse func(c fleet.Command) bool
}

func newWorld(t testing.TB) *world {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	w := &world{t: t, state: state, commands: map[fleet.Type]int{}}
	w.do(fleet.CreateEnrollmentToken{
		Actor: "local", ID: "token", SecretHash: [32]byte{42}, NamePatterns: []string{"**.example.com"}, ExpiresAt: time.Now().AddDate(1, 0, 0),
	})
	return w
}

// apply applies commands as one entry.
func (w *world) apply(commands ...fleet.Command) []fleet.Result {
	w.mu.Lock()
	defer w.mu.Unlock()
	entry, err := fleet.EncodeEntry(commands)
	require.NoError(w.t, err)
	results, facts, err := w.state.Apply(w.state.Index()+1, entry)
	require.NoError(w.t, err)
	w.entries++
	for _, c := range commands {
		w.commands[c.Type]++
	}
	w.facts = append(w.facts, facts...)
	return results
}

// do applies what somebody else than the engine does.
func (w *world) do(payload fleet.Payload) fleet.Result {
	w.t.Helper()
	command, err := fleet.NewCommand(time.Now(), payload)
	require.NoError(w.t, err)
	result := w.apply(command)[0]
	require.NoError(w.t, result.Err())
	return result
}

// stored counts the entries of the log.
func (w *world) stored() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.entries
}

func (w *world) count(typ fleet.Type) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.commands[typ]
}

// kinds are the facts about an order, in their order.
func (w *world) kinds(id string) []fleet.Kind {
	w.mu.Lock()
	defer w.mu.Unlock()
	var kinds []fleet.Kind
	for _, f := range w.facts {
		if f.Object == id {
			kinds = append(kinds, f.Kind)
		}
	}
	return kinds
}

func (w *world) hooks(before, after func(node string, c fleet.Command) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before, w.after = before, after
}

// node is one node's view of the world.
type node struct {
	*world
	id string
}

func (n node) State() *fleet.State { return n.state }

func (n node) Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n.mu.Lock()
	before, after, refuse := n.before, n.after, n.refuse
	n.mu.Unlock()
	if refuse != nil && slices.ContainsFunc(commands, refuse) {
		return slices.Repeat([]fleet.Result{{Code: wire.CodeInvalid, Detail: "not so"}}, len(commands)), nil
	}
	for _, c := range commands {
		if before != nil {
			if err := before(n.id, c); err != nil {
				return nil, err
			}
		}
	}
	results := n.apply(commands...)
	for _, c := range commands {
		if after != nil {
			if err := after(n.id, c); err != nil {
				return nil, err
			}
		}
	}
	return results, nil
}

func (n node) VerifyLeader(context.Context) error {
	if n.Term() == 0 {
		return errNotLeader
	}
	return nil
}

func (n node) Term() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leader != n.id {
		return 0
	}
	return n.term
}

// leadership takes an engine's work.
type leadership struct {
	work func(ctx context.Context) error
}

func (l *leadership) Lead(_ string, work func(ctx context.Context) error) { l.work = work }

// runner is an engine on a node.
type runner struct {
	*orders.Engine
	t      testing.TB
	world  *world
	id     string
	work   func(ctx context.Context) error
	cancel context.CancelFunc
	ended  chan error
	log    *bytes.Buffer
	logMu  *sync.Mutex
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func (w *world) engine(id string, issuers map[string]orders.Issuer, change ...func(*orders.Config)) *runner {
	w.t.Helper()
	r := &runner{t: w.t, world: w, id: id, log: &bytes.Buffer{}, logMu: &sync.Mutex{}}
	c := orders.Config{
		Node: node{w, id}, NodeID: id, Issuers: issuers,
		Log: slog.New(slog.NewTextHandler(lockedWriter{r.logMu, r.log}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, fn := range change {
		fn(&c)
	}
	var err error
	r.Engine, err = orders.New(c)
	require.NoError(w.t, err)
	var l leadership
	r.Engine.Lead(&l)
	r.work = l.work
	return r
}

func (r *runner) text() string {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	return r.log.String()
}

// lead has the node be elected, and its engine work.
func (r *runner) lead() {
	r.world.mu.Lock()
	r.world.leader = r.id
	r.world.term++
	r.world.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ended = cancel, make(chan error, 1)
	go func() { r.ended <- r.work(ctx) }()
}

// lose ends the node's term, and returns when its work has ended.
func (r *runner) lose() {
	r.t.Helper()
	if r.cancel == nil {
		return
	}
	r.world.mu.Lock()
	if r.world.leader == r.id {
		r.world.leader = ""
	}
	r.world.mu.Unlock()
	r.cancel()
	require.NoError(r.t, <-r.ended)
	r.cancel = nil
}

// placement is an order of an agent, with a key of its own.
func placement(t testing.TB, id, issuer string, names ...string) fleet.OrderPlacement {
	t.Helper()
	key, err := pki.GenerateKey("ecdsa-p256")
	require.NoError(t, err)
	parsed := pki.MustParseNames(names...)
	csr, err := pki.CreateCSR(key, parsed)
	require.NoError(t, err)
	fingerprint, err := pki.PublicKeyFingerprint(key.Public())
	require.NoError(t, err)
	return fleet.OrderPlacement{ID: id, Certificate: "web", Issuer: issuer, CSR: csr, Names: parsed, PublicKeyFingerprint: fingerprint}
}

// enroll enrols an agent.
func (w *world) enroll(agent string) {
	w.t.Helper()
	w.do(fleet.EnrollAgent{
		TokenID: "token", SecretHash: [32]byte{42}, AgentID: agent,
		Identity: fleet.Identity{
			Certificate: []byte(agent), Fingerprint: "cert-" + agent, PublicKeyFingerprint: "key-" + agent, Serial: "0a", NotAfter: time.Now().AddDate(0, 3, 0),
		},
		Host: wire.HostReport{Hostname: agent, OS: "linux", Arch: "amd64", StartedAt: time.Now()}, Names: pki.MustParseNames("www.example.com"),
	})
}

// request has an agent order, and collect what it is told of.
func (w *world) sync(agent string, placed []fleet.OrderPlacement, collected ...string) {
	w.t.Helper()
	known, ok := w.state.View().Agent(agent)
	require.True(w.t, ok)
	w.do(fleet.SyncAgent{AgentID: agent, BootID: "boot", Sequence: known.Sync.Sequence + 1, Orders: placed, Collected: collected})
}

// order is an order of the agent "a".
func (w *world) order(id string) *fleet.Order {
	w.t.Helper()
	o, ok := w.state.View().Order("a", id)
	require.True(w.t, ok, "order %s", id)
	return o
}

func (w *world) stage(id string) fleet.Stage { return w.order(id).Stage() }

// vendor is a fake authority and how a connector for it is made.
type vendor struct {
	kind string
	fake fakeca.Server
	// connect makes a connector that dials the fake.
	connect func(t testing.TB) connector.Connector
	// limits of its issuer.
	limits asyncpoll.Limits
}

// serve serves a fake on a pipe, until the test ends.
func serve(t testing.TB, fake fakeca.Server, wrap func(net.Listener) net.Listener) *fakeca.Pipe {
	t.Helper()
	pipe := fakeca.NewPipe()
	server := &http.Server{Handler: fake, ErrorLog: log.New(io.Discard, "", 0)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(wrap(pipe))
	}()
	t.Cleanup(func() {
		_ = server.Close()
		_ = pipe.Close()
		<-ended
	})
	return pipe
}

func plain(l net.Listener) net.Listener { return l }

// serveTLS is serve for vendors that want a client certificate.
func serveTLS(t testing.TB, fake fakeca.Server) (*fakeca.Pipe, *x509.CertPool) {
	t.Helper()
	// A certificate for example.com, valid for decades to either side.
	template := httptest.NewUnstartedServer(nil)
	template.StartTLS()
	cert, roots := template.TLS.Certificates[0], x509.NewCertPool()
	roots.AddCert(template.Certificate())
	template.Close()
	return serve(t, fake, func(l net.Listener) net.Listener {
		return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert})
	}), roots
}

func text(s string) func() (string, error) { return func() (string, error) { return s, nil } }

type closer interface{ Close() }

func closing[T closer](t testing.TB, c T, err error) T {
	t.Helper()
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func digicertOf(t testing.TB, config fakeca.Config, change ...func(*digicert.Config)) (*fakedigicert.Server, vendor) {
	t.Helper()
	fake := fakedigicert.New(config)
	pipe := serve(t, fake, plain)
	return fake, vendor{kind: "digicert", fake: fake, connect: func(t testing.TB) connector.Connector {
		c := digicert.Config{
			URL: "http://example.com" + fakedigicert.Base, Key: text(fakedigicert.Key), Product: "ssl_basic", Organization: fakedigicert.Organization,
			Dial: pipe.Dial,
		}
		for _, fn := range change {
			fn(&c)
		}
		made, err := digicert.New(c)
		return closing(t, made, err)
	}}
}

func sectigoOf(t testing.TB, config fakeca.Config) (*fakesectigo.Server, vendor) {
	t.Helper()
	fake := fakesectigo.New(config)
	pipe := serve(t, fake, plain)
	return fake, vendor{kind: "sectigo", fake: fake, connect: func(t testing.TB) connector.Connector {
		made, err := sectigo.New(sectigo.Config{
			URL: "http://example.com" + fakesectigo.Base, Auth: sectigo.AuthPassword, Login: fakesectigo.Login, CustomerURI: fakesectigo.CustomerURI,
			Password: text(fakesectigo.Password), Organization: fakesectigo.Organization, Profile: fakesectigo.Profile, Terms: []int{90},
			Dial: pipe.Dial,
		})
		return closing(t, made, err)
	}}
}

func entrustOf(t testing.TB, config fakeca.Config, change ...func(*entrust.Config)) (*fakeentrust.Server, vendor) {
	t.Helper()
	fake := fakeentrust.New(config)
	pipe, roots := serveTLS(t, fake)
	return fake, vendor{kind: "entrust", fake: fake, connect: func(t testing.TB) connector.Connector {
		c := entrust.Config{
			URL: "https://example.com" + fakeentrust.Base, CA: fakeentrust.CA, Profile: fakeentrust.Profile, Dial: pipe.Dial, Roots: roots,
			Certificate: func() (*tls.Certificate, error) { cert := fake.Client(); return &cert, nil },
		}
		for _, fn := range change {
			fn(&c)
		}
		made, err := entrust.New(c)
		return closing(t, made, err)
	}}
}

func globalsignOf(t testing.TB, config fakeca.Config) (*fakeglobalsign.Server, vendor) {
	t.Helper()
	fake := fakeglobalsign.New(config)
	pipe, roots := serveTLS(t, fake)
	return fake, vendor{kind: "globalsign", fake: fake, connect: func(t testing.TB) connector.Connector {
		made, err := globalsign.New(globalsign.Config{
			URL: "https://example.com" + fakeglobalsign.Base, APIKey: text(fakeglobalsign.APIKey), APISecret: text(fakeglobalsign.APISecret),
			Certificate: func() (*tls.Certificate, error) { cert := fake.Client(); return &cert, nil }, Dial: pipe.Dial, Roots: roots,
		})
		return closing(t, made, err)
	}}
}

// vaultOf is an authority of the synchronous kind. repeat says that an order costs
// nothing there, as it is by default.
func vaultOf(t testing.TB, config fakeca.Config, repeat bool) (*fakevault.Server, vendor) {
	t.Helper()
	fake := fakevault.New(config)
	pipe := serve(t, fake, plain)
	return fake, vendor{kind: "vault", fake: fake, connect: func(t testing.TB) connector.Connector {
		made, err := vault.New(vault.Config{
			URL: "http://example.com", Mount: fakevault.Mount, Role: fakevault.Role, Token: text(fakevault.Token), PlaceOnce: !repeat, Dial: pipe.Dial,
		})
		return closing(t, made, err)
	}}
}

// fakes are the vendors, by name.
var fakes = map[string]func(t testing.TB, config fakeca.Config) vendor{
	"digicert":   func(t testing.TB, c fakeca.Config) vendor { _, v := digicertOf(t, c); return v },
	"sectigo":    func(t testing.TB, c fakeca.Config) vendor { _, v := sectigoOf(t, c); return v },
	"entrust":    func(t testing.TB, c fakeca.Config) vendor { _, v := entrustOf(t, c); return v },
	"globalsign": func(t testing.TB, c fakeca.Config) vendor { _, v := globalsignOf(t, c); return v },
	"vault":      func(t testing.TB, c fakeca.Config) vendor { _, v := vaultOf(t, c, false); return v },
}

// issuers are one for each vendor, by its kind.
func issuers(t testing.TB, vendors ...vendor) map[string]orders.Issuer {
	t.Helper()
	list := map[string]orders.Issuer{}
	for _, v := range vendors {
		limits := v.limits
		if limits == (asyncpoll.Limits{}) {
			limits = asyncpoll.Limits{Rate: 100, Burst: 20, Concurrency: 8}
		}
		list[v.kind] = orders.Issuer{Kind: v.kind, Connector: v.connect(t), Limits: limits}
	}
	return list
}

// pass has time go by, in a bubble.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// delivered has the agent take the certificate of an order, and checks that it is what
// the agent asked for.
func (w *world) delivered(p fleet.OrderPlacement) {
	w.t.Helper()
	o := w.order(p.ID)
	require.Equal(w.t, fleet.StageCollected, o.Stage(), "%+v", o.Brokering)
	chain, err := pki.ParseChainPEM([]byte(o.ChainPEM))
	require.NoError(w.t, err)
	csr, err := pki.ParseCSR(p.CSR)
	require.NoError(w.t, err)
	_, err = pki.CheckIssued(chain, csr.PublicKey, p.Names, time.Now())
	require.NoError(w.t, err)
	require.GreaterOrEqual(w.t, len(chain), 2, "the chain lacks its issuer")
	require.Equal(w.t, pki.SerialHex(chain[0]), o.Serial)
	w.sync("a", nil, p.ID)
	require.Equal(w.t, fleet.StageDelivered, w.stage(p.ID))
}

// once asserts that the ledger has one order for each placement, and no other one.
func once(t testing.TB, v vendor, orders int) {
	t.Helper()
	assert.Len(t, v.fake.Core().Ledger(nil), orders, v.kind)
	assert.Empty(t, v.fake.Core().Duplicates(), v.kind)
}

// bubble runs a test with one world in a bubble, whose clock runs when nothing else
// does.
func bubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.enroll("a")
		test(t, w)
	})
}

func publicKey(t testing.TB, p fleet.OrderPlacement) crypto.PublicKey {
	t.Helper()
	csr, err := pki.ParseCSR(p.CSR)
	require.NoError(t, err)
	return csr.PublicKey
}

// issuedBy is a CA of a test's own, under a root.
type issuedBy struct {
	root, issuer *x509.Certificate
	key          crypto.Signer
}

func newIssuedBy(t testing.TB) *issuedBy {
	t.Helper()
	rootKey, err := pki.GenerateKey("ecdsa-p256")
	require.NoError(t, err)
	key, err := pki.GenerateKey("ecdsa-p256")
	require.NoError(t, err)
	made := &issuedBy{key: key}
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
	}
	sign := func(template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return cert
	}
	made.root = sign(template("Root"), template("Root"), rootKey.Public(), rootKey)
	made.issuer = sign(template("Issuing"), made.root, key.Public(), rootKey)
	return made
}

// sign makes the certificate of an order, which names where its issuer is.
func (i *issuedBy) sign(t testing.TB, p fleet.OrderPlacement, place string) *connector.Bundle {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: p.Names.DNS, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 1, 0),
		BasicConstraintsValid: true, IssuingCertificateURL: []string{place},
	}, i.issuer, publicKey(t, p), i.key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &connector.Bundle{Certificates: []*x509.Certificate{leaf}}
}
