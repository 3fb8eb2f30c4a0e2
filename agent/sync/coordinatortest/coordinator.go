// Package coordinatortest is a coordinator for tests of the agent: a model of
// the agent interface (package wire) in memory, behind real TLS, that can be
// told to fail before, after and in the middle of what it does.
//
// It checks what it is sent, and reports through testing.TB what a coordinator
// would rightly complain of.
package coordinatortest

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

// Host is a name that the server's certificate holds, besides 127.0.0.1.
const Host = "coordinator.test"

// Fault is what goes wrong with one request.
type Fault int

// Faults.
const (
	None        Fault = iota
	Drop              // the connection ends before anything is done
	Lose              // it is done, and the connection ends without an answer
	Truncate          // it is done, and half of the answer is sent
	Repeat            // it is done twice, as if the network had repeated it
	Unavailable       // 503 with Retry-After
	Proxy             // 502 from something that is not a coordinator
	Forget            // it is done, and then a row is lost, as by a wrong digest
	Hang              // nothing happens until the client gives up
)

// Coordinator is the model. Its exported fields are set before it serves, or
// within Change; the functions among them are called one at a time.
type Coordinator struct {
	t testing.TB

	// Fault, when set, decides about each request.
	Fault func(r *http.Request) Fault
	// Pause is what answers to syncs ask for.
	Pause time.Duration
	// IdentityLifetime is that of the identities that are issued.
	IdentityLifetime time.Duration
	// Clock is added to the time that answers tell.
	Clock time.Duration
	// MaxRows refuses larger syncs as too large; 0 is no limit.
	MaxRows int
	// HoldOrders leaves orders pending; Late does so once, when an order is new.
	HoldOrders, Late bool
	// Progress is what is said of orders that are pending.
	Progress wire.OrderProgress
	// Enrolled, when set, changes the answer to an enrolment.
	Enrolled func(*wire.EnrollResponse)
	// Body, when set, sees the body of each request that is carried out.
	Body func(body []byte)
	// Refuse, when set, is the answer to every sync.
	Refuse *wire.Problem
	// Servers are the nodes that agents are told, when they know others.
	Servers []string
	// Raw, when set, is the body of every answer.
	Raw []byte
	// Reject, when set, rejects each order.
	Reject *wire.Problem

	root   *authority
	trust  history
	source *tlsutil.CertSource

	mu       sync.Mutex
	tokens   map[string]*Token
	agents   map[string]*Agent
	requests map[string]int
	issued   int
}

// Token is an enrolment token and what it allows.
type Token struct {
	wire.EnrollmentToken
	Problem *wire.Problem // refuses it
	Uses    int
	agents  map[string]*Agent // by public key
}

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// New makes a coordinator with its own root.
func New(t testing.TB) *Coordinator {
	t.Helper()
	c := &Coordinator{
		t: t, Pause: time.Minute, IdentityLifetime: 30 * 24 * time.Hour,
		tokens: map[string]*Token{}, agents: map[string]*Agent{}, requests: map[string]int{},
	}
	c.root, c.source = c.newRoot(), new(tlsutil.CertSource)
	c.generation(c.root)
	c.certify()
	return c
}

