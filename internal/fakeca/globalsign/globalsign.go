// Package globalsign plays GlobalSign Atlas, its HVCA API version 2: a client
// certificate and a token that is good for ten minutes, orders that are named by the
// serial number of the certificate to come, and certificates without their chain.
package globalsign

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"math/big"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
)

// Base is where the API lies.
const Base = "/v2"

// Credentials that a new Server takes.
const (
	APIKey    = "0123456789abcdef"
	APISecret = "89abcdef0123456789abcdef0123456789abcdef"
)

// clientSerial is the serial number of the client certificate. A server behind
// another one that ends TLS learns of it from a header field.
const (
	clientSerial       = "0A1B2C"
	clientSerialHeader = "X-SSL-Client-Serial"
)

// tokenLife is how long an access token is good.
const tokenLife = 10 * time.Minute

// jsonType is the only type of a body that is taken.
var jsonType = regexp.MustCompile(`^application/json;\s*charset=utf-8$`)

// Modes are what accounts differ in, or what is not known of the vendor.
type Modes struct {
	// Presence is what the policy says of a field of the subject, such as
	// "common_name": REQUIRED, OPTIONAL, FORBIDDEN or STATIC.
	Presence map[string]string
	// BareKey takes a public key alone (PKCS8) instead of a request (PKCS10).
	BareKey bool
	// KeySigned wants public_key_signature.
	KeySigned bool
	// SignatureChosen has orders say with what algorithm they are signed.
	SignatureChosen bool
	// StaticNames has the policy set the names, and orders not.
	StaticNames bool
	// MaxNames is how many DNS names a certificate has; 0 is 100.
	MaxNames int
	// ClaimsNeeded refuses orders with a DNS name under no verified claim.
	ClaimsNeeded bool
	// QuotaSpent refuses every order.
	QuotaSpent bool
	// RelativeLocation tells paths instead of URLs.
	RelativeLocation bool
	// UnknownAtFirst answers that many of the first questions about each order with
	// status 404.
	UnknownAtFirst int
	// OldTrustChain shows the first issuer alone, that many times, though another
	// one signs by now.
	OldTrustChain int
	// TurnedTrustChain shows the root first.
	TurnedTrustChain bool
	// IssuedIsDone says that what is not there yet is issued, without a certificate.
	IssuedIsDone bool
}

// Server is the fake. It is safe for concurrent use.
type Server struct {
	core    *fakeca.Core
	handler http.Handler
	client  tls.Certificate

	mu      sync.Mutex
	secret  string
	refused bool // the client certificate
	tokens  map[string]time.Time
	modes   Modes
	asked   map[string]int // by order
	chains  int            // that were shown
	claims  []*claim
}

// New makes a fake with an empty ledger and a verified claim for example.com.
func New(c fakeca.Config) *Server {
	if c.Name == "" {
		c.Name = "GlobalSign"
	}
	s := &Server{core: fakeca.New(c), secret: APISecret, tokens: map[string]time.Time{}, asked: map[string]int{}}
	serial, _ := new(big.Int).SetString(clientSerial, 16)
	s.client = fakeca.ClientCertificate("fake-atlas-client", serial, s.core.Now())
	s.claims = append(s.claims, s.newClaim("example.com", verified))
	routes := http.NewServeMux()
	for pattern, handle := range map[string]http.HandlerFunc{
		"POST /certificates":                s.order,
		"GET /certificates/{serial}":        s.certificate,
		"PATCH /certificates/{serial}":      s.revoke,
		"GET /trustchain":                   s.trustChain,
		"GET /validationpolicy":             s.policy,
		"GET /quotas/issuance":              s.quota,
		"GET /counters/certificates/{what}": s.counter,
		"GET /stats/issued":                 s.issued,
		"GET /claims/domains":               s.listClaims,
		"POST /claims/domains/{id}":         s.claimDomain,
		"GET /claims/domains/{id}":          s.showClaim,
		"DELETE /claims/domains/{id}":       s.deleteClaim,
		"POST /claims/domains/{id}/{way}":   s.assertClaim,
		"/":                                 func(w http.ResponseWriter, _ *http.Request) { s.fail(w, http.StatusNotFound, "No such resource", nil) },
	} {
		routes.HandleFunc(pattern, handle)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Base+"/login", s.login)
	mux.Handle(Base+"/", s.authorized(http.StripPrefix(Base, routes)))
	s.handler = s.core.Handler(fakeca.Dialect{Op: op, Problem: problem, Serve: mux})
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Core implements fakeca.Server.
func (s *Server) Core() *fakeca.Core { return s.core }

// Client is the certificate that belongs to the account. The server has to ask for
// one.
func (s *Server) Client() tls.Certificate { return s.client }

// Account implements fakeca.Server.
func (s *Server) Account() map[string]string {
	return map[string]string{"path": Base, "api_key": APIKey, "api_secret": APISecret}
}

// Set changes the modes.
func (s *Server) Set(m Modes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.modes = m
}

func (s *Server) mode() Modes {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.modes
}

// Spoil takes no credentials any more.
func (s *Server) Spoil() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret, s.refused, s.tokens = "another", true, map[string]time.Time{}
}

