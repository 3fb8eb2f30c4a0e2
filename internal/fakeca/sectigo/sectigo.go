// Package sectigo plays Sectigo Certificate Manager (SCM), its REST API for
// administrators, with each of the three ways in which it is logged in to.
package sectigo

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
)

// Where the API lies: with a password or a token, and with a client certificate.
const (
	Base        = "/api"
	PrivateBase = "/private/api"
	TokenPath   = "/auth/realms/apiclients/protocol/openid-connect/token"
)

// Credentials that a new Server takes.
const (
	Login        = "fake-admin"
	Password     = "Fake.Password.1"
	CustomerURI  = "fakecorp"
	ClientID     = "fake-client"
	ClientSecret = "Fake-Client-Secret-2"
)

// What the account has.
const (
	Organization = 9731
	Profile      = 4411
)

// Terms of the profile, in days.
var Terms = []int{90, 199, 365}

// tokenLife is how long an access token is good.
const tokenLife = 5 * time.Minute

// How a certificate that is not there yet is not handed out.
const (
	NotCollectable = ""           // status 400, code -183
	Processing     = "processing" // status 400, code -1400
	NotFoundYet    = "not_found"  // status 400, code -103
	Empty          = "empty"      // status 200 without a body
)

// Modes are what accounts differ in, or what is not known of the vendor.
type Modes struct {
	// NotReady is how a certificate that is not there yet is asked for in vain.
	NotReady string
	// AppliedForIssued says Applied of what is issued.
	AppliedForIssued bool
	// SaysReplaced says Replaced of what was issued anew.
	SaysReplaced bool
	// Unproven has the names of new orders wait for a proof: see Prove.
	Unproven bool
	// UnknownDomains refuses orders, as their domains are not validated.
	UnknownDomains bool
	// Mandatory is the name of a custom field that orders must have.
	Mandatory string
	// NoExternalRequester does not keep the field.
	NoExternalRequester bool
	// BackendDown refuses that many orders, as the CA is not available.
	BackendDown int
	// OldDates writes MM/dd/yyyy whatever is asked for.
	OldDates bool
}

// Server is the fake. It is safe for concurrent use.
type Server struct {
	core    *fakeca.Core
	handler http.Handler
	client  tls.Certificate

	mu       sync.Mutex
	password string
	secret   string
	refused  bool // the client certificate
	tokens   map[string]time.Time
	modes    Modes
}

// New makes a fake with an empty ledger.
func New(c fakeca.Config) *Server {
	if c.Name == "" {
		c.Name = "Sectigo"
	}
	s := &Server{core: fakeca.New(c), password: Password, secret: ClientSecret, tokens: map[string]time.Time{}}
	s.client = fakeca.ClientCertificate(Login, big.NewInt(1), s.core.Now())
	routes := http.NewServeMux()
	for pattern, handle := range map[string]http.HandlerFunc{
		"POST /enroll":                 s.enroll,
		"GET /types":                   s.types,
		"GET /customFields":            s.customFields,
		"GET /{$}":                     s.list,
		"GET /{id}":                    s.details,
		"GET /{a}/{b}":                 s.collectOrDCV,
		"GET /collect/{id}/{format}":   s.collect,
		"POST /approve/{id}":           s.approve,
		"POST /decline/{id}":           s.decline,
		"POST /revoke/{id}":            s.revoke,
		"POST /revoke/serial/{serial}": s.revokeSerial,
		"POST /replace/{id}":           s.replace,
		"POST /renewById/{id}":         s.renew,
		"POST /{id}/dcv/recheck":       s.recheck,
	} {
		routes.HandleFunc(pattern, handle)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+TokenPath, s.token)
	for _, base := range []string{Base, PrivateBase} {
		for _, version := range []string{"/ssl/v1", "/ssl/v2"} {
			api := s.authorized(base, http.StripPrefix(base+version, routes))
			mux.Handle(base+version+"/", api)
			mux.HandleFunc(base+version, func(w http.ResponseWriter, r *http.Request) { r.URL.Path += "/"; api.ServeHTTP(w, r) })
		}
	}
	s.handler = s.core.Handler(fakeca.Dialect{Op: op, Problem: s.problem, Serve: mux})
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Core implements fakeca.Server.
func (s *Server) Core() *fakeca.Core { return s.core }

// Client is the certificate that an administrator logs in with. The server has to
// ask for one.
func (s *Server) Client() tls.Certificate { return s.client }

// Account implements fakeca.Server.
func (s *Server) Account() map[string]string {
	return map[string]string{
		"path": Base, "login": Login, "password": Password, "customer_uri": CustomerURI, "organization": strconv.Itoa(Organization),
		"profile": strconv.Itoa(Profile), "terms": "[90]",
	}
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
	s.password, s.secret, s.refused, s.tokens = "another", "another", true, map[string]time.Time{}
}

// SetPassword has the account take another password, and no longer the one before.
func (s *Server) SetPassword(password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.password = password
}

// ForgetTokens ends every access token before its time.
func (s *Server) ForgetTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = map[string]time.Time{}
}

