package server

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/join"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/coordinator/revocation"
	"github.com/certctl/certctl/shared/wire"
)

const (
	livePath    = "/livez"
	readyPath   = "/readyz"
	metricsPath = "/metrics"
)

// ServeHTTP implements http.Handler: what is common to all requests.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	id := requestID(r.Header.Get(problem.RequestIDHeader))
	r.Header.Set(problem.RequestIDHeader, id)
	header := w.Header()
	header.Set(problem.RequestIDHeader, id)
	// Nothing here is to be shown, framed or guessed at by a browser, nor kept
	// on the way unless a handler says so.
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")

	answer := &recorder{ResponseWriter: w}
	defer func() {
		if failure := recover(); failure != nil {
			if failure == http.ErrAbortHandler { //nolint:errorlint // net/http compares it the same way
				panic(failure)
			}
			s.log.Error("a request made the server panic", "method", r.Method, "path", r.URL.Path, "request_id", id,
				"err", fmt.Sprint(failure), "stack", string(debug.Stack()))
			if answer.status != 0 {
				panic(http.ErrAbortHandler) // half an answer is cut off, not passed off as whole
			}
			problem.Write(answer, r, problem.New(wire.CodeInternal, "", "the coordinator failed to handle the request",
				"look in the coordinator's log for the request_id"))
		}
		took := time.Since(began)
		s.observe(kindOf(r.URL.Path), cmp.Or(answer.status, http.StatusOK), took)
		s.log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", answer.status,
			"duration", took, "remote", r.RemoteAddr, "request_id", id)
	}()
	s.route(answer, r)
}

func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case path == wire.EnrollPath:
		// Anybody may send one, as slowly as they like.
		r.Body = arrived(r.Body, wire.MaxEnrollBody)
		s.enrolments.serve(s.agents, w, r)
	case path == wire.TrustPath:
		r.Body = arrived(r.Body, wire.MaxTrustRequest)
		s.enrolments.serve(s.agents, w, r)
	case strings.HasPrefix(path, "/agent/"):
		s.syncs.serve(s.agents, w, r)
	case strings.HasPrefix(path, "/api/"), path == "/openapi", strings.HasPrefix(path, "/openapi."):
		s.reads.serve(s.api, w, r)
	case strings.HasPrefix(path, revocation.Prefix):
		s.downloads.serve(s.lists, w, r)
	case path == join.Path && s.joins != nil:
		r.Body = arrived(r.Body, join.MaxRequest)
		s.enrolments.serve(s.joins, w, r)
	case path == metricsPath && s.metrics != nil:
		s.reads.serve(s.metrics, w, r)
	case path == livePath, path == readyPath:
		s.health(w, r)
	default:
		problem.Write(w, r, problem.New(wire.CodeNotFound, "", "there is nothing at this path", "see /openapi.json for what there is"))
	}
}

// Kind is what a request is about.
type Kind string

// Kinds of requests. Other are those for health, for metrics and for nothing.
const (
	KindEnroll   Kind = "enroll"
	KindSync     Kind = "sync"
	KindIdentity Kind = "identity"
	KindTrust    Kind = "trust"
	KindAPI      Kind = "api"
	KindList     Kind = "revocation_list"
	KindJoin     Kind = "join"
	KindOther    Kind = "other"
)

func kindOf(path string) Kind {
	switch {
	case path == wire.EnrollPath:
		return KindEnroll
	case path == wire.SyncPath:
		return KindSync
	case path == wire.IdentityPath:
		return KindIdentity
	case path == wire.TrustPath:
		return KindTrust
	case strings.HasPrefix(path, "/api/"):
		return KindAPI
	case strings.HasPrefix(path, revocation.Prefix):
		return KindList
	case path == join.Path:
		return KindJoin
	}
	return KindOther
}

// arrived is a body of which as much is in memory already as a handler will
// read, so that the request needs a place only while it is worked on. What is
// wrong with the body, the handler meets when it reads on.
func arrived(body io.ReadCloser, most int64) io.ReadCloser {
	var held bytes.Buffer
	_, _ = io.Copy(&held, io.LimitReader(body, most+1))
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(&held, body), body}
}

// requestID is the client's own id of its request, if it is fit to be logged,
// or a new one.
func requestID(given string) string {
	if len(given) >= 8 && len(given) <= 64 &&
		strings.Trim(given, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == "" {
		return given
	}
	var id [12]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(id[:])
}

// A recorder remembers the status that was sent; 0 if none was.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(body []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(body)
}

// Unwrap lets http.ResponseController through.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