// SetSecret has the account take another API secret, and no longer the one before nor
// tokens that it gave.
func (s *Server) SetSecret(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret, s.tokens = secret, map[string]time.Time{}
}

// ForgetTokens ends every access token before its time.
func (s *Server) ForgetTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = map[string]time.Time{}
}

func op(r *http.Request) fakeca.Op {
	path := strings.TrimPrefix(r.URL.Path, Base)
	switch {
	case path == "/login":
		return fakeca.Login
	case path == "/certificates":
		return fakeca.Place
	case strings.HasPrefix(path, "/certificates/") && r.Method == http.MethodPatch:
		return fakeca.Revoke
	case strings.HasPrefix(path, "/certificates/"):
		return fakeca.Status
	case strings.HasPrefix(path, "/stats/"):
		return fakeca.Search
	case strings.HasPrefix(path, "/claims/"):
		return fakeca.Validate
	}
	return fakeca.Other
}

// certified reports whether the request comes with the client certificate, or from a
// server in front of this one that says so.
func (s *Server) certified(r *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused {
		return false
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return bytes.Equal(r.TLS.PeerCertificates[0].Raw, s.client.Certificate[0])
	}
	return strings.EqualFold(r.Header.Get(clientSerialHeader), clientSerial)
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Key    string `json:"api_key"`
		Secret string `json:"api_secret"`
	}
	if !s.read(w, r, &body) {
		return
	}
	sound := s.certified(r)
	s.mu.Lock()
	sound = sound && body.Key == APIKey && body.Secret == s.secret
	s.mu.Unlock()
	if !sound {
		s.fail(w, http.StatusUnauthorized, "Invalid credentials "+body.Key+" "+body.Secret, nil)
		return
	}
	token := rand.Text()
	s.mu.Lock()
	s.tokens[token] = s.core.Now().Add(tokenLife)
	s.mu.Unlock()
	reply(w, http.StatusOK, map[string]string{"access_token": token})
}

func (s *Server) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		until, known := s.tokens[token]
		s.mu.Unlock()
		if !s.certified(r) || !known || !s.core.Now().Before(until) {
			s.fail(w, http.StatusUnauthorized, "The token "+token+" is not valid", nil)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func problem(status int) (contentType, body string) {
	text := http.StatusText(status)
	if status == http.StatusBadRequest {
		text = "The request is not valid"
	}
	data, _ := json.Marshal(map[string]string{"description": text}) // a string
	return "application/problem+json", string(data)
}

func (s *Server) fail(w http.ResponseWriter, status int, text string, fields map[string]string) {
	body := map[string]any{"description": text}
	if fields != nil {
		body["errors"] = fields
	}
	data, _ := json.Marshal(body) // strings
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

func reply(w http.ResponseWriter, status int, v any) { fakeca.JSON(w, status, v) }

// read reads a body, of the one type that is taken.
func (s *Server) read(w http.ResponseWriter, r *http.Request, v any) bool {
	if !jsonType.MatchString(strings.ToLower(r.Header.Get("Content-Type"))) {
		s.fail(w, http.StatusUnsupportedMediaType, "The content type is not application/json;charset=utf-8", nil)
		return false
	}
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		s.fail(w, http.StatusBadRequest, "The request cannot be read: "+err.Error(), nil)
		return false
	}
	return true
}
