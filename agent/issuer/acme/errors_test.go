package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
)

func TestClassesOfProblems(t *testing.T) {
	p := func(kind string, status int) error { return acme.Problem{Type: kind, Status: status, Detail: "why"} }
	for name, test := range map[string]struct {
		step   step
		status int
		err    error
		want   issuer.Class
		mend   bool
	}{
		"rate limited":                {stepNewOrder, 429, p(acme.ProblemTypeRateLimited, 429), issuer.ClassRetry, true},
		"rate limited without type":   {stepNewOrder, 429, errors.New("slow down"), issuer.ClassRetry, true},
		"rate limited on an order":    {stepFinalize, 429, p(acme.ProblemTypeRateLimited, 429), issuer.ClassRetry, true},
		"bad nonces":                  {stepNewOrder, 400, p(acme.ProblemTypeBadNonce, 400), issuer.ClassRetry, false},
		"server error":                {stepNewOrder, 500, p(acme.ProblemTypeServerInternal, 500), issuer.ClassRetry, false},
		"server error without type":   {stepOrder, 502, errors.New("bad gateway"), issuer.ClassRetry, false},
		"rejected name":               {stepNewOrder, 400, p(acme.ProblemTypeRejectedIdentifier, 400), issuer.ClassRefused, true},
		"unsupported name":            {stepNewOrder, 400, p(acme.ProblemTypeUnsupportedIdentifier, 400), issuer.ClassRefused, true},
		"account binding":             {stepAccount, 403, p(acme.ProblemTypeExternalAccountRequired, 403), issuer.ClassRefused, true},
		"user action":                 {stepNewOrder, 403, p(acme.ProblemTypeUserActionRequired, 403), issuer.ClassRefused, true},
		"contact":                     {stepAccount, 400, p(acme.ProblemTypeInvalidContact, 400), issuer.ClassConfig, true},
		"deactivated account":         {stepNewOrder, 403, p(acme.ProblemTypeUnauthorized, 403), issuer.ClassRefused, true},
		"CSR":                         {stepFinalize, 400, p(acme.ProblemTypeBadCSR, 400), issuer.ClassRefused, true},
		"CAA at finalization":         {stepFinalize, 403, p(acme.ProblemTypeCAA, 403), issuer.ClassOrderGone, true},
		"order not ready":             {stepFinalize, 403, p(acme.ProblemTypeOrderNotReady, 403), issuer.ClassRetry, false},
		"order of another account":    {stepOrder, 403, p(acme.ProblemTypeUnauthorized, 403), issuer.ClassOrderGone, true},
		"unknown order":               {stepOrder, 404, errors.New("404"), issuer.ClassOrderGone, false},
		"certificate gone":            {stepCertificate, 410, errors.New("410"), issuer.ClassOrderGone, false},
		"unknown account on an order": {stepOrder, 401, p(acme.ProblemTypeAccountDoesNotExist, 401), issuer.ClassRetry, false},
		"unknown type, client":        {stepNewOrder, 400, p("urn:example:odd", 400), issuer.ClassRefused, true},
		"unknown type, server":        {stepNewOrder, 503, p("urn:example:odd", 503), issuer.ClassRetry, false},
		"no directory":                {stepDirectory, 404, errors.New("404"), issuer.ClassConfig, true},
		"not reachable":               {stepDirectory, 0, errors.New("connection refused"), issuer.ClassRetry, true},
		"unknown root":                {stepDirectory, 0, &url.Error{Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}, issuer.ClassConfig, true},
		"other host's certificate":    {stepDirectory, 0, x509.HostnameError{Certificate: &x509.Certificate{}}, issuer.ClassConfig, true},
		"expired server":              {stepDirectory, 0, x509.CertificateInvalidError{Reason: x509.Expired}, issuer.ClassConfig, true},
		"compound": {stepNewOrder, 400, acme.Problem{Type: acme.ProblemTypeCompound, Status: 400, Subproblems: []acme.Subproblem{
			{Problem: acme.Problem{Type: acme.ProblemTypeDNS}}, {Problem: acme.Problem{Type: acme.ProblemTypeRejectedIdentifier}},
		}}, issuer.ClassRefused, true},
	} {
		t.Run(name, func(t *testing.T) {
			failure := requireClass(t, test.want, classify(t.Context(), test.step, test.status, 7*time.Second, fmt.Errorf("attempt 1: %w", test.err)))
			assert.Equal(t, 7*time.Second, failure.RetryAfter)
			assert.Equal(t, test.mend, failure.Mend != "", failure.Mend)
			assert.ErrorContains(t, failure, string(test.step))
		})
	}

	problem := acme.Problem{Type: acme.ProblemTypeUserActionRequired, Instance: "https://ca.example/terms/2"}
	assert.Contains(t, judge(problem).mend, problem.Instance)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, classify(ctx, stepOrder, 404, 0, ctx.Err()), context.Canceled)
	for kind := range challengeMends {
		assert.Contains(t, verdicts, kind)
	}
}

