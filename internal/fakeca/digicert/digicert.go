// Package digicert plays DigiCert CertCentral, Services API v2.
package digicert

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/certctl/certctl/internal/fakeca"
)

// Base is the path that the API lies under.
const Base = "/services/v2"

// Key is the API key that a new Server takes.
const Key = "FAKE1KEY2FOR3TESTS4WORTH5NOTHING6"

// Organization is the one that is validated.
const Organization = 112233

// requestOffset is from an order's number to that of its request.
const requestOffset = 5_000_000

// Products are those of the account, and whether they need an organization.
var Products = map[string]bool{
	"ssl_basic": true, "ssl_plus": true, "ssl_multi_domain": true, "ssl_wildcard": true, "ssl_securesite_flex": true,
	"ssl_ev_securesite_flex": true, "private_ssl_plus": true, "ssl_dv_geotrust": false,
}

// Modes are what accounts differ in, or what is not known of the vendor.
type Modes struct {
	// Plain is a key without an administrator's role: skip_approval is refused.
	Plain bool
	// Unproven has the domains of new orders wait for a proof: see Prove.
	Unproven bool
	// RevokeByRequest has a revocation wait for an administrator.
	RevokeByRequest bool
	// UniqueReference refuses a second order with an alternative_order_id.
	UniqueReference bool
	// NoReference does not keep alternative_order_id.
	NoReference bool
	// NoneIsNotFound answers a look-up that finds no order with status 404.
	NoneIsNotFound bool
	// ErrorsAsObject has "errors" be an object, as old answers did.
	ErrorsAsObject bool
	// NoPermission answers everything with access_denied|missing_permission.
	NoPermission bool
}

// Server is the fake. It is safe for concurrent use.
type Server struct {
	core    *fakeca.Core
	handler http.Handler

	mu       sync.Mutex
	key      string
	modes    Modes
	requests map[string]request
}

// request is something that an administrator decides about.
type request struct {
	order   string
	revokes int64 // the certificate; 0 is a new order
	reason  int
}

