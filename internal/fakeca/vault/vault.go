// Package vault plays the PKI secrets engine of HashiCorp Vault and of OpenBao, which
// speak the same dialect: one POST signs, certificates are read and listed by serial
// number, what is not there has status 404 with an empty list of errors, and a token
// that is not good has the same answer as one that may not.
package vault

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
)

// What there is: where the engine is mounted, its one role, and who may use it.
const (
	Mount    = "pki-int/issuing"
	Role     = "web-servers"
	Token    = "hvs.fake-token-of-certctl"
	RoleID   = "0b3c6a1e-fake-role-id"
	SecretID = "6d8b4f20-fake-secret-id"
)

// tokenLife is how long a token is good that a login hands out.
const tokenLife = 20 * time.Minute

// Modes are what servers, roles and policies differ in.
type Modes struct {
	// Namespace is where the mount is; "" is the root namespace.
	Namespace string
	// NoStore is the role's: it keeps no certificate.
	NoStore bool
	// Old has no issuers beside the default one, as before version 1.11.
	Old bool
	// Pages lists as many certificates as are asked for, and from where, as OpenBao
	// does.
	Pages bool
	// NoChain leaves ca_chain out, as for an issuer that signs itself.
	NoChain bool
	// ControlGroup answers orders with something that others have to release.
	ControlGroup bool
	// Sealed refuses everything until somebody unseals the server.
	Sealed bool
	// Denied are paths that the token may not use, "sign/…" among them, beneath the
	// mount.
	Denied []string
	// TokenTTL is how long the token is good still, and Uses how often; 0 is for ever.
	TokenTTL time.Duration
	Uses     int
	// MaxTTL is the role's longest validity; 0 is 10 years.
	MaxTTL time.Duration
	// Behind is how far the server's clock is behind.
	Behind time.Duration
}

// Server is the fake. It is safe for concurrent use.
type Server struct {
	core    *fakeca.Core
	handler http.Handler

	mu     sync.Mutex
	modes  Modes
	spoilt bool
	token  string
	logins map[string]time.Time // tokens of logins, and when they end
}

// New makes a fake with an empty ledger. Nothing waits at such an authority: Approval
// and Delay of the Config are passed over.
func New(c fakeca.Config) *Server {
	if c.Name == "" {
		c.Name = "Vault"
	}
	c.Approval, c.Delay, c.Spread = false, 0, 0
	s := &Server{core: fakeca.New(c), token: Token, logins: map[string]time.Time{}}
	mux := http.NewServeMux()
	in := "/v1/" + Mount
	for pattern, handle := range map[string]http.HandlerFunc{
		"POST " + in + "/sign/{role}":              s.sign,
		"POST " + in + "/issuer/{ref}/sign/{role}": s.sign,
		"GET " + in + "/certs":                     s.list,
		"LIST " + in + "/certs":                    s.list,
		"GET " + in + "/cert/{serial}":             s.certificate,
		"POST " + in + "/revoke":                   s.revoke,
		"GET " + in + "/roles/{role}":              s.role,
		"GET " + in + "/issuers":                   s.issuers,
		"LIST " + in + "/issuers":                  s.issuers,
		"GET " + in + "/issuer/{ref}/json":         s.issuer,
		"GET /v1/auth/token/lookup-self":           s.lookup,
		"POST /v1/sys/capabilities-self":           s.capabilities,
		"/":                                        s.noRoute,
	} {
		mux.HandleFunc(pattern, s.authorized(handle))
		if rest, is := strings.CutPrefix(pattern, "POST "); is { // they are the same here
			mux.HandleFunc("PUT "+rest, s.authorized(handle))
		}
	}
	mux.HandleFunc("POST /v1/auth/approle/login", s.login)
	mux.HandleFunc("PUT /v1/auth/approle/login", s.login)
	mux.HandleFunc("GET /v1/sys/health", s.health)
	s.handler = s.core.Handler(fakeca.Dialect{Op: op, Problem: problem, Serve: mux})
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Core implements fakeca.Server.
func (s *Server) Core() *fakeca.Core { return s.core }

// Account implements fakeca.Server.
func (s *Server) Account() map[string]string {
	return map[string]string{"mount": Mount, "role": Role, "token": Token}
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

// SetToken takes another token instead of the one that there was.
func (s *Server) SetToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
}

// Spoil takes no credentials any more.
func (s *Server) Spoil() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoilt = true
}