func fakeConfig(server *httptest.Server, path string) Config {
	d := newDisk()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return Config{
		Name: "fake", DirectoryURL: server.URL + path, RootCAs: roots, TermsAgreed: true,
		Solver: DNS01Exec{Command: []string{"true"}}, Keys: d, State: d, Log: slog.New(slog.DiscardHandler),
	}
}

// fakeCA speaks just enough ACME to answer newOrder as a test wants.
func fakeCA(t *testing.T, newOrder http.HandlerFunc) *Issuer {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	var nonce atomic.Int64
	fresh := func(w http.ResponseWriter) { w.Header().Set("Replay-Nonce", fmt.Sprint(nonce.Add(1))) }
	mux.HandleFunc("GET /dir", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"newNonce": server.URL + "/nonce", "newAccount": server.URL + "/account", "newOrder": server.URL + "/order",
		})
	})
	mux.HandleFunc("HEAD /nonce", func(w http.ResponseWriter, _ *http.Request) { fresh(w) })
	mux.HandleFunc("POST /account", func(w http.ResponseWriter, _ *http.Request) {
		fresh(w)
		w.Header().Set("Location", server.URL+"/account/1")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"status":"valid"}`))
	})
	mux.HandleFunc("POST /order", func(w http.ResponseWriter, r *http.Request) {
		fresh(w)
		newOrder(w, r)
	})
	return open(t, fakeConfig(server, "/dir")) // its cleanup runs before the server's
}

func TestRateLimitIsHandedOn(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	i := fakeCA(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		assert.Contains(t, r.UserAgent(), "certctl-agent/")
		w.Header().Set("Retry-After", "4711")
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = w.Write([]byte(`{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates for a.example"}`))
	})
	_, err := i.Issue(deadline(t, 60*time.Second), newOrder(t, "a.example"))
	failure := requireClass(t, issuer.ClassRetry, err)
	assert.Equal(t, 4711*time.Second, failure.RetryAfter)
	assert.ErrorContains(t, err, "too many certificates for a.example")
	assert.Equal(t, int64(1), asked.Load(), "a limit is not tried again at once")
}

func TestAnAuthorityThatHangsOrFloods(t *testing.T) {
	t.Parallel()
	hang := fakeCA(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see the client go
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := hang.Issue(ctx, newOrder(t, "a.example"))
	require.ErrorIs(t, err, context.DeadlineExceeded)

	flood := fakeCA(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		chunk := make([]byte, 64<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	_, err = flood.Issue(deadline(t, 60*time.Second), newOrder(t, "a.example"))
	requireClass(t, issuer.ClassRetry, err)
	var tooLarge *http.MaxBytesError
	require.ErrorAs(t, err, &tooLarge)
}

// A directory that cannot be read again is not what every call waits for.
func TestAnOldDirectoryIsGoodEnough(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	var server *httptest.Server
	server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) > 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{
			"newNonce": server.URL + "/nonce", "newAccount": server.URL + "/account", "newOrder": server.URL + "/order",
		})
	}))
	t.Cleanup(server.Close)
	i := open(t, fakeConfig(server, "/dir"))
	first, err := i.session(t.Context())
	require.NoError(t, err)
	first.read = first.read.Add(-directoryLife)
	for range 3 {
		again, err := i.session(t.Context())
		require.NoError(t, err)
		assert.Same(t, first, again)
	}
	assert.EqualValues(t, 2, asked.Load())

	first.read = first.read.Add(-directoryPause)
	_, err = i.session(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 3, asked.Load(), "asked again after a while")
}

