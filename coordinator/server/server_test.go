package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/agentapi"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

// coordinator is everything of this side put together as the program does it.
func coordinator(t *testing.T, nodeDir, dir string) (*clustertest.Node, *running) {
	t.Helper()
	authority := newCA(t, dir)
	names, err := NamesOf([]string{"pki.example.com"})
	require.NoError(t, err)
	var agents *agentapi.Service
	node := clustertest.Restart(t, nodeDir, func(n *cluster.Node) {
		agents, err = agentapi.New(agentapi.Config{
			Node: n, CA: authority, Log: quiet, SyncInterval: time.Minute, SyncTargetRate: 500, Reserved: names.Own,
		})
		require.NoError(t, err)
		agents.Lead(n)
	})
	require.NoError(t, Bootstrap(t.Context(), node, authority, dir, quiet))
	return node, start(t, node, authority, agents, answer("api"), nil)
}

// A host that has nothing but a token enrols, syncs, gets a certificate, and
// goes on when the coordinator was restarted.
func TestAnAgentAndARestart(t *testing.T) {
	nodeDir, dir := t.TempDir(), t.TempDir()
	node, server := coordinator(t, nodeDir, dir)
	token := wire.EnrollmentToken{ID: "token1", RootPin: wire.PinOf(server.ca.Root())}
	_, _ = rand.Read(token.Secret[:])
	require.NoError(t, node.Do(fleet.CreateEnrollmentToken{
		ID: token.ID, SecretHash: token.SecretHash(), NamePatterns: []string{"**.example.com"}, MaxUses: 1, ExpiresAt: time.Now().Add(time.Hour),
	}).Err())

	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	var enrolled wire.EnrollResponse
	server.post(nil, wire.EnrollPath, wire.EnrollRequest{Protocol: wire.Protocol, Token: token.Reveal(), CSR: csr}, &enrolled)

	chain, err := pki.ParseChainPEM([]byte(enrolled.Chain))
	require.NoError(t, err)
	identity := new(tlsutil.CertSource)
	require.NoError(t, identity.Set(chain, key))
	leafKey, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	leafCSR, err := pki.CreateCSR(leafKey, pki.MustParseNames("www.example.com"))
	require.NoError(t, err)
	request := wire.SyncRequest{Protocol: wire.Protocol, BootID: "boot-one", Sequence: 1, Orders: []wire.OrderRequest{
		{ID: "order-one", Certificate: "web", CSR: leafCSR},
		{ID: "order-two", Certificate: "pki", CSR: must(pki.CreateCSR(leafKey, pki.MustParseNames("pki.example.com")))},
	}}
	var synced wire.SyncResponse
	for last := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
		synced = wire.SyncResponse{}
		server.post(identity, wire.SyncPath, request, &synced)
		require.Len(t, synced.Orders, 2)
		// On a busy machine the answer comes before the certificate.
		if synced.Orders[0].State != wire.OrderPending {
			break
		}
		require.True(t, time.Now().Before(last), "the order is not worked on")
	}
	assert.Equal(t, wire.OrderIssued, synced.Orders[0].State)
	assert.Equal(t, wire.OrderRejected, synced.Orders[1].State, "nobody else gets the coordinator's names")
	root := server.ca.Root()

	server.stop()
	node.Stop()
	_, server = coordinator(t, nodeDir, dir)
	assert.True(t, root.Equal(server.ca.Root()))
	var again wire.SyncResponse
	server.post(identity, wire.SyncPath, request, &again)
	assert.Equal(t, synced.Orders, again.Orders)
}

func must(der []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return der
}

func (r *running) post(identity *tlsutil.CertSource, path string, body, answer any) {
	r.t.Helper()
	encoded, err := json.Marshal(body)
	require.NoError(r.t, err)
	response, err := r.client(identity).Post(r.url(path), "application/json", bytes.NewReader(encoded))
	require.NoError(r.t, err)
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	require.NoError(r.t, err)
	require.Equal(r.t, http.StatusOK, response.StatusCode, "%s", got)
	require.NoError(r.t, json.Unmarshal(got, answer))
}