// Logout ends the tokens of every login; another login gets another one.
func (s *Server) Logout() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.logins)
}

// Logged is a token that a login was answered with, "" if there was none.
func (s *Server) Logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token := range s.logins {
		return token
	}
	return ""
}

func op(r *http.Request) fakeca.Op {
	switch path := strings.TrimPrefix(r.URL.Path, "/v1/"+Mount); {
	case strings.Contains(path, "/sign/"):
		return fakeca.Place
	case strings.HasPrefix(path, "/cert/"):
		return fakeca.Status
	case path == "/certs":
		return fakeca.Search
	case path == "/revoke":
		return fakeca.Revoke
	case strings.HasSuffix(path, "/login"):
		return fakeca.Login
	}
	return fakeca.Other
}

// failure is the vendor's form of one. No text at all is what is not there.
func failure(texts ...string) map[string]any {
	return map[string]any{"errors": append([]string{}, texts...)}
}

func problem(status int) (contentType, body string) {
	text := "the server says " + http.StatusText(status)
	switch status {
	case http.StatusForbidden, http.StatusUnauthorized:
		text = "1 error occurred:\n\t* permission denied\n\n"
	case http.StatusTooManyRequests:
		text = `request path "` + Mount + `": rate limit quota exceeded`
	case http.StatusInternalServerError:
		text = "internal error"
	}
	data, _ := json.Marshal(failure(text)) // strings
	return "application/json", string(data)
}

func fail(w http.ResponseWriter, status int, texts ...string) {
	fakeca.JSON(w, status, failure(texts...))
}

// answer is the vendor's form of what is well.
func answer(w http.ResponseWriter, data any, warnings ...string) {
	body := map[string]any{"request_id": "fake", "lease_id": "", "renewable": false, "lease_duration": 0, "data": data, "wrap_info": nil, "warnings": nil, "auth": nil}
	if len(warnings) > 0 {
		body["warnings"] = warnings
	}
	fakeca.JSON(w, http.StatusOK, body)
}

func (s *Server) noRoute(w http.ResponseWriter, r *http.Request) {
	fail(w, http.StatusNotFound, `no handler for route "`+strings.TrimPrefix(r.URL.Path, "/v1/")+`". route entry not found.`)
}

// known reports whether a token is good.
func (s *Server) known(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, logged := s.logins[token]
	return !s.spoilt && (token == s.token || logged && s.core.Now().Before(until))
}

func (s *Server) authorized(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		modes := s.mode()
		rest, beneath := strings.CutPrefix(r.URL.Path, "/v1/"+Mount+"/")
		switch {
		case modes.Sealed:
			fail(w, http.StatusServiceUnavailable, "Vault is sealed")
		case r.Header.Get("X-Vault-Token") == "":
			fail(w, http.StatusForbidden, "missing client token")
		case !s.known(r.Header.Get("X-Vault-Token")):
			fail(w, http.StatusForbidden, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
		case beneath && strings.Trim(r.Header.Get("X-Vault-Namespace"), "/") != modes.Namespace:
			s.noRoute(w, r)
		case beneath && slices.Contains(modes.Denied, rest):
			fail(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
		default:
			next(w, r)
		}
	}
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Role   string `json:"role_id"`
		Secret string `json:"secret_id"`
	}
	err := json.NewDecoder(r.Body).Decode(&body)
	modes := s.mode()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case modes.Sealed:
		fail(w, http.StatusServiceUnavailable, "Vault is sealed")
	case err != nil || s.spoilt || body.Role != RoleID || body.Secret != SecretID || strings.Trim(r.Header.Get("X-Vault-Namespace"), "/") != modes.Namespace:
		fail(w, http.StatusBadRequest, "invalid role or secret ID")
	default:
		token := "hvs.login-" + s.core.NewSerial().Text(36)
		s.logins[token] = s.core.Now().Add(tokenLife)
		fakeca.JSON(w, http.StatusOK, map[string]any{"data": nil, "auth": map[string]any{
			"client_token": token, "accessor": "fake", "policies": []string{"default", "certctl"}, "lease_duration": int(tokenLife / time.Second), "renewable": true,
		}})
	}
}