// New makes a fake with an empty ledger.
func New(c fakeca.Config) *Server {
	if c.Name == "" {
		c.Name = "DigiCert"
	}
	s := &Server{core: fakeca.New(c), key: Key, requests: map[string]request{}}
	mux := http.NewServeMux()
	for pattern, handle := range map[string]http.HandlerFunc{
		"POST /order/certificate/{product}":                       s.place,
		"GET /order/certificate/status-changes":                   s.changes,
		"GET /order/certificate":                                  s.list,
		"GET /order/certificate/{order}":                          s.info,
		"GET /order/alternate/{reference}":                        s.alternate,
		"PUT /order/certificate/{order}/status":                   s.cancel,
		"PUT /order/certificate/{order}/revoke":                   s.revokeOrder,
		"POST /order/certificate/{order}/reissue":                 s.reissue,
		"PUT /order/certificate/{order}/check-dcv":                s.checkDCV,
		"PUT /order/certificate/{order}/dcv-random-value":         s.randomValue,
		"GET /certificate/{certificate}/download/format/{format}": s.download,
		"GET /certificate/download/order/{order}/format/{format}": s.downloadOrder,
		"GET /certificate/{certificate}/chain":                    s.chain,
		"PUT /certificate/{certificate}/revoke":                   s.revoke,
		"PUT /request/{request}/status":                           s.decide,
		"GET /domain/{domain}":                                    s.domain,
		"PUT /domain/{domain}/dcv/validate-token":                 s.validateToken,
		"GET /user/me": s.me,
		"GET /product": s.products,
		"/": func(w http.ResponseWriter, _ *http.Request) {
			s.fail(w, http.StatusNotFound, "not_found|route", "The specified route was not found.")
		},
	} {
		method, path, found := strings.Cut(pattern, " ")
		if !found {
			method, path = "", pattern
		}
		mux.HandleFunc(strings.TrimSpace(method+" "+Base+path), handle)
	}
	s.handler = s.core.Handler(fakeca.Dialect{Op: op, Problem: s.problem, Serve: s.authorized(mux)})
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Core implements fakeca.Server.
func (s *Server) Core() *fakeca.Core { return s.core }

// Account implements fakeca.Server.
func (s *Server) Account() map[string]string {
	return map[string]string{"path": Base, "api_key": Key, "product": "ssl_basic", "organization": strconv.Itoa(Organization)}
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

// SetKey has the account take another key, and no longer the one before.
func (s *Server) SetKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = key
}

// Prove publishes what the domains of an order wait for: it is found when somebody
// has it checked.
func (s *Server) Prove(order string) error { return s.core.Set(order, "published", "yes") }

func op(r *http.Request) fakeca.Op {
	path := strings.TrimPrefix(r.URL.Path, Base)
	parts := strings.Split(strings.Trim(path, "/"), "/")
	last := parts[len(parts)-1]
	switch {
	case r.Method == http.MethodPost && last == "reissue":
		return fakeca.Reissue
	case r.Method == http.MethodPost && strings.HasPrefix(path, "/order/certificate/"):
		return fakeca.Place
	case strings.Contains(path, "/download/") || last == "chain":
		return fakeca.Collect
	case last == "revoke":
		return fakeca.Revoke
	case r.Method == http.MethodPut && last == "status":
		return fakeca.Cancel
	case strings.HasPrefix(path, "/order/alternate/") || path == "/order/certificate":
		return fakeca.Search
	case strings.HasPrefix(path, "/domain/") || strings.HasSuffix(last, "-dcv"):
		return fakeca.Validate
	case strings.HasPrefix(path, "/order/certificate/"):
		return fakeca.Status
	}
	return fakeca.Other
}

func (s *Server) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		key, m := s.key, s.modes
		s.mu.Unlock()
		switch {
		case subtle.ConstantTimeCompare([]byte(r.Header.Get("X-DC-DEVKEY")), []byte(key)) != 1:
			s.fail(w, http.StatusUnauthorized, "access_denied|invalid_key", "The API key "+r.Header.Get("X-DC-DEVKEY")+" is not valid.")
		case m.NoPermission:
			s.fail(w, http.StatusForbidden, "access_denied|missing_permission", "You do not have permission to do this.")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (s *Server) problem(status int) (contentType, body string) {
	code, text := "server_error", "Something went wrong."
	switch status {
	case http.StatusTooManyRequests:
		code, text = "request_limit_exceeded", "Service unavailable, please limit request volume."
	case http.StatusUnauthorized, http.StatusForbidden:
		code, text = "access_denied|missing_permission", "You do not have permission to do this."
	case http.StatusBadRequest:
		code, text = "bad_request_format", "The request is malformed."
	case http.StatusNotFound:
		code, text = "not_found|order", "The order was not found."
	}
	return "application/json", s.errors(code, text)
}

func (s *Server) errors(code, text string) string {
	entry := map[string]string{"code": code, "message": text}
	var errors any = []any{entry}
	if s.mode().ErrorsAsObject {
		errors = entry
	}
	data, _ := json.Marshal(map[string]any{"errors": errors}) // strings and nothing else
	return string(data)
}

func (s *Server) fail(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprint(w, s.errors(code, text))
}

func (s *Server) failed(w http.ResponseWriter, err error) {
	s.fail(w, http.StatusBadRequest, "invalid_state", err.Error())
}

// found is the order that the path names.
func (s *Server) found(w http.ResponseWriter, id string) (fakeca.Order, bool) {
	o, err := s.core.Order(id)
	if err != nil {
		s.fail(w, http.StatusNotFound, "not_found|order", "The specified order was not found.")
		return o, false
	}
	return o, true
}

func (s *Server) read(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		s.fail(w, http.StatusBadRequest, "bad_request_format", "The request is not JSON: "+err.Error())
		return false
	}
	return true
}
