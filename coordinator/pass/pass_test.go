package pass

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// roundTrip is a function that carries requests.
type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// into carries requests to a handler without a network.
func into(h http.Handler) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result(), r.Context().Err()
	}
}

// pair is a node that passes on, and where its leader is.
type pair struct {
	passer *Passer
	here   atomic.Bool
	mu     sync.Mutex
	way    http.RoundTripper // nil: no leader is known
	url    string
}

func newPair(t *testing.T, change func(*Config)) *pair {
	t.Helper()
	p := new(pair)
	c := Config{
		Leader: func() (http.RoundTripper, string, bool) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.way, p.url, p.way != nil
		},
		Leads: p.here.Load, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&c)
	}
	var err error
	p.passer, err = New(c)
	require.NoError(t, err)
	return p
}

func (p *pair) leader(url string, way http.RoundTripper) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.way, p.url = way, url
}

// post passes a request on and returns the answer.
func (p *pair) post(body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/agent/v1/sync?x=%2F", strings.NewReader(body))
	p.passer.Pass(w, r, 100)
	return w
}

func yes() bool { return true }
func no() bool  { return false }

func callerIs(id string) func(context.Context) (string, bool) {
	return func(context.Context) (string, bool) { return id, id != "" }
}

func problemIn(t *testing.T, w *httptest.ResponseRecorder) *wire.Problem {
	t.Helper()
	assert.Equal(t, wire.ProblemContentType, w.Header().Get("Content-Type"))
	p := new(wire.Problem)
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), p), "%s", w.Body)
	return p
}

func unavailable(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	p := problemIn(t, w)
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	assert.Equal(t, wire.CodeUnavailable, p.Code)
	assert.Equal(t, "2", w.Header().Get("Retry-After"))
}

// echo is a leader that answers with the body.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_, _ = w.Write(body)
}

func leading(h http.HandlerFunc) roundTrip { return into(Receive(callerIs("node-b"), yes, h)) }

func certificate(t *testing.T, padding int) *x509.Certificate {
	t.Helper()
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), CRLDistributionPoints: []string{strings.Repeat("x", padding)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// The leader sees the client, over a real connection between nodes, and the
// client sees the leader's answer. What the client claims of itself in these
// fields counts for nothing.
func TestTheLeaderSeesTheClient(t *testing.T) {
	client, other := certificate(t, 0), certificate(t, 0)
	var seen *http.Request
	var body []byte
	server := httptest.NewTLSServer(Receive(callerIs("node-b"), yes, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, `{"a":1}`)
	})))
	defer server.Close()
	p := newPair(t, nil)
	p.leader(server.URL, server.Client().Transport)

	w := httptest.NewRecorder()
	w.Header().Set("X-Frame", "kept")
	r := httptest.NewRequest(http.MethodPost, "/agent/v1/sync?x=%2F", strings.NewReader("hello"))
	r.RemoteAddr = "192.0.2.7:4711"
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{client}}
	r.Header = http.Header{
		"Content-Type": {"text/x"}, "X-Request-Id": {"request-1"}, "Authorization": {"Bearer x"},
		"Connection": {"X-Hop, keep-alive"}, "X-Hop": {"1"}, "Keep-Alive": {"5"},
		certificateField: {base64.StdEncoding.EncodeToString(other.Raw)}, remoteField: {"198.51.100.1:1"}, patienceField: {"1"},
	}
	assert.Nil(t, p.passer.Pass(w, r, 100))

	assert.Equal(t, http.StatusTeapot, w.Code)
	assert.Equal(t, `{"a":1}`, w.Body.String())
	assert.Equal(t, "7", w.Header().Get("Retry-After"))
	assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
	assert.Equal(t, "kept", w.Header().Get("X-Frame"))
	assert.Empty(t, w.Header().Get(answerField))

	assert.Equal(t, "hello", string(body))
	assert.Equal(t, "/agent/v1/sync?x=%2F", seen.URL.RequestURI())
	assert.Equal(t, "192.0.2.7:4711", seen.RemoteAddr)
	require.Len(t, seen.TLS.PeerCertificates, 1)
	assert.True(t, client.Equal(seen.TLS.PeerCertificates[0]))
	assert.Equal(t, "Bearer x", seen.Header.Get("Authorization"))
	assert.Equal(t, "request-1", seen.Header.Get("X-Request-Id"))
	for name := range seen.Header {
		assert.False(t, strings.HasPrefix(name, prefix) || name == "X-Hop" || name == "Keep-Alive", name)
	}
	node, passed := From(seen.Context())
	assert.True(t, passed)
	assert.Equal(t, "node-b", node)
	_, passed = From(r.Context())
	assert.False(t, passed)
	deadline, ok := seen.Context().Deadline()
	require.True(t, ok)
	assert.LessOrEqual(t, time.Until(deadline), DefaultPatience)
	assert.Equal(t, Counts{Answered: 1}, p.passer.Counts())

	// Without a certificate the leader sees none, and above all not the node's.
	r = httptest.NewRequest(http.MethodPost, "/agent/v1/enroll", nil)
	p.passer.Pass(httptest.NewRecorder(), r, 100)
	assert.Empty(t, seen.TLS.PeerCertificates)
}

