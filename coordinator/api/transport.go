package api

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/problem"
)

// named gives the request an id where the server has given none, and keeps
// answers that need a token out of caches.
func named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(problem.RequestIDHeader) == "" {
			r.Header.Set(problem.RequestIDHeader, rand.Text())
		}
		w.Header().Set(problem.RequestIDHeader, r.Header.Get(problem.RequestIDHeader))
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// finish wraps the mux: problem documents where it would answer in plain text.
func finish(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r) // sets the path values
			return
		}
		// The mux found nothing, or not with this method. It says which one by
		// the status that its handler would write.
		refusal := &muxRefusal{header: http.Header{}}
		handler.ServeHTTP(refusal, r)
		if allow := refusal.header.Get("Allow"); refusal.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", allow)
			problem.Write(w, r, &refusedMethod(r, allow).Problem)
			return
		}
		problem.Write(w, r, &unknownPath(r).Problem)
	})
}

// muxRefusal keeps what the mux's error handler would have answered.
type muxRefusal struct {
	header http.Header
	status int
}

// Header implements http.ResponseWriter.
func (m *muxRefusal) Header() http.Header { return m.header }

// WriteHeader implements http.ResponseWriter.
func (m *muxRefusal) WriteHeader(status int) { m.status = status }

// Write implements http.ResponseWriter.
func (m *muxRefusal) Write(p []byte) (int, error) { return len(p), nil }

// humaConfig is Huma without what this project does itself: documents are
// encoded before anything is sent, and nothing but JSON is spoken.
func humaConfig() huma.Config {
	format := huma.Format{Marshal: encode, Unmarshal: json.Unmarshal}
	return huma.Config{
		OpenAPI:                      newDocument(),
		Formats:                      map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{nameRequest},
	}
}

// encode writes v as JSON. An error of w is the client's connection: nobody is
// left to hear of it, and Huma would panic about it.
func encode(w io.Writer, v any) error {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return err
	}
	_, _ = w.Write(body.Bytes())
	return nil
}

// nameRequest puts the request's id into problems.
func nameRequest(ctx huma.Context, _ string, v any) (any, error) {
	p, ok := v.(*Problem)
	if !ok {
		return v, nil
	}
	named := *p
	named.RequestID = ctx.Header(problem.RequestIDHeader)
	return &named, nil
}

// bearer is the token of an Authorization header (RFC 6750 section 2.1).
func bearer(header string) (string, bool) {
	scheme, token, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}