func (c *Coordinator) newRoot() *authority {
	key, err := pki.GenerateKey(pki.DefaultKeyAlgorithm)
	require.NoError(c.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-10 * 365 * 24 * time.Hour), NotAfter: time.Now().Add(30 * 365 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(c.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(c.t, err)
	return &authority{cert: cert, key: key}
}

func (c *Coordinator) sign(template *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	serial := make([]byte, 16)
	rand.Read(serial)
	serial[0] &= 0x7f
	template.SerialNumber = new(big.Int).SetBytes(serial)
	template.NotBefore = c.now().Add(-time.Minute)
	der, err := x509.CreateCertificate(rand.Reader, template, c.root.cert, pub, c.root.key)
	require.NoError(c.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(c.t, err)
	return cert
}

// Token makes an enrolment token.
func (c *Coordinator) Token() *Token {
	c.mu.Lock()
	defer c.mu.Unlock()
	token := &Token{agents: map[string]*Agent{}}
	id := make([]byte, 6)
	rand.Read(id)
	rand.Read(token.Secret[:])
	token.ID, token.RootPin = hex.EncodeToString(id), wire.PinOf(c.root.cert)
	c.tokens[token.ID] = token
	return token
}

// Start serves on a port of 127.0.0.1 until the test ends, and returns the URL.
func (c *Coordinator) Start() string {
	var config net.ListenConfig
	l, err := config.Listen(c.t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(c.t, err)
	c.Serve(l)
	return "https://" + l.Addr().String()
}

// Serve serves on l until the test ends.
func (c *Coordinator) Serve(l net.Listener) {
	config, err := tlsutil.ServerConfig(tlsutil.ServerOptions{
		Source: c.source, Clients: tlsutil.OptionalClientCert, AcceptExpiredClients: true,
		ClientRoots: c.clientRoots,
	})
	require.NoError(c.t, err)
	server := &http.Server{Handler: c, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(tls.NewListener(l, config))
	}()
	c.t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

// Requests counts the requests to one path.
func (c *Coordinator) Requests(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests[path]
}

// ServeHTTP implements http.Handler.
func (c *Coordinator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault := c.fault(r)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	switch fault {
	case Drop:
		panic(http.ErrAbortHandler)
	case Hang:
		<-r.Context().Done()
		return
	case Unavailable:
		w.Header().Set("Retry-After", "7")
		reply(w, problem(http.StatusServiceUnavailable, wire.CodeUnavailable, "there is no leader"))
		return
	case Proxy:
		http.Error(w, "<html>Bad gateway</html>", http.StatusBadGateway)
		return
	}
	answer := c.handle(r, body)
	switch fault {
	case Repeat:
		answer = c.handle(r, body)
	case Lose:
		panic(http.ErrAbortHandler)
	case Truncate:
		text, err := json.Marshal(answer)
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		_, _ = w.Write(text[:len(text)/2])
		panic(http.ErrAbortHandler)
	case Forget:
		c.forget(r)
	}
	reply(w, answer)
}

func (c *Coordinator) fault(r *http.Request) Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Fault == nil {
		return None
	}
	return c.Fault(r)
}

func (c *Coordinator) handle(r *http.Request, body []byte) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests[r.URL.Path]++
	if c.Body != nil {
		c.Body(body)
	}
	switch r.URL.Path {
	case wire.EnrollPath:
		return c.enroll(body)
	case wire.TrustPath:
		return c.tellTrust(body, len(r.TLS.PeerCertificates) > 0)
	case wire.SyncPath, wire.IdentityPath:
		agent, leaf, refusal := c.agent(r)
		if refusal != nil {
			return refusal
		}
		expired := c.now().After(leaf.NotAfter)
		if r.URL.Path == wire.IdentityPath {
			return c.renew(agent, body)
		}
		if expired {
			return problem(http.StatusForbidden, wire.CodeIdentityExpired, "the identity has expired")
		}
		switch {
		case c.Refuse != nil:
			return c.Refuse
		case c.Raw != nil:
			return raw(c.Raw)
		}
		return c.sync(agent, body)
	}
	return problem(http.StatusNotFound, wire.CodeNotFound, "no such path")
}

func reply(w http.ResponseWriter, answer any) {
	status, kind := http.StatusOK, "application/json"
	if p, ok := answer.(*wire.Problem); ok {
		status, kind = p.Status, wire.ProblemContentType
	}
	text, isRaw := answer.(raw)
	if !isRaw {
		var err error
		if text, err = json.Marshal(answer); err != nil {
			panic(err)
		}
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

func problem(status int, code wire.Code, detail string) *wire.Problem {
	return &wire.Problem{Status: status, Code: code, Detail: detail, Mend: "see the test"}
}

// raw is an answer that is sent as it is.
type raw []byte
