package call

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func post(t *testing.T, handler http.HandlerFunc) (out map[string]any, err error) {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	defer server.Close()
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	_, err = Post(t.Context(), client, server.URL, "/x", []byte(`{"a":1}`), &out)
	return out, err
}

func TestPost(t *testing.T) {
	out, err := post(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		assert.JSONEq(t, `{"a":1}`, string(body))
		assert.Equal(t, "/x", r.URL.Path)
		assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
		fmt.Fprint(w, `{"b":2}`)
	})
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"b": 2.0}, out)
	assert.True(t, Decided(nil))
}

func TestProblems(t *testing.T) {
	answer := func(status int, header string, p wire.Problem) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", wire.ProblemContentType+"; charset=utf-8")
			if header != "" {
				w.Header().Set("Retry-After", header)
			}
			w.WriteHeader(status)
			assert.NoError(t, json.NewEncoder(w).Encode(p))
		}
	}
	for _, c := range []struct {
		handler http.HandlerFunc
		code    wire.Code
		decided bool
		after   time.Duration
	}{
		{answer(403, "", wire.Problem{Code: wire.CodeAgentRetired}), wire.CodeAgentRetired, true, 0},
		{answer(429, "12", wire.Problem{Code: wire.CodeOverloaded}), wire.CodeOverloaded, true, 12 * time.Second},
		{answer(429, "12", wire.Problem{Code: wire.CodeOverloaded, RetryAfterSeconds: 5}), wire.CodeOverloaded, true, 5 * time.Second},
		{answer(503, "", wire.Problem{Code: wire.CodeUnavailable, RetryAfterSeconds: -5}), wire.CodeUnavailable, false, 0},
		{answer(503, "", wire.Problem{Code: wire.CodeUnavailable, RetryAfterSeconds: 1 << 40}), wire.CodeUnavailable, false, backoff.MaxRetryAfter},
		{answer(500, "", wire.Problem{Code: wire.CodeInternal}), wire.CodeInternal, false, 0},
	} {
		_, err := post(t, c.handler)
		var problem *wire.Problem
		require.ErrorAs(t, err, &problem)
		assert.Equal(t, c.code, problem.Code)
		assert.Equal(t, c.decided, Decided(err))
		assert.Equal(t, c.after, RetryAfter(fmt.Errorf("wrapped: %w", err)))
	}
}

// Whatever is no answer of a coordinator leaves open what became of the request.
func TestLost(t *testing.T) {
	for want, handler := range map[string]http.HandlerFunc{
		"answered 502 Bad Gateway": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) },
		"answered 503": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "33")
			w.WriteHeader(http.StatusServiceUnavailable)
		},
		"answered 404": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", wire.ProblemContentType)
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"title":"no code"}`)
		},
		"answered 307": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/", http.StatusTemporaryRedirect)
		},
		"cannot be read": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"b":`) },
		"broke off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"b":`)
		},
		"EOF":         func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"larger than": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat(" ", MaxAnswer+1)) },
	} {
		_, err := post(t, handler)
		var lost *LostError
		require.ErrorAs(t, err, &lost, want)
		assert.ErrorContains(t, err, want)
		assert.False(t, Decided(err))
		assert.Equal(t, 1, strings.Count(err.Error(), "https://127."), err)
		after := time.Duration(0)
		if want == "answered 503" {
			after = 33 * time.Second
		}
		assert.Equal(t, after, RetryAfter(err))
	}
}

// Too much to do is not the same as not there.
func TestOverloaded(t *testing.T) {
	for _, c := range []struct {
		status     int
		code       wire.Code // "" is no problem document
		overloaded bool
	}{
		{http.StatusServiceUnavailable, wire.CodeOverloaded, true}, {http.StatusServiceUnavailable, wire.CodeUnavailable, false},
		{http.StatusTooManyRequests, "", true}, {http.StatusServiceUnavailable, "", false}, {http.StatusBadGateway, "", false},
		{http.StatusForbidden, wire.CodeAgentRetired, false}, {http.StatusOK, "", false},
	} {
		_, err := post(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "9")
			if c.code != "" {
				w.Header().Set("Content-Type", wire.ProblemContentType)
			}
			w.WriteHeader(c.status)
			_, _ = fmt.Fprintf(w, `{"code":%q}`, c.code)
		})
		assert.Equal(t, c.overloaded, Overloaded(err), "%+v: %v", c, err)
		if c.overloaded {
			assert.Equal(t, 9*time.Second, RetryAfter(err))
		}
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Post(ctx, http.DefaultClient, "https://127.0.0.1:1", "/x", nil, nil)
	assert.ErrorIs(t, err, context.Canceled)
	_, err = Post(t.Context(), http.DefaultClient, "https://\x7f", "/x", nil, nil)
	assert.Error(t, err)
	assert.False(t, errors.Is(err, context.Canceled))
}

// Whatever an answer holds, it is either read or refused with a reason, and
// never with a pause that silences the host.
func FuzzAnswer(f *testing.F) {
	f.Add(200, "application/json", `{"server_time":"2026-01-01T00:00:00Z"}`)
	f.Add(503, wire.ProblemContentType, `{"code":"unavailable","retry_after_seconds":7}`)
	f.Add(302, "text/html", "<html>")
	f.Fuzz(func(t *testing.T, status int, kind, body string) {
		if status < 200 || status > 999 {
			return
		}
		client := &http.Client{Transport: roundTrip(func(r *http.Request) *http.Response {
			return &http.Response{
				StatusCode: status, Status: fmt.Sprint(status), Request: r,
				Header: http.Header{"Content-Type": {kind}, "Retry-After": {body}}, Body: io.NopCloser(strings.NewReader(body)),
			}
		}), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		_, err := Post(t.Context(), client, "https://coordinator.test", wire.SyncPath, nil, new(wire.SyncResponse))
		if after := RetryAfter(err); after < 0 || after > backoff.MaxRetryAfter {
			t.Fatalf("asks for %v", after)
		}
		if status != http.StatusOK && err == nil {
			t.Fatal("was taken for an answer")
		}
	})
}

type roundTrip func(*http.Request) *http.Response

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }
