package client_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) {
	// A proxy would go in between where the host is not this one.
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		_ = os.Unsetenv(name)
	}
	goleak.VerifyTestMain(m)
}

func roots(t *testing.T, c *apitest.Coordinator) string {
	t.Helper()
	text, err := os.ReadFile(c.RootFile())
	require.NoError(t, err)
	return string(text)
}

func connect(t *testing.T, config client.Config) *client.Client {
	t.Helper()
	c, err := client.New(config)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func whoami(t *testing.T, c *client.Client) (*resource.Identified, error) {
	t.Helper()
	return c.Whoami(t.Context())
}

func TestAgainstACoordinator(t *testing.T) {
	t.Parallel()
	coordinator := apitest.Start(t)
	c := connect(t, client.Config{Servers: []string{coordinator.URL + "/"}, Token: coordinator.Admin, Roots: roots(t, coordinator)})
	who, err := whoami(t, c)
	require.NoError(t, err)
	assert.Equal(t, coordinator.Admin.ID, who.TokenID)

	agent := coordinator.Agent("agent1", "web1", nil)
	for _, name := range []string{"www", "a b", "50%25", "a/b", "..", ".", "?x=y#z", "ü"} {
		agent.Report(name, apitest.Valid(coordinator.Now(), time.Hour, "www.example.com"))
		row, err := c.ShowCertificate(t.Context(), client.ShowCertificateParams{Agent: "agent1", Name: name})
		require.NoError(t, err, name)
		assert.Equal(t, name, row.Name)
	}

	_, err = c.CreateAPIToken(t.Context(), resource.CreateAPIToken{Role: "viewer"})
	var problem *wire.Problem
	require.ErrorAs(t, err, &problem)
	assert.Equal(t, wire.CodeInvalid, problem.Code)
	assert.Equal(t, "name", problem.Field)
	assert.NotEmpty(t, problem.RequestID)

	_, err = whoami(t, connect(t, client.Config{Servers: []string{coordinator.URL}, Token: apitoken.New(), Roots: roots(t, coordinator)}))
	require.ErrorAs(t, err, &problem)
	assert.Equal(t, wire.CodeUnauthorized, problem.Code)
}

// certificate is one of the coordinator's CA for another name than its own.
func certificate(t *testing.T, c *apitest.Coordinator, name string) tls.Certificate {
	t.Helper()
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	leaf, err := c.CA.IssueServer(pki.MustParseNames(name), key.Public())
	require.NoError(t, err)
	chain, err := c.CA.ServerChain(leaf)
	require.NoError(t, err)
	made := tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, cert := range chain {
		made.Certificate = append(made.Certificate, cert.Raw)
	}
	return made
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	coordinator := apitest.Start(t)
	root := roots(t, coordinator)
	other := roots(t, apitest.Start(t))
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	misnamed := httptest.NewUnstartedServer(http.NotFoundHandler())
	misnamed.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate(t, coordinator, "pki.example.com")}}
	misnamed.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	misnamed.StartTLS()
	t.Cleanup(misnamed.Close)
	for name, c := range map[string]struct{ server, roots, text string }{
		"nobody listens":   {"https://127.0.0.1:1", root, "see whether it runs"},
		"another CA":       {coordinator.URL, other, "log in again with the coordinator's present root.pem"},
		"the system's CAs": {coordinator.URL, "", "log in again with the coordinator's present root.pem"},
		"another name":     {misnamed.URL, root, "server.names"},
		// No resolver is asked for what cannot be a name.
		"no such host":          {"https://nowhere-.invalid:8443", root, "check the host name"},
		"something without TLS": {"https" + strings.TrimPrefix(plain.URL, "http"), root, "something else than a coordinator listens there"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := whoami(t, connect(t, client.Config{Servers: []string{c.server}, Token: coordinator.Admin, Roots: c.roots}))
			require.ErrorIs(t, err, client.ErrUnreachable)
			assert.ErrorContains(t, err, c.text)
			assert.ErrorContains(t, err, c.server)
			assert.NotContains(t, err.Error(), "whoami", "the URL is said once")
			assert.NotContains(t, err.Error(), strings.Split(coordinator.Admin.Reveal(), ".")[2])
		})
	}
}

// fake is a server that answers as it likes.
func fake(t *testing.T, handler http.HandlerFunc) *client.Client {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	server.StartTLS()
	t.Cleanup(server.Close)
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return connect(t, client.Config{Servers: []string{server.URL}, Token: apitoken.New(), Roots: string(root)})
}

func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	elsewhere := 0
	answers := map[string]struct {
		handler http.HandlerFunc
		text    string
	}{
		"a web page": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write([]byte("<html>"))
		}, "answered 502 Bad Gateway, which is not an answer of a coordinator"},
		"JSON of another": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write([]byte(`{"error":"no"}`))
		}, "which is not an answer of a coordinator"},
		"a way elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			if elsewhere++; elsewhere > 1 {
				t.Error("the token went elsewhere")
			}
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, "answered 307 Temporary Redirect, which is not an answer of a coordinator"},
		"not JSON":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }, "cannot be read"},
		"another shape": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"name":7}`)) }, "cannot be read"},
		"half of one": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(`{"name":`))
		}, "the answer broke off"},
		"too much": {func(w http.ResponseWriter, _ *http.Request) {
			chunk := make([]byte, 1<<20)
			for range 65 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "larger than 67108864 bytes"},
	}
	for name, c := range answers {
		t.Run(name, func(t *testing.T) {
			_, err := whoami(t, fake(t, c.handler))
			assert.ErrorContains(t, err, c.text)
		})
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(http.ResponseWriter){
		"before the answer": func(http.ResponseWriter) {},
		"in the middle of it": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(`{"name":`))
			_ = http.NewResponseController(w).Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			c := fake(t, func(w http.ResponseWriter, r *http.Request) {
				begin(w)
				cancel()
				<-r.Context().Done()
			})
			_, err := c.Whoami(ctx)
			require.ErrorIs(t, err, context.Canceled)
			assert.NotErrorIs(t, err, client.ErrUnreachable, "nothing is wrong with the coordinator")
		})
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"", "certctl.example.com", "http://certctl.example.com", "https://", "https://:8443", "https://a/b", "https://a?b", "https://a?", "https://a#b", "https://user:hunter2@a", "https://a b"} {
		_, err := client.New(client.Config{Servers: []string{server}})
		require.ErrorContains(t, err, "https://certctl.example.com:8443", server)
		assert.NotContains(t, err.Error(), "hunter2")
	}
	_, err := client.New(client.Config{Servers: []string{"https://a"}, Roots: "hello"})
	assert.ErrorContains(t, err, "root.pem")
	u, err := client.ParseServer("https://certctl.example.com:8443/")
	require.NoError(t, err)
	assert.Equal(t, "https://certctl.example.com:8443", u.String())
}

func FuzzPath(f *testing.F) {
	f.Add("a/b", "..")
	f.Add("%2e", "?#")
	f.Fuzz(func(t *testing.T, first, second string) {
		for _, part := range []string{first, second} {
			if part == "" || part == "/" {
				return // an empty segment names nothing, and the mux takes a lone slash for one
			}
		}
		mux, got := http.NewServeMux(), []string(nil)
		mux.HandleFunc("/x/{first}/{second}", func(_ http.ResponseWriter, r *http.Request) {
			got = []string{r.PathValue("first"), r.PathValue("second")}
		})
		request := httptest.NewRequest(http.MethodGet, "https://host/x"+client.Path(first, second), nil)
		mux.ServeHTTP(httptest.NewRecorder(), request)
		assert.Equal(t, []string{first, second}, got)
	})
}
