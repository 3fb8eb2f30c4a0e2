package coordinatortest

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Agent is what the model knows about one agent. Read it only while nothing is
// sent.
type Agent struct {
	ID       string
	Rows     map[string]wire.Row
	Events   []wire.Event
	Host     wire.HostReport
	Retired  bool
	Unknown  bool // the coordinator has forgotten it
	Orders   map[string]*wire.OrderResult
	Placed   map[string]int       // how often each order was sent
	MadeAt   map[string]time.Time // when the agent says to have made it
	Resyncs  int
	Current  string // fingerprint of its identity
	Pending  string
	Promoted int // how often a new identity took over
	// Desired, when set, is what is wanted of the agent, and Commands what it is
	// asked for: those without a final result are repeated.
	Desired  *wire.Desired
	Commands []wire.Command
	// DesiredDigest is of the last sync; Assignments are of the last one that
	// told any, and AssignmentReports counts those.
	DesiredDigest     string
	Assignments       []wire.AssignmentReport
	AssignmentReports int
	Results           map[string]wire.CommandResult // the last one of each command
	Final             map[string]int                // how often a command became final
	// Trust is the generation of trust of the last sync; nil if it told none.
	Trust *wire.TrustPosition
	Skew  time.Duration // of the last sync: our time less the agent's

	revision    uint64
	event       uint64
	boot        string
	previous    string
	sequence    uint64
	resyncID    string
	resyncBegun bool
	marked      map[string]bool
	identities  map[string]*x509.Certificate // by public key
}

// Agent returns the model of one agent; nil if there is none.
func (c *Coordinator) Agent(id string) *Agent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agents[id]
}

// AgentLocked is Agent for use within Change.
func (c *Coordinator) AgentLocked(id string) *Agent { return c.agents[id] }

// Join makes an agent with that key without an enrolment, and returns its
// identity, whose KeyID is left to the caller.
func (c *Coordinator) Join(pub crypto.PublicKey) *store.Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	agent := c.newAgent(wire.HostReport{}, pub)
	cert := agent.identities[publicKey(pub)]
	return &store.Identity{
		AgentID: agent.ID, Servers: []string{"https://" + Host}, ChainPEM: pemOf(cert), RootsPEM: c.rootsPEM(),
		RenewAt: cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 2),
	}
}

func (c *Coordinator) newAgent(host wire.HostReport, pub crypto.PublicKey) *Agent {
	agent := &Agent{
		ID: fmt.Sprintf("agent-%d", len(c.agents)+1), Rows: map[string]wire.Row{}, Host: host,
		Results: map[string]wire.CommandResult{}, Final: map[string]int{},
		Orders: map[string]*wire.OrderResult{}, Placed: map[string]int{}, MadeAt: map[string]time.Time{}, identities: map[string]*x509.Certificate{},
	}
	agent.Current = pki.Fingerprint(c.identity(agent, pub))
	c.agents[agent.ID] = agent
	return agent
}

// Change runs fn while no request is carried out.
func (c *Coordinator) Change(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
}

// Agents is how many agents were ever enrolled.
func (c *Coordinator) Agents() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.agents)
}

// IdentitiesIssued is how many identity certificates were made.
func (c *Coordinator) IdentitiesIssued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.issued
}