// Prove publishes what the names of an order wait for: it is found at the next
// recheck.
func (s *Server) Prove(order string) error { return s.core.Set(order, "published", "yes") }

func op(r *http.Request) fakeca.Op {
	path := r.URL.Path
	switch {
	case path == TokenPath:
		return fakeca.Login
	case strings.HasSuffix(path, "/enroll") || strings.Contains(path, "/renewById/"):
		return fakeca.Place
	case strings.Contains(path, "/replace/"):
		return fakeca.Reissue
	case strings.Contains(path, "/collect/"):
		return fakeca.Collect
	case strings.Contains(path, "/revoke/"):
		return fakeca.Revoke
	case strings.Contains(path, "/decline/"):
		return fakeca.Cancel
	case strings.Contains(path, "/dcv"):
		return fakeca.Validate
	case strings.HasSuffix(path, "/ssl/v1") || strings.HasSuffix(path, "/ssl/v1/"):
		return fakeca.Search
	case strings.HasSuffix(path, "/types") || strings.HasSuffix(path, "/customFields"):
		return fakeca.Other
	}
	return fakeca.Status
}

// authorized asks who it is, in the way that belongs to the base.
func (s *Server) authorized(base string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.knows(base, r) {
			s.fail(w, http.StatusUnauthorized, -16, "Unknown user "+r.Header.Get("login")+" with "+r.Header.Get("password"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) knows(base string, r *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && base == Base {
		until, known := s.tokens[token]
		return known && s.core.Now().Before(until)
	}
	if r.Header.Get("customerUri") != CustomerURI || r.Header.Get("login") != Login {
		return false
	}
	if base == PrivateBase {
		return r.Header.Get("password") == "" && !s.refused && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && bytes.Equal(r.TLS.PeerCertificates[0].Raw, s.client.Certificate[0])
	}
	return r.Header.Get("password") == s.password
}

// token is the authorization server's.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	sound := r.PostFormValue("grant_type") == "client_credentials" && r.PostFormValue("client_id") == ClientID && r.PostFormValue("client_secret") == s.secret
	s.mu.Unlock()
	if !sound {
		fakeca.JSON(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client", "error_description": "Invalid client " + r.PostFormValue("client_secret")})
		return
	}
	token := rand.Text()
	s.mu.Lock()
	s.tokens[token] = s.core.Now().Add(tokenLife)
	s.mu.Unlock()
	fakeca.JSON(w, http.StatusOK, map[string]any{"access_token": token, "expires_in": int(tokenLife / time.Second), "token_type": "Bearer"})
}

func (s *Server) problem(status int) (contentType, body string) {
	code, text := -1, "Internal error"
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		code, text = -16, "Unknown user"
	case http.StatusBadRequest:
		code, text = -39, "The profile is not known"
	case http.StatusTooManyRequests:
		code, text = -2, "Too many requests"
	}
	data, _ := json.Marshal(map[string]any{"code": code, "description": text}) // a number and a string
	return "application/json", string(data)
}

func (s *Server) fail(w http.ResponseWriter, status, code int, text string) {
	fakeca.JSON(w, status, map[string]any{"code": code, "description": text})
}

// found is the order that the path names.
func (s *Server) found(w http.ResponseWriter, id string) (fakeca.Order, bool) {
	o, err := s.core.Order(id)
	if err != nil {
		s.fail(w, http.StatusBadRequest, -124, "The SSL certificate ID is not valid")
		return o, false
	}
	return o, true
}

func (s *Server) read(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		s.fail(w, http.StatusBadRequest, -3, fmt.Sprintf("The request cannot be read: %v", err))
		return false
	}
	return true
}