// Of a chain that is too long the leaf travels.
func TestLongChains(t *testing.T) {
	short, long := certificate(t, 0), certificate(t, maxCertificate)
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		want  int
	}{
		"one": {[]*x509.Certificate{short}, 1}, "five": {[]*x509.Certificate{short, short, short, short, short}, maxCertificates},
		"a large issuer": {[]*x509.Certificate{short, long}, 1},
	} {
		beside, err := parcelOf(&http.Request{RemoteAddr: "a pipe", TLS: &tls.ConnectionState{PeerCertificates: c.chain}})
		require.NoError(t, err, name)
		assert.Len(t, beside.certificates, c.want, name)
		assert.Equal(t, "0.0.0.0:0", beside.remote.String())
	}
	p := newPair(t, nil)
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{long}}
	p.passer.Pass(w, r, 100)
	assert.Equal(t, wire.CodeIdentityUnknown, problemIn(t, w).Code)
}

// Only nodes pass on, only to the leader, and only what can be read.
func TestReceiveRefuses(t *testing.T) {
	good := http.Header{remoteField: {"192.0.2.7:4711"}, patienceField: {"1000"}}
	for name, c := range map[string]struct {
		caller string
		leads  func() bool
		change func(http.Header)
		status int
	}{
		"good":             {"node-b", yes, func(http.Header) {}, http.StatusOK},
		"no node":          {"", yes, func(http.Header) {}, http.StatusForbidden},
		"not leading":      {"node-b", no, func(http.Header) {}, http.StatusServiceUnavailable},
		"no address":       {"node-b", yes, func(h http.Header) { h.Del(remoteField) }, http.StatusBadRequest},
		"two addresses":    {"node-b", yes, func(h http.Header) { h.Add(remoteField, "192.0.2.7:4711") }, http.StatusBadRequest},
		"a name":           {"node-b", yes, func(h http.Header) { h.Set(remoteField, "host:1") }, http.StatusBadRequest},
		"no patience":      {"node-b", yes, func(h http.Header) { h.Set(patienceField, "0") }, http.StatusBadRequest},
		"endless patience": {"node-b", yes, func(h http.Header) { h.Set(patienceField, "99999999999") }, http.StatusBadRequest},
		"no base64":        {"node-b", yes, func(h http.Header) { h.Set(certificateField, "?") }, http.StatusBadRequest},
		"no certificate":   {"node-b", yes, func(h http.Header) { h.Set(certificateField, "AAAA") }, http.StatusBadRequest},
		"many certificates": {"node-b", yes, func(h http.Header) {
			for range maxCertificates + 1 {
				h.Add(certificateField, "AAAA")
			}
		}, http.StatusBadRequest},
		"a large certificate": {"node-b", yes, func(h http.Header) {
			h.Set(certificateField, strings.Repeat("AAAA", maxCertificate))
		}, http.StatusBadRequest},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header = good.Clone()
		c.change(r.Header)
		handled := false
		Receive(callerIs(c.caller), c.leads, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { handled = true })).ServeHTTP(w, r)
		assert.Equal(t, c.status, w.Code, "%s: %s", name, w.Body)
		assert.Equal(t, c.status == http.StatusOK, handled, name)
	}
}

// A leader that dies in the middle of a request costs the client nothing but the
// time until there is another one.
func TestTheLeaderDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		p.leader("https://a", roundTrip(func(*http.Request) (*http.Response, error) {
			p.leader("", nil)
			time.AfterFunc(2*time.Second, func() { p.leader("https://b", leading(echo)) })
			return nil, errors.New("connection reset by peer")
		}))
		began := time.Now()
		w := p.post("hello")
		assert.Equal(t, http.StatusOK, w.Code)
		assert.Equal(t, "hello", w.Body.String(), "the whole body once more")
		assert.Less(t, time.Since(began), 2500*time.Millisecond)
		assert.Equal(t, Counts{Answered: 1, Again: 1}, p.passer.Counts())
	})
}

