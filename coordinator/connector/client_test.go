package connector_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/connector"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "0123-the-key-4567"

// vendorProblem reads {"code":…,"message":…}.
func vendorProblem(a *connector.Answer) *connector.Error {
	var body struct{ Code, Message string }
	if !a.Reads(&body) || body.Code == "" {
		return nil
	}
	return &connector.Error{Code: body.Code, Detail: body.Message}
}

func newClient(t *testing.T, base string, change func(*connector.ClientConfig)) *connector.Client {
	t.Helper()
	u, err := url.Parse(base)
	require.NoError(t, err)
	config := connector.ClientConfig{
		BaseURL: u, Problem: vendorProblem, Secrets: func() []string { return []string{secret} },
		Authorize: func(_ context.Context, r *http.Request) error { r.Header.Set("X-Key", secret); return nil },
	}
	if change != nil {
		change(&config)
	}
	c, err := connector.NewClient(config)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func failure(t *testing.T, err error) *connector.Error {
	t.Helper()
	e, ok := errors.AsType[*connector.Error](err)
	require.True(t, ok, "%v", err)
	return e
}

func TestWhatAnAnswerSaysOfAnOrder(t *testing.T) {
	vendor := `{"code":"no","message":"not this one, ` + secret + `"}`
	for _, c := range []struct {
		status    int
		body      string
		class     connector.Class
		notPlaced bool
	}{
		{400, vendor, connector.ClassRefused, true},
		{400, "<html>", connector.ClassAnswer, false},
		{401, "<html>", connector.ClassCredentials, true},
		{403, vendor, connector.ClassCredentials, true},
		{404, vendor, connector.ClassNotFound, true},
		{404, "<html>", connector.ClassAnswer, false},
		{408, vendor, connector.ClassRetry, false},
		{409, vendor, connector.ClassRefused, false},
		{422, vendor, connector.ClassRefused, true},
		{429, "", connector.ClassBusy, true},
		{500, vendor, connector.ClassRetry, false},
		{501, vendor, connector.ClassRefused, false},
		{502, "<html>", connector.ClassRetry, false},
		{503, vendor, connector.ClassBusy, false},
		{302, "", connector.ClassAnswer, false},
	} {
		t.Run(fmt.Sprint(c.status, " ", c.body != vendor), func(t *testing.T) {
			base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://elsewhere.example.com/")
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			_, err := newClient(t, base, nil).Do(t.Context(), connector.Call{Method: "POST", Path: []string{"order"}, Body: 1, Places: true})
			e := failure(t, err)
			assert.Equal(t, c.class, e.Class)
			assert.Equal(t, c.notPlaced, e.NotPlaced)
			assert.Equal(t, c.status, e.Status)
			assert.Equal(t, 7*time.Second, e.RetryAfter)
			assert.NotContains(t, e.Error(), secret)
			assert.NotEmpty(t, e.Detail)
		})
	}
}

func TestADateIsComparedWithTheClockThatMadeIt(t *testing.T) {
	away := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", away.Format(http.TimeFormat))
		w.Header().Set("Retry-After", away.Add(90*time.Second).Format(http.TimeFormat))
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	_, err := newClient(t, base, nil).Do(t.Context(), connector.Call{})
	assert.Equal(t, 90*time.Second, failure(t, err).RetryAfter)
}

func TestWhatNeverLeftWasNotPlaced(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := "http://" + listener.Addr().String()
	require.NoError(t, listener.Close())
	_, err = newClient(t, closed, nil).Do(t.Context(), connector.Call{Method: "POST", Body: 1, Places: true})
	assert.True(t, failure(t, err).NotPlaced)

	_, err = newClient(t, closed, func(c *connector.ClientConfig) {
		c.Authorize = func(context.Context, *http.Request) error { return errors.New("the file is not there") }
	}).Do(t.Context(), connector.Call{Method: "POST", Body: 1, Places: true})
	assert.True(t, failure(t, err).NotPlaced)

	// A server that speaks TLS with a certificate of nobody's has not been sent
	// anything either.
	strange := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(strange.Close)
	_, err = newClient(t, strange.URL, nil).Do(t.Context(), connector.Call{Method: "POST", Body: 1, Places: true})
	assert.True(t, failure(t, err).NotPlaced)
}

// Whatever was written may have been read, whatever became of the connection: and
// nothing sends it again.
func TestALostAnswerLeavesTheOutcomeOpen(t *testing.T) {
	for name, lose := range map[string]func(net.Conn){
		"closed": func(c net.Conn) { _ = c.Close() },
		"reset":  func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); _ = c.Close() },
		"cut": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{\"id\":")
			_ = c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var orders atomic.Int32
			base := serve(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if r.Method == http.MethodGet {
					return
				}
				orders.Add(1)
				conn, _, err := http.NewResponseController(w).Hijack()
				if assert.NoError(t, err) {
					lose(conn)
				}
			})
			client := newClient(t, base, nil)
			_, err := client.Do(t.Context(), connector.Call{}) // leaves an idle connection
			require.NoError(t, err)
			_, err = client.Do(t.Context(), connector.Call{Method: "POST", Body: 1, Places: true})
			assert.False(t, failure(t, err).NotPlaced)
			assert.EqualValues(t, 1, orders.Load())
		})
	}
}