// A certificate that cannot be read stays what it is: an order that was
// continued because of it would be continued for ever.
func TestACertificateThatCannotBeReadEndsTheOrder(t *testing.T) {
	t.Parallel()
	i := fakeCA(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, _ = w.Write([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	})
	order := newOrder(t, "a.example")
	url := strings.TrimSuffix(i.config.DirectoryURL, "/dir") + "/order"
	order.State = json.RawMessage(fmt.Sprintf(`{"directory":%q,"order":%q,"finalizing":true,"certificate":%q}`, i.config.DirectoryURL, url, url))
	_, err := i.Issue(deadline(t, 60*time.Second), order)
	requireClass(t, issuer.ClassOrderGone, err)
}

func TestSomethingThatIsNoDirectory(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"<html>", "{}", "[]"} {
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		t.Cleanup(server.Close)
		_, err := open(t, fakeConfig(server, "")).Issue(deadline(t, 60*time.Second), newOrder(t, "a.example"))
		assert.Contains(t, requireClass(t, issuer.ClassConfig, err).Mend, "correct directory")
	}
}

func FuzzParseRenewalInfo(f *testing.F) {
	f.Add([]byte(`{"suggestedWindow":{"start":"2026-01-01T00:00:00Z","end":"2026-01-02T00:00:00Z"},"explanationURL":"https://ca.example/"}`))
	f.Add([]byte(`{"suggestedWindow":{"start":"2026-01-02T00:00:00Z","end":"2026-01-01T00:00:00Z"}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		info, err := parseRenewalInfo(text)
		if err == nil && !info.WindowEnd.After(info.WindowStart) {
			t.Fatalf("accepted an empty window: %+v", info)
		}
	})
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"directory":"https://ca.example/","order":"https://ca.example/o/1","finalizing":true}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseState(text)
		if err != nil {
			if issuer.Classify(err).Class != issuer.ClassOrderGone {
				t.Fatalf("a state that cannot be read must end the order: %v", err)
			}
			return
		}
		if (s.Order == "") != (s.Directory == "") {
			t.Fatalf("half a state: %+v", s)
		}
	})
}

func FuzzParseAccountState(f *testing.F) {
	f.Add([]byte(`{"accounts":[{"directory":"https://ca.example/","key_id":"k"}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		state, err := parseAccountState(text)
		if err != nil {
			return
		}
		ids, err := AccountKeyIDs(text)
		if err != nil || len(ids) != len(state.Accounts) {
			t.Fatalf("%v, %v of %+v", ids, err, state)
		}
	})
}

// RFC 9773, section 5: an order that is refused as a replacement is placed again
// without the reference, however the authority refuses it; one that is refused for
// something else is not.
func TestARefusalThatMayBeAboutReplaces(t *testing.T) {
	for kind, again := range map[string]bool{
		acme.ProblemTypeAlreadyReplaced: true, acme.ProblemTypeMalformed: true, acme.ProblemTypeUnauthorized: true,
		acme.ProblemTypeServerInternal: true, acme.ProblemTypeRateLimited: false, acme.ProblemTypeRejectedIdentifier: false,
		acme.ProblemTypeExternalAccountRequired: false,
	} {
		err := classify(t.Context(), stepNewOrder, http.StatusConflict, 0, acme.Problem{Type: kind, Status: http.StatusConflict})
		assert.Equal(t, again, mayBeReplaces(err), kind)
	}
	assert.False(t, mayBeReplaces(errors.New("no route to host")))
}