// While the leadership is handed over, the one who has it says that it can store
// nothing. That is not the last word, but it is no reason to ask for ever.
func TestTheLeadershipIsHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		asked := 0
		refuse := func(code wire.Code) roundTrip {
			return leading(func(w http.ResponseWriter, r *http.Request) {
				asked++
				problem.Write(w, r, problem.Later(code, "not now", 2*time.Second))
			})
		}
		p.leader("https://a", refuse(wire.CodeUnavailable))
		time.AfterFunc(300*time.Millisecond, func() { p.leader("https://b", leading(echo)) })
		assert.Equal(t, "hello", p.post("hello").Body.String())

		p.leader("https://a", refuse(wire.CodeUnavailable))
		asked = 0
		began := time.Now()
		unavailable(t, p.post("hello"))
		assert.Equal(t, maxLater+1, asked)
		assert.Less(t, time.Since(began), 2*time.Second)

		p.leader("https://a", refuse(wire.CodeOverloaded))
		asked = 0
		assert.Equal(t, wire.CodeOverloaded, problemIn(t, p.post("hello")).Code)
		assert.Equal(t, 1, asked, "who has too much to do is not asked again")
	})
}

// A leader that stands still is left as soon as another one is known.
func TestTheLeaderStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		still := roundTrip(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		p.leader("https://a", still)
		time.AfterFunc(1500*time.Millisecond, func() { p.leader("https://b", leading(echo)) })
		began := time.Now()
		assert.Equal(t, "hello", p.post("hello").Body.String())
		assert.Less(t, time.Since(began), 2200*time.Millisecond)

		// If none is, the client is told to come back, in time.
		p.leader("https://a", still)
		began = time.Now()
		unavailable(t, p.post("hello"))
		assert.LessOrEqual(t, time.Since(began), DefaultPatience)

		// A client that is gone is waited for no longer.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		p.passer.Pass(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil).WithContext(ctx), 1)
		assert.Equal(t, time.Second, time.Since(began))
	})
}

// A node that does not lead passes nothing on, and says so: what it was sent is
// sent to another one when there is one.
func TestPassedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		handled := 0
		p.leader("https://a", into(Receive(callerIs("node-b"), no, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { handled++ }))))
		began := time.Now()
		unavailable(t, p.post("hello"))
		assert.Equal(t, DefaultPatience, time.Since(began))
		assert.Zero(t, handled)
		time.AfterFunc(time.Second, func() { p.leader("https://c", leading(echo)) })
		assert.Equal(t, http.StatusOK, p.post("hello").Code)

		// Nor is the answer of something else passed off as the leader's.
		p.leader("https://a", into(http.NotFoundHandler()))
		unavailable(t, p.post("hello"))
	})
}

// The first request without a leader waits for an election; when none has come
// of it, the others need not.
func TestWithoutALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		began := time.Now()
		w := p.post("hello")
		unavailable(t, w)
		assert.Contains(t, problemIn(t, w).Detail, "no node leads")
		waited := time.Since(began)
		assert.Greater(t, waited, DefaultElection)
		assert.LessOrEqual(t, waited, DefaultPatience)
		began = time.Now()
		unavailable(t, p.post("hello"))
		assert.Zero(t, time.Since(began))

		p.leader("https://a", leading(echo))
		assert.Equal(t, http.StatusOK, p.post("hello").Code)
		p.leader("", nil)
		time.AfterFunc(2*time.Second, func() { p.here.Store(true) })
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("hello"))
		here := p.passer.Pass(httptest.NewRecorder(), r, 100)
		require.NotNil(t, here, "this node leads by now")
		body, err := io.ReadAll(here.Body)
		require.NoError(t, err)
		assert.Equal(t, "hello", string(body))
		assert.Equal(t, Counts{Answered: 1, Failed: 2}, p.passer.Counts())
	})
}

// A handler of a leader's work does for all nodes.
func TestHandler(t *testing.T) {
	p := newPair(t, nil)
	p.leader("https://a", leading(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "there") }))
	handler := p.passer.Handler(10, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") }))
	ask := func(ctx context.Context) string {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil).WithContext(ctx))
		return w.Body.String()
	}
	assert.Equal(t, "there", ask(t.Context()))
	assert.Equal(t, "here", ask(context.WithValue(t.Context(), originKey{}, "node-c")), "passed on once")
	p.here.Store(true)
	assert.Equal(t, "here", ask(t.Context()))
}