func (c *Coordinator) enroll(body []byte) any {
	var request wire.EnrollRequest
	if p := wire.Decode(bytes.NewReader(body), wire.MaxEnrollBody, &request); p != nil {
		return p
	}
	if p := request.Validate(); p != nil {
		return p
	}
	csr, err := pki.ParseCSR(request.CSR)
	if err != nil {
		return problem(http.StatusBadRequest, wire.CodeCSRInvalid, err.Error())
	}
	shown, err := wire.ParseEnrollmentToken(request.Token)
	if err != nil {
		return problem(http.StatusBadRequest, wire.CodeInvalid, err.Error())
	}
	token := c.tokens[shown.ID]
	switch {
	case token == nil || token.Secret != shown.Secret:
		return problem(http.StatusForbidden, wire.CodeTokenUnknown, "no such token")
	case token.Problem != nil:
		return token.Problem
	}
	fingerprint := publicKey(csr.PublicKey)
	agent := token.agents[fingerprint]
	if agent == nil {
		if token.Uses > 0 {
			return problem(http.StatusForbidden, wire.CodeTokenUsed, "the token is used up")
		}
		token.Uses++
		agent = c.newAgent(request.Host, csr.PublicKey)
		token.agents[fingerprint] = agent
	}
	answer := &wire.EnrollResponse{
		AgentID: agent.ID, Chain: pemOf(agent.identities[fingerprint]), Roots: c.rootsPEM(),
		NamePatterns: []string{"*.example.com"}, ServerTime: c.now(),
	}
	if c.Enrolled != nil {
		c.Enrolled(answer)
	}
	return answer
}

func (c *Coordinator) now() time.Time { return time.Now().Add(c.Clock).UTC() }

func (c *Coordinator) identity(agent *Agent, pub crypto.PublicKey) *x509.Certificate {
	id := &url.URL{Scheme: "certctl", Host: "test", Path: "/agent/" + agent.ID}
	c.issued++
	cert := c.sign(&x509.Certificate{
		NotAfter: c.now().Add(c.IdentityLifetime), URIs: []*url.URL{id}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, pub)
	agent.identities[publicKey(pub)] = cert
	return cert
}

// renew makes a certificate for the key, or tells the one that it made before.
func (c *Coordinator) renew(agent *Agent, body []byte) any {
	var request wire.IdentityRequest
	if p := wire.Decode(bytes.NewReader(body), wire.MaxEnrollBody, &request); p != nil {
		return p
	}
	if p := request.Validate(); p != nil {
		return p
	}
	csr, err := pki.ParseCSR(request.CSR)
	if err != nil {
		return problem(http.StatusBadRequest, wire.CodeCSRInvalid, err.Error())
	}
	cert := agent.identities[publicKey(csr.PublicKey)]
	if cert == nil || pki.Fingerprint(cert) != agent.Pending || c.now().After(cert.NotAfter) {
		cert = c.identity(agent, csr.PublicKey)
	}
	agent.Pending = pki.Fingerprint(cert)
	return &wire.IdentityResponse{Chain: pemOf(cert), Roots: c.rootsPEM(), ServerTime: c.now()}
}

// agent finds who is at the other end. The first use of a pending identity
// makes it the current one.
func (c *Coordinator) agent(r *http.Request) (*Agent, *x509.Certificate, *wire.Problem) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, nil, problem(http.StatusUnauthorized, wire.CodeIdentityMissing, "no client certificate")
	}
	leaf := r.TLS.PeerCertificates[0]
	fingerprint := pki.Fingerprint(leaf)
	for _, agent := range c.agents {
		if agent.Unknown || agent.Current != fingerprint && agent.Pending != fingerprint {
			continue
		}
		if agent.Retired {
			return nil, nil, problem(http.StatusForbidden, wire.CodeAgentRetired, "retired")
		}
		if agent.Pending == fingerprint && r.URL.Path == wire.SyncPath {
			agent.Current, agent.Pending = fingerprint, ""
			agent.Promoted++
		}
		return agent, leaf, nil
	}
	return nil, nil, problem(http.StatusForbidden, wire.CodeIdentityUnknown, "this identity is not known here")
}

func publicKey(pub crypto.PublicKey) string {
	fingerprint, err := pki.PublicKeyFingerprint(pub)
	if err != nil {
		panic(err)
	}
	return fingerprint
}

func pemOf(cert *x509.Certificate) string {
	return string(pki.EncodeChainPEM([]*x509.Certificate{cert}))
}

func newID(n int) string { return hex.EncodeToString(fmt.Appendf(nil, "resync-%04d", n)) }
