// Package entrust plays Entrust CA Gateway: a client certificate and nothing else,
// answers that have the certificate with them, certificates as base64 of DER and left
// out unless they are asked for, and no way of asking about an enrollment.
package entrust

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/shared/backoff"
)

// What there is: where the API lies, its one CA and that CA's profile.
const (
	Base    = "/cagw"
	CA      = "fake-partition~fake/ca"
	Profile = "fake-tls-server"
)

// Secret is in the details of every failure: the back end's, which nobody should see.
const Secret = "jdbc-password-of-the-back-end"

// maxPage is the most events that are shown at a time.
const maxPage = 50

// Modes are what gateways and the CAs behind them differ in.
type Modes struct {
	// NoChain sends an empty chain.
	NoChain bool
	// NoStatus has no state of a certificate, as CAs of some kinds.
	NoStatus bool
	// Word is the status of an enrollment that is issued; "" is ACCEPTED.
	Word string
	// Rejects says REJECTED of enrollments, in an answer of status 200.
	Rejects bool
	// QuotaSpent refuses enrollments: the purchased certificates are used up.
	QuotaSpent bool
	// ActionStatus is the status of an action that changes nothing; "" is the truth.
	ActionStatus string
	// NoEventData leaves certificates out of events, whatever is asked for.
	NoEventData bool
	// Slow has the answer to an enrollment come so much later.
	Slow time.Duration
	// PEM sends PEM for the X509 that was asked for.
	PEM bool
}

// Server is the fake. It is safe for concurrent use.
type Server struct {
	core    *fakeca.Core
	handler http.Handler
	client  tls.Certificate

	mu      sync.Mutex
	refused bool
	modes   Modes
}

// New makes a fake with an empty ledger.
func New(c fakeca.Config) *Server {
	if c.Name == "" {
		c.Name = "Entrust"
	}
	s := &Server{core: fakeca.New(c)}
	s.client = fakeca.ClientCertificate("fake-gateway-client", big.NewInt(1), s.core.Now())
	mux := http.NewServeMux()
	ca := Base + "/v1/certificate-authorities/{ca}"
	for pattern, handle := range map[string]http.HandlerFunc{
		"GET " + ca:                                     s.showCA,
		"GET " + ca + "/profiles/{id}":                  s.showProfile,
		"POST " + ca + "/enrollments":                   s.enroll,
		"GET " + ca + "/certificate-events":             s.events,
		"GET " + ca + "/certificates/{serial}":          s.certificate,
		"POST " + ca + "/certificates/{serial}/actions": s.act,
	} {
		mux.HandleFunc(pattern, s.authorized(handle))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.fail(w, http.StatusNotFound, "cagw-4040", "No such resource")
	})
	s.handler = s.core.Handler(fakeca.Dialect{Op: op, Problem: problem, Serve: mux})
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Core implements fakeca.Server.
func (s *Server) Core() *fakeca.Core { return s.core }

// Client is the certificate that is let in. The server has to ask for one.
func (s *Server) Client() tls.Certificate { return s.client }

// Account implements fakeca.Server.
func (s *Server) Account() map[string]string {
	return map[string]string{"path": Base, "ca": CA, "profile": Profile}
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
	s.refused = true
}

func op(r *http.Request) fakeca.Op {
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/enrollments"):
		return fakeca.Place
	case strings.HasSuffix(path, "/actions"):
		return fakeca.Revoke
	case strings.HasSuffix(path, "/certificate-events"):
		return fakeca.Search
	case strings.Contains(path, "/certificates/"):
		return fakeca.Status
	}
	return fakeca.Other
}

func (s *Server) authorized(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		known := !s.refused && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && bytes.Equal(r.TLS.PeerCertificates[0].Raw, s.client.Certificate[0])
		s.mu.Unlock()
		switch {
		case !known:
			s.fail(w, http.StatusForbidden, "cagw-4030", "The client is not known")
		case r.PathValue("ca") != CA:
			s.fail(w, http.StatusNotFound, "cagw-4041", "The CA is not known")
		default:
			next(w, r)
		}
	}
}

// failure is the vendor's form of one, with more in it than a client should see.
func failure(code, text string) map[string]any {
	return map[string]any{"type": "ErrorResponse", "error": map[string]any{
		"code": code, "message": text, "target": "enrollment", "details": []any{map[string]string{"code": "internal", "message": Secret}},
		"additionalProperties": map[string]string{"backend": Secret},
	}}
}

func problem(status int) (contentType, body string) {
	code := "cagw-" + strconv.Itoa(status) + "0"
	if status == http.StatusTooManyRequests {
		code = "TooManyRequests"
	}
	data, _ := json.Marshal(failure(code, "The gateway says "+http.StatusText(status))) // strings
	return "application/json", string(data)
}

func (s *Server) fail(w http.ResponseWriter, status int, code, text string) {
	fakeca.JSON(w, status, failure(code, text))
}

// wants reports whether a field is asked for.
func wants(r *http.Request, field string) bool {
	return slices.Contains(strings.Split(r.URL.Query().Get("$fields"), ","), field)
}

func inBase64(certs []*x509.Certificate) []string {
	list := []string{}
	for _, cert := range certs {
		list = append(list, base64.StdEncoding.EncodeToString(cert.Raw))
	}
	return list
}

func (s *Server) showCA(w http.ResponseWriter, r *http.Request) {
	ca, issuers := map[string]any{"id": CA, "name": "Fake CA"}, s.core.Issuers()
	if wants(r, "ca.certificate") {
		ca["certificate"] = inBase64(issuers[:1])[0]
	}
	if wants(r, "ca.chain") {
		ca["chain"] = inBase64(issuers)
	}
	fakeca.JSON(w, http.StatusOK, map[string]any{"type": "CAResponse", "ca": ca})
}

func (s *Server) showProfile(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("id") != Profile {
		s.fail(w, http.StatusNotFound, "cagw-4042", "The profile is not known")
		return
	}
	fakeca.JSON(w, http.StatusOK, map[string]any{"type": "ProfileResponse", "profile": map[string]any{
		"id": Profile, "name": "Fake TLS server", "subjectVariableRequirements": []any{map[string]any{"name": "cn", "required": true}},
	}})
}

// wait is for Modes.Slow.
func (s *Server) wait(r *http.Request) {
	if slow := s.mode().Slow; slow > 0 && backoff.Wait(r.Context(), slow) != nil {
		panic(http.ErrAbortHandler)
	}
}