func TestRoutes(t *testing.T) {
	node, authority, _ := bootstrapped(t)
	s := start(t, node, authority, answer("agents"), answer("api"), nil)
	for path, want := range map[string]string{
		"/agent/v1/enroll": "agents", "/agent/v1/sync": "agents", "/agent/v2/else": "agents",
		"/api/v1/agents": "api", "/openapi.json": "api", "/openapi.yaml": "api",
		"/ca/00.crl": "list", "/livez": `{"alive":true}` + "\n",
	} {
		response, body := s.do(http.MethodGet, path, nil)
		assert.Equal(t, want, body, path)
		assert.Equal(t, "HTTP/2.0", response.Proto)
		assert.EqualValues(t, tls.VersionTLS13, response.TLS.Version)
		for header, value := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		} {
			assert.Equal(t, value, response.Header.Get(header), path)
		}
		assert.Empty(t, response.Header.Get("Access-Control-Allow-Origin"))
	}
	for _, path := range []string{"/", "/api", "/agent", "/apix", "/ca", "/livez/", "/.env"} {
		p := s.problem(http.MethodGet, path)
		assert.Equal(t, wire.CodeNotFound, p.Code, path)
	}
}

func TestRequestIDs(t *testing.T) {
	node, authority, _ := bootstrapped(t)
	var seen string
	s := start(t, node, authority, answer(""), handler{func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Get("X-Request-ID") }}, nil)
	for given, kept := range map[string]bool{
		"my-request-1": true, "": false, "short": false, strings.Repeat("a", 65): false, "with space": false, "a\"b=c;1234": false,
	} {
		header := http.Header{}
		if given != "" {
			header.Set("X-Request-ID", given)
		}
		response, _ := s.do(http.MethodGet, "/api/v1/x", header)
		id := response.Header.Get("X-Request-ID")
		assert.Equal(t, kept, id == given, given)
		assert.Equal(t, id, seen)
		assert.GreaterOrEqual(t, len(id), 8)
	}
}

func TestPanics(t *testing.T) {
	node, authority, _ := bootstrapped(t)
	s := start(t, node, authority, answer(""), handler{func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/half" {
			_, _ = io.WriteString(w, "half of ")
			_ = http.NewResponseController(w).Flush()
		}
		panic("secret detail")
	}}, nil)
	p := s.problem(http.MethodGet, "/api/whole")
	assert.Equal(t, wire.CodeInternal, p.Code)
	assert.NotContains(t, p.Error(), "secret")

	response, err := s.client(nil).Get(s.url("/api/half"))
	require.NoError(t, err)
	defer response.Body.Close()
	_, err = io.ReadAll(response.Body)
	require.Error(t, err, "half an answer is not passed off as whole")
	s.do(http.MethodGet, "/livez", nil)
}

// Each kind of request has room of its own, and who finds none is told when to
// come back.
func TestLimits(t *testing.T) {
	node, authority, _ := bootstrapped(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	s := start(t, node, authority, answer("agents"), handler{func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}}, func(c *Config) { c.MaxInFlight = 1 })
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.do(http.MethodGet, "/api/slow", nil)
	}()
	<-arrived
	p := s.problem(http.MethodGet, "/api/next")
	assert.Equal(t, wire.CodeOverloaded, p.Code)
	assert.Equal(t, http.StatusServiceUnavailable, p.Status)
	assert.GreaterOrEqual(t, p.RetryAfterSeconds, int64(1))
	assert.LessOrEqual(t, p.RetryAfterSeconds, int64(7))
	_, body := s.do(http.MethodPost, wire.SyncPath, nil)
	assert.Equal(t, "agents", body)
	s.do(http.MethodGet, "/readyz", nil)
	close(release)
	<-done
	go func() { <-arrived }()
	_, body = s.do(http.MethodGet, "/api/next", nil)
	assert.Empty(t, body, "the place is free again")
}

// Strangers who send their enrolments slowly take no places from those who do
// not.
func TestSlowEnrolments(t *testing.T) {
	node, authority, _ := bootstrapped(t)
	s := start(t, node, authority, handler{func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		_, _ = w.Write(body)
	}}, answer("api"), func(c *Config) { c.MaxInFlight = 1 })
	enroll := func(body io.Reader) string {
		response, err := s.client(nil).Post(s.url(wire.EnrollPath), "application/json", body)
		if !assert.NoError(t, err) {
			return ""
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		assert.NoError(t, err)
		return string(text)
	}
	slow, rest := io.Pipe()
	answered := make(chan string)
	go func() { answered <- enroll(slow) }()
	_, err := io.WriteString(rest, "slow ")
	require.NoError(t, err)
	assert.Equal(t, "quick", enroll(strings.NewReader("quick")))
	_, err = io.WriteString(rest, "whole")
	require.NoError(t, err)
	require.NoError(t, rest.Close())
	assert.Equal(t, "slow whole", <-answered)

	large := strings.Repeat("x", wire.MaxEnrollBody+100)
	assert.Equal(t, large, enroll(strings.NewReader(large)), "what is too large is the handler's to refuse")
}