func TestWhatIsSent(t *testing.T) {
	var got *http.Request
	var body string
	base := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		got, body = r, string(data)
	})
	client := newClient(t, base+"/services/v2/", nil)
	_, err := client.Do(t.Context(), connector.Call{
		Method: "PUT", Path: []string{"a", "b/c~d"}, Query: url.Values{"q": {"x y"}}, Body: map[string]int{"n": 1}, Header: http.Header{"Content-Type": {"application/json;charset=utf-8"}},
	})
	require.NoError(t, err)
	assert.Equal(t, "/services/v2/a/b%2Fc~d?q=x+y", got.RequestURI)
	assert.Equal(t, "application/json;charset=utf-8", got.Header.Get("Content-Type"))
	assert.Equal(t, secret, got.Header.Get("X-Key"))
	assert.JSONEq(t, `{"n":1}`, body)
	_, err = client.Do(t.Context(), connector.Call{Anonymous: true})
	require.NoError(t, err)
	assert.Empty(t, got.Header.Get("X-Key"))
	_, err = client.Do(t.Context(), connector.Call{Method: "POST", Form: url.Values{"a": {"b c"}}})
	require.NoError(t, err)
	assert.Equal(t, "a=b+c", body)
	assert.Equal(t, "application/x-www-form-urlencoded", got.Header.Get("Content-Type"))
}

func TestBoundsOfAnAnswer(t *testing.T) {
	reached := make(chan struct{})
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			_, _ = io.WriteString(w, strings.Repeat("x", connector.MaxAnswer+1))
			return
		}
		_, _ = io.Copy(io.Discard, r.Body) // else the end of the connection is not seen
		if r.URL.Path == "/reached" {
			close(reached)
		}
		<-r.Context().Done()
	})
	client := newClient(t, base, nil)
	_, err := client.Do(t.Context(), connector.Call{Path: []string{"long"}})
	assert.Equal(t, connector.ClassAnswer, failure(t, err).Class)
	_, err = client.Do(t.Context(), connector.Call{Path: []string{"hangs"}, Timeout: 50 * time.Millisecond})
	assert.Equal(t, connector.ClassRetry, failure(t, err).Class)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-reached
		cancel()
	}()
	_, err = client.Do(ctx, connector.Call{Path: []string{"reached"}, Places: true})
	assert.Equal(t, connector.ClassRetry, failure(t, err).Class)
	assert.False(t, failure(t, err).NotPlaced)
	assert.Len(t, connector.Detail(strings.Repeat("ä", 600)), 512)
	assert.Equal(t, "a  b", connector.Raw("a\r\nb"))
}

func TestASecretThatTheBoundCutsIsNotShown(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"code":"no","message":"`+strings.Repeat("x", 512-len(secret)/2)+secret+`"}`)
	})
	_, err := newClient(t, base, nil).Do(t.Context(), connector.Call{})
	assert.NotContains(t, failure(t, err).Detail, secret[:6])
}

func TestTheCallersOwnConnections(t *testing.T) {
	base := serve(t, func(http.ResponseWriter, *http.Request) {})
	dialled := ""
	client := newClient(t, "http://authority.example", func(c *connector.ClientConfig) {
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled = address
			return (&net.Dialer{}).DialContext(ctx, network, strings.TrimPrefix(base, "http://"))
		}
	})
	_, err := client.Do(t.Context(), connector.Call{})
	require.NoError(t, err)
	assert.Equal(t, "authority.example:80", dialled)
}

// Most servers of authorities speak HTTP/2. Questions use it; what places an order
// does not, and is answered all the same.
func TestAServerThatSpeaksHTTP2(t *testing.T) {
	var protocols []string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { protocols = append(protocols, r.Proto) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	client := newClient(t, server.URL, func(c *connector.ClientConfig) {
		c.Roots = x509.NewCertPool()
		c.Roots.AddCert(server.Certificate())
	})
	for _, places := range []bool{false, true, false} {
		_, err := client.Do(t.Context(), connector.Call{Method: "POST", Body: 1, Places: places})
		require.NoError(t, err)
	}
	assert.Equal(t, []string{"HTTP/2.0", "HTTP/1.1", "HTTP/2.0"}, protocols)
}
