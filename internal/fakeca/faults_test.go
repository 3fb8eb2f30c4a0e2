package fakeca_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/shared/backoff"
)

// orders is a dialect of two requests.
func orders(core *fakeca.Core) http.Handler {
	return core.Handler(fakeca.Dialect{
		Op: func(r *http.Request) fakeca.Op {
			switch {
			case r.URL.Path == "/login":
				return fakeca.Login
			case r.Method == http.MethodPost:
				return fakeca.Place
			}
			return fakeca.Status
		},
		Problem: func(int) (string, string) { return "application/json", `{"problem":true}` },
		Serve: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				der, _ := io.ReadAll(r.Body)
				request, err := x509.ParseCertificateRequest(der)
				if err == nil {
					_, err = core.Accept(fakeca.Placement{CSR: request, Names: request.DNSNames})
				}
				if err != nil {
					http.Error(w, err.Error(), http.StatusBadRequest)
					return
				}
				w.WriteHeader(http.StatusCreated)
			}
			_, _ = io.WriteString(w, `{"a long answer":"of some words"}`)
		}),
	})
}

func TestEveryFault(t *testing.T) {
	clock := newClock()
	core := fakeca.New(fakeca.Config{Now: clock.Now})
	server := httptest.NewServer(orders(core))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	// post gives up when enough says so; nil has it wait for its answer.
	post := func(enough func() bool) (status int, header http.Header, body string, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if enough != nil {
			go func() {
				for !enough() && backoff.Wait(ctx, 5*time.Millisecond) == nil {
				}
				cancel()
			}()
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, bytes.NewReader(csr(t, "a.example").Raw))
		require.NoError(t, err)
		r.Header.Set("X-Key", "the-key")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, nil, "", err
		}
		defer answer.Body.Close()
		data, err := io.ReadAll(answer.Body)
		return answer.StatusCode, answer.Header, string(data), err
	}
	for _, c := range []struct {
		fault    fakeca.Fault
		accepted int
		broken   bool
		status   int
		body     string
	}{
		{fakeca.Fault{Kind: fakeca.Refuse}, 0, false, 500, `{"problem":true}`},
		{fakeca.Fault{Kind: fakeca.Refuse, Status: 400, ContentType: "text/plain", Body: "no"}, 0, false, 400, "no"},
		{fakeca.Fault{Kind: fakeca.Page}, 0, false, 502, "the-key"},
		{fakeca.Fault{Kind: fakeca.Hang}, 0, true, 0, ""},
		{fakeca.Fault{Kind: fakeca.Dropped}, 0, true, 0, ""},
		{fakeca.Fault{Kind: fakeca.Lost}, 1, true, 0, ""},
		{fakeca.Fault{Kind: fakeca.LostSlow}, 1, true, 0, ""},
		{fakeca.Fault{Kind: fakeca.Cut}, 1, true, 201, `{"a long`},
		{fakeca.Fault{Kind: fakeca.Half}, 1, false, 201, `{"a long`},
		{fakeca.Fault{Kind: fakeca.Huge}, 1, false, 201, strings.Repeat(" ", 1<<20)},
		{fakeca.Fault{Kind: fakeca.PageAfter, Status: 200}, 1, false, 200, "<html>"},
	} {
		t.Run(string(c.fault.Kind), func(t *testing.T) {
			before, asked := len(core.Ledger(nil)), core.Count(fakeca.Place)
			core.Script(fakeca.Place, c.fault)
			var enough func() bool
			switch c.fault.Kind {
			case fakeca.Hang:
				enough = func() bool { return core.Count(fakeca.Place) > asked }
			case fakeca.LostSlow:
				enough = func() bool { return len(core.Ledger(nil)) > before }
			}
			status, _, body, err := post(enough)
			assert.Equal(t, c.broken, err != nil, "%v", err)
			assert.Equal(t, c.status, status)
			assert.Contains(t, body, c.body)
			assert.Len(t, core.Ledger(nil), before+c.accepted)
			status, _, _, err = post(nil)
			require.NoError(t, err)
			assert.Equal(t, 201, status, "each fault is for one request")
		})
	}

	core.Script(fakeca.Any, fakeca.Fault{Kind: fakeca.Refuse, Status: 429, RetryAfter: 90 * time.Second}, fakeca.Fault{Kind: fakeca.Refuse, Status: 503, RetryAfter: time.Minute, AsDate: true}, fakeca.Fault{Kind: fakeca.Refuse, Status: 429})
	_, header, _, err := post(nil)
	require.NoError(t, err)
	assert.Equal(t, "90", header.Get("Retry-After"))
	_, header, _, err = post(nil)
	require.NoError(t, err)
	assert.Equal(t, clock.Now().Add(time.Minute).UTC().Format(http.TimeFormat), header.Get("Retry-After"))
	assert.Equal(t, clock.Now().UTC().Format(http.TimeFormat), header.Get("Date"))
	_, header, _, err = post(nil)
	require.NoError(t, err)
	assert.Empty(t, header.Get("Retry-After"))
	assert.Positive(t, core.Count(fakeca.Place))
}

func TestFaultsByRateAreTheSeedsDoing(t *testing.T) {
	run := func(seed uint64) (got string) {
		core := fakeca.New(fakeca.Config{Seed: seed, Rates: fakeca.Rates{Errors: 0.2, Busy: 0.1, Pages: 0.1}})
		handler := orders(core)
		for range 1000 {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			got += map[int]string{200: ".", 500: "E", 429: "B", 502: "P"}[w.Code]
		}
		w := httptest.NewRecorder()
		for range 50 {
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/login", nil))
			require.Equal(t, 200, w.Code)
		}
		return got
	}
	got := run(7)
	assert.Equal(t, got, run(7))
	assert.NotEqual(t, got, run(8))
	assert.InDelta(t, 200, strings.Count(got, "E"), 60)
	assert.InDelta(t, 100, strings.Count(got, "B"), 45)
	assert.InDelta(t, 100, strings.Count(got, "P"), 45)
}

func TestLimitsOfRequests(t *testing.T) {
	clock := newClock()
	core := fakeca.New(fakeca.Config{Now: clock.Now, Limits: []fakeca.Limit{{Requests: 2, Within: time.Second}, {Requests: 3, Within: time.Minute}}})
	handler := orders(core)
	ask := func() int {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		return w.Code
	}
	assert.Equal(t, []int{200, 200, 429}, []int{ask(), ask(), ask()})
	clock.Pass(time.Second)
	assert.Equal(t, []int{200, 429}, []int{ask(), ask()})
	clock.Pass(59 * time.Second)
	assert.Equal(t, []int{200, 200, 429}, []int{ask(), ask(), ask()})
}