func TestHealth(t *testing.T) {
	node, authority, _ := bootstrapped(t)
	s := start(t, node, authority, answer(""), answer(""), nil)
	response, body := s.do(http.MethodGet, "/readyz", nil)
	assert.Equal(t, http.StatusOK, response.StatusCode)
	assert.JSONEq(t, `{"ready":true,"running":true,"leader_known":true,"leading":true,"applied":true,"journal":true,"log":true,"ca":true,"certificate":true}`, body)
	response, body = s.do(http.MethodHead, "/readyz", nil)
	assert.Equal(t, http.StatusOK, response.StatusCode)
	assert.Empty(t, body)
	p := s.problem(http.MethodPost, "/livez")
	assert.Equal(t, http.StatusMethodNotAllowed, p.Status)

	good := cluster.Readiness{Running: true, LeaderKnown: true, Leading: true, Applied: true}
	for fact, damage := range map[string]func(*cluster.Readiness){
		`"running":false`:      func(r *cluster.Readiness) { r.Running = false },
		`"leader_known":false`: func(r *cluster.Readiness) { r.LeaderKnown = false },
		`"applied":false`:      func(r *cluster.Readiness) { r.Applied = false },
		`"journal":false`:      func(r *cluster.Readiness) { r.Journal = errors.New("disk full: /secret/path") },
		`"log":false`:          func(r *cluster.Readiness) { r.Failure = errors.New("damaged") },
	} {
		r := good
		damage(&r)
		node.readiness.Store(&r)
		response, body := s.do(http.MethodGet, "/readyz", nil)
		assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode, fact)
		assert.Contains(t, body, fact)
		assert.Contains(t, body, `"ready":false`)
		assert.NotContains(t, body, "secret")
		response, _ = s.do(http.MethodGet, "/livez", nil)
		assert.Equal(t, http.StatusOK, response.StatusCode, "it is alive all the same")
	}
}

func TestASealedCACannotServe(t *testing.T) {
	listener, err := Listen(t.Context(), "127.0.0.1:0", ListenSetting)
	require.NoError(t, err)
	names, err := NamesOf(nil)
	require.NoError(t, err)
	s, err := New(Config{
		Listener: listener, Names: names, Node: &testNode{}, CA: newCA(t, t.TempDir()),
		Agents: answer(""), API: answer(""), Lists: answer(""), MaxInFlight: 1, Log: quiet,
	})
	require.NoError(t, err)
	require.ErrorContains(t, s.Run(t.Context()), "sealed")
	_, err = net.Dial("tcp", listener.Addr().String())
	require.Error(t, err, "the port is closed")
}

// A request under way is answered; the server ends when it has been.
func TestDrain(t *testing.T) {
	node, authority, _ := bootstrapped(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	s := start(t, node, authority, answer(""), handler{func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		if r.Context().Err() == nil {
			_, _ = io.WriteString(w, "done")
		}
	}}, nil)
	bodies := make(chan string, 1)
	go func() {
		_, body := s.do(http.MethodGet, "/api/slow", nil)
		bodies <- body
	}()
	<-arrived
	s.cancel()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, 60*time.Second, time.Millisecond, "nobody new is let in")
	close(release)
	assert.Equal(t, "done", <-bodies)
	s.stop()
}

func TestListen(t *testing.T) {
	first, err := Listen(t.Context(), "127.0.0.1:0", ListenSetting)
	require.NoError(t, err)
	defer first.Close()
	for address, want := range map[string]string{
		first.Addr().String(): "the port is in use",
		"203.0.113.1:0":       "this host does not have that address",
		"127.0.0.1":           "check the address",
		"127.0.0.1:notaport":  "check the address",
	} {
		_, err := Listen(t.Context(), address, ListenSetting)
		require.ErrorContains(t, err, want)
		assert.ErrorContains(t, err, address)
		assert.ErrorContains(t, err, "server.listen", "it says what to set")
	}
}

func TestNames(t *testing.T) {
	hostname, err := os.Hostname()
	require.NoError(t, err)
	n, err := NamesOf([]string{"*.example.com", "pki.example.com", "192.0.2.1"})
	require.NoError(t, err)
	assert.Contains(t, n.All.DNS, "localhost")
	assert.Contains(t, n.All.IPs, netip.MustParseAddr("127.0.0.1"))
	assert.Contains(t, n.All.IPs, netip.MustParseAddr("::1"))
	assert.Contains(t, n.Own.DNS, "pki.example.com")
	assert.NotContains(t, n.Own.DNS, "localhost")
	assert.Equal(t, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, n.Own.IPs)
	addr := &net.TCPAddr{IP: net.IPv4zero, Port: 8443}
	assert.Equal(t, "https://pki.example.com:8443", n.URL(addr))

	n, err = NamesOf([]string{"2001:db8::1"})
	require.NoError(t, err)
	assert.Equal(t, "https://[2001:db8::1]:8443", n.URL(addr))
	n, err = NamesOf(nil)
	require.NoError(t, err)
	if _, err := pki.ParseNames([]string{hostname}); err == nil {
		assert.Equal(t, "https://"+hostname+":8443", n.URL(addr))
	}
	_, err = NamesOf([]string{"not a name"})
	require.Error(t, err)
}

func TestNewRefuses(t *testing.T) {
	names, err := NamesOf(nil)
	require.NoError(t, err)
	good := Config{
		Listener: &net.TCPListener{}, Names: names, Node: &testNode{}, CA: newCA(t, t.TempDir()),
		Agents: answer(""), API: answer(""), Lists: answer(""), MaxInFlight: 1, Log: quiet,
	}
	_, err = New(good)
	require.NoError(t, err)
	for name, damage := range map[string]func(*Config){
		"Listener": func(c *Config) { c.Listener = nil }, "Names": func(c *Config) { c.Names = Names{} },
		"Node": func(c *Config) { c.Node = nil }, "CA": func(c *Config) { c.CA = nil }, "Agents": func(c *Config) { c.Agents = nil },
		"API": func(c *Config) { c.API = nil }, "Log": func(c *Config) { c.Log = nil }, "MaxInFlight": func(c *Config) { c.MaxInFlight = 0 },
	} {
		c := good
		damage(&c)
		_, err := New(c)
		require.ErrorContains(t, err, name)
	}
}

// The certificate is replaced when two thirds of its life are over, key and
// all, and the old one stays while that fails.
func TestTheCertificateIsRenewed(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		authority := newCA(t, dir)
		authorities, err := authority.Create()
		require.NoError(t, err)
		require.NoError(t, authority.Unseal(&fleet.CA{Authorities: authorities}))
		now := time.Now
		c := &certificate{ca: authority, names: pki.MustParseNames("localhost"), now: now, log: quiet}
		require.NoError(t, c.obtain())
		first := c.source.Leaf()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.keep(ctx) }()

		<-time.After(19 * 24 * time.Hour)
		synctest.Wait()
		assert.Equal(t, first, c.source.Leaf())
		<-time.After(25 * time.Hour)
		synctest.Wait()
		second := c.source.Leaf()
		assert.NotEqual(t, first.SerialNumber, second.SerialNumber)
		assert.False(t, pki.SamePublicKey(first.PublicKey, second.PublicKey))
		assert.Less(t, second.NotAfter.Add(-ca.ServerLifetime).Sub(renewAt(first)), 5*time.Minute)
		cancel()
		require.NoError(t, <-ended)

		// Nothing is issued after the end of the CA: the last one stays.
		c.now = func() time.Time { return authority.IssuerExpiry().Add(time.Hour) }
		ctx, cancel = context.WithCancel(t.Context())
		<-time.After(time.Until(authority.IssuerExpiry()) + time.Hour)
		go func() { ended <- c.keep(ctx) }()
		<-time.After(5 * time.Minute)
		synctest.Wait()
		assert.Equal(t, second, c.source.Leaf())
		cancel()
		require.NoError(t, <-ended)
	})
}

// A node that starts knows the CA of its newest snapshot, and may hear of another
// one, from a restore or a rotation, while its server begins.
func TestACAThatIsReplacedWhileTheServerBegins(t *testing.T) {
	authority := newCA(t, t.TempDir())
	older, err := authority.Create()
	require.NoError(t, err)
	newer, err := authority.Create()
	require.NoError(t, err)
	require.NoError(t, authority.Unseal(&fleet.CA{Authorities: older, ModifyIndex: 5}))
	stored := &fleet.CA{Authorities: newer, ModifyIndex: 9}
	c := &certificate{
		ca: authority, names: pki.MustParseNames("localhost"), now: time.Now, log: quiet,
		stored: func() (*fleet.CA, bool) { return stored, true },
	}
	require.NoError(t, c.begin())
	require.EqualValues(t, 5, authority.Served())
	require.NoError(t, authority.Unseal(stored)) // the start has heard of it first

	require.NoError(t, c.adopt())
	assert.EqualValues(t, 9, authority.Served())
	leaf := c.source.Leaf()
	chain, err := authority.ServerChain(leaf)
	require.NoError(t, err)
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(authority.Root())
	for _, issuer := range chain[1:] {
		intermediates.AddCert(issuer)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, DNSName: "localhost"})
	require.NoError(t, err, "the server shows a certificate of the CA that there is")
	require.NoError(t, c.adopt())
	assert.Equal(t, leaf, c.source.Leaf(), "nothing is replaced without need")
}