// Thousands that come at once while the leader stands still are refused at once,
// but for those for whom there is room, and these have an answer in time.
func TestABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients, room = 5000, 40
		p := newPair(t, func(c *Config) { c.MaxInFlight = room })
		var present, most atomic.Int64
		p.leader("https://a", roundTrip(func(r *http.Request) (*http.Response, error) {
			most.Store(max(most.Load(), present.Add(1)))
			defer present.Add(-1)
			<-r.Context().Done()
			return nil, r.Context().Err()
		}))
		began := time.Now()
		var all sync.WaitGroup
		var mu sync.Mutex
		codes := map[wire.Code]int{}
		for range clients {
			all.Go(func() {
				w := p.post("hello")
				took, refusal := time.Since(began), problemIn(t, w)
				assert.Positive(t, refusal.RetryAfterSeconds)
				assert.LessOrEqual(t, took, DefaultPatience)
				if refusal.Code == wire.CodeOverloaded {
					assert.Zero(t, took)
				}
				mu.Lock()
				defer mu.Unlock()
				codes[refusal.Code]++
			})
		}
		all.Wait()
		assert.EqualValues(t, room, most.Load())
		assert.Equal(t, map[wire.Code]int{wire.CodeOverloaded: clients - room, wire.CodeUnavailable: room}, codes)
		assert.Equal(t, Counts{Failed: room, Refused: clients - room}, p.passer.Counts())
		assert.Zero(t, p.passer.held.Load())
	})
}

// Bodies and answers have their bounds.
func TestSizes(t *testing.T) {
	p := newPair(t, nil)
	p.leader("https://a", leading(echo))
	assert.Equal(t, wire.CodeBodyTooLarge, problemIn(t, p.post(strings.Repeat("x", 101))).Code)
	assert.Equal(t, http.StatusOK, p.post(strings.Repeat("x", 100)).Code)

	p.passer.held.Store(maxHeld)
	assert.Equal(t, wire.CodeOverloaded, problemIn(t, p.post("x")).Code)
	p.passer.held.Store(0)

	p.leader("https://a", leading(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.CopyN(w, endless{}, maxAnswer+1)
	}))
	assert.Equal(t, wire.CodeInternal, problemIn(t, p.post("x")).Code)
}

type endless struct{}

// Read implements io.Reader.
func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestNewChecksItsConfig(t *testing.T) {
	good := Config{
		Leader: func() (http.RoundTripper, string, bool) { return nil, "", false }, Leads: no, Log: slog.New(slog.DiscardHandler),
	}
	_, err := New(good)
	require.NoError(t, err)
	for name, change := range map[string]func(*Config){
		"Leader": func(c *Config) { c.Leader = nil }, "Leads": func(c *Config) { c.Leads = nil }, "Log": func(c *Config) { c.Log = nil },
		"MaxInFlight": func(c *Config) { c.MaxInFlight = -1 }, "Patience": func(c *Config) { c.Patience = time.Hour }, "Election": func(c *Config) { c.Election = -1 },
	} {
		c := good
		change(&c)
		_, err := New(c)
		assert.ErrorContains(t, err, name)
	}
}

// What another node sends is read or refused, and what was read is within its
// bounds and reads the same when it is written again.
func FuzzParcel(f *testing.F) {
	f.Add("192.0.2.7:4711", "1000", "AAAA", "")
	f.Add("[2001:db8::1%eth0]:1", "1", "", "?")
	f.Add("host:1", "-1", "AA==", "AA==")
	f.Fuzz(func(t *testing.T, remote, patience, first, second string) {
		header := http.Header{remoteField: {remote}, patienceField: {patience}}
		for _, value := range []string{first, second} {
			if value != "" {
				header.Add(certificateField, value)
			}
		}
		beside, err := readParcel(header)
		if err != nil {
			return
		}
		size := 0
		for _, der := range beside.certificates {
			size += len(der)
		}
		if !beside.remote.IsValid() || beside.remote == (netip.AddrPort{}) || beside.patience <= 0 || beside.patience > maxPatience || size > maxCertificate+3*maxCertificates {
			t.Fatalf("%+v", beside)
		}
		again := http.Header{}
		beside.write(again)
		reread, err := readParcel(again)
		if err != nil {
			t.Fatal(err)
		}
		if reread.remote != beside.remote || reread.patience != beside.patience || len(reread.certificates) != len(beside.certificates) {
			t.Fatalf("%+v, then %+v", beside, reread)
		}
	})
}
