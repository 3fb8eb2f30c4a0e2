package fakeca_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/shared/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func csr(t testing.TB, names ...string) *x509.CertificateRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: names[0]}, DNSNames: names}, key)
	require.NoError(t, err)
	request, err := x509.ParseCertificateRequest(der)
	require.NoError(t, err)
	return request
}

func place(t testing.TB, core *fakeca.Core, request *x509.CertificateRequest) fakeca.Order {
	t.Helper()
	o, err := core.Accept(fakeca.Placement{CSR: request, Reference: "ref", CommonName: request.Subject.CommonName, Names: request.DNSNames})
	require.NoError(t, err)
	return o
}

// clock is moved by hand.
type clock struct {
	sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.Lock()
	defer c.Unlock()
	return c.at
}

func (c *clock) Pass(d time.Duration) {
	c.Lock()
	defer c.Unlock()
	c.at = c.at.Add(d)
}

func TestAnOrderTakesItsWay(t *testing.T) {
	clock := newClock()
	core := fakeca.New(fakeca.Config{Name: "X", Now: clock.Now, Approval: true, Delay: time.Hour})
	request := csr(t, "a.example", "b.example")
	o := place(t, core, request)
	assert.Equal(t, fakeca.Waiting, o.State)
	clock.Pass(72 * time.Hour)
	_, ready, err := core.Collect(o.ID, 0)
	require.NoError(t, err)
	assert.False(t, ready, "nobody approved it")
	require.NoError(t, core.Approve(o.ID))
	require.ErrorIs(t, core.Approve(o.ID), fakeca.ErrState)
	clock.Pass(59 * time.Minute)
	o, err = core.Order(o.ID)
	require.NoError(t, err)
	assert.Equal(t, fakeca.Working, o.State)
	clock.Pass(time.Minute)
	chain, ready, err := core.Collect(o.ID, 0)
	require.NoError(t, err)
	require.True(t, ready)
	names := pki.MustParseNames("a.example", "b.example")
	sorted, err := pki.CheckIssued(chain, request.PublicKey, names, clock.Now())
	require.NoError(t, err)
	assert.Len(t, sorted, 2)
	roots := x509.NewCertPool()
	roots.AddCert(core.Root())
	issuers := x509.NewCertPool()
	issuers.AddCert(sorted[1])
	_, err = sorted[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: issuers, CurrentTime: clock.Now(), DNSName: "b.example"})
	require.NoError(t, err)

	again := csr(t, "a.example")
	require.NoError(t, core.Reissue(o.ID, again, again.DNSNames))
	old, _, err := core.Collect(o.ID, 0)
	require.NoError(t, err)
	assert.True(t, pki.SamePublicKey(request.PublicKey, old[0].PublicKey), "the old one, until the new one is there")
	clock.Pass(time.Hour)
	chain, _, err = core.Collect(o.ID, 0)
	require.NoError(t, err)
	assert.True(t, pki.SamePublicKey(again.PublicKey, chain[0].PublicKey))

	o, err = core.Order(o.ID)
	require.NoError(t, err)
	require.Len(t, o.Certificates, 2)
	found, cert, err := core.ByCertificate("0" + strings.ToUpper(pki.SerialHex(chain[0])))
	require.NoError(t, err)
	assert.Equal(t, o.ID, found.ID)
	assert.Equal(t, o.Certificates[1].Number, cert.Number)
	all, err := core.Revoke(o.ID, cert.Number, 1)
	require.NoError(t, err)
	assert.False(t, all)
	all, err = core.Revoke(o.ID, o.Certificates[0].Number, 1)
	require.NoError(t, err)
	assert.True(t, all)
	assert.ErrorIs(t, core.Cancel(o.ID, ""), fakeca.ErrState)
}

func TestWhoOrdersTwiceHasOrderedTwice(t *testing.T) {
	core := fakeca.New(fakeca.Config{})
	first, second := csr(t, "a.example"), csr(t, "b.example")
	place(t, core, first)
	place(t, core, second)
	assert.Empty(t, core.Duplicates())
	twin := place(t, core, first)
	require.Len(t, core.Duplicates(), 1)
	assert.Equal(t, twin.ID, core.Duplicates()[0].ID)
	assert.Len(t, core.Ledger(nil), 3)
	assert.Len(t, core.Ledger(func(o *fakeca.Order) bool { return o.PublicKey == twin.PublicKey }), 2)
}

func TestRejectedAndCancelled(t *testing.T) {
	core := fakeca.New(fakeca.Config{Approval: true})
	one, other := place(t, core, csr(t, "a.example")), place(t, core, csr(t, "b.example"))
	require.NoError(t, core.Reject(one.ID, "not ours"))
	require.NoError(t, core.Cancel(other.ID, ""))
	one, _ = core.Order(one.ID)
	other, _ = core.Order(other.ID)
	assert.Equal(t, fakeca.Rejected, one.State)
	assert.Equal(t, "not ours", one.Note)
	assert.Equal(t, fakeca.Cancelled, other.State)
	assert.Zero(t, core.ApproveAll())
	assert.ErrorIs(t, core.Approve("7"), fakeca.ErrUnknown)
}

func TestEveryBehaviour(t *testing.T) {
	core := fakeca.New(fakeca.Config{})
	request := csr(t, "a.example")
	o := place(t, core, request)
	collect := func(b fakeca.Behaviour) []*x509.Certificate {
		require.NoError(t, core.BehaveFor(o.ID, &b))
		chain, _, err := core.Collect(o.ID, 0)
		require.NoError(t, err)
		return chain
	}
	assert.Empty(t, collect(fakeca.Behaviour{NotReady: 1}))
	chain := collect(fakeca.Behaviour{WrongKey: -1})
	require.Len(t, chain, 3)
	assert.False(t, pki.SamePublicKey(request.PublicKey, chain[0].PublicKey))
	assert.Equal(t, []string{"a.example"}, chain[0].DNSNames)
	assert.Equal(t, core.Root(), collect(fakeca.Behaviour{Reversed: true})[0])
	assert.Len(t, collect(fakeca.Behaviour{LeafAlone: true}), 1)
	chain = collect(fakeca.Behaviour{NoIntermediate: true})
	require.Len(t, chain, 2)
	assert.Equal(t, core.Root(), chain[1])
	chain = collect(fakeca.Behaviour{Stranger: true})
	require.Len(t, chain, 4)
	assert.True(t, pki.SamePublicKey(request.PublicKey, chain[1].PublicKey))
	require.NoError(t, core.BehaveFor(o.ID, nil))
	core.Behave(fakeca.Behaviour{Word: "puzzling"})
	assert.Equal(t, "puzzling", core.Word(o.ID))

	// A count is of the collections, and the true certificate comes after it.
	other := place(t, core, request)
	require.NoError(t, core.BehaveFor(other.ID, &fakeca.Behaviour{NotReady: 1, WrongKey: 1}))
	for _, want := range []string{"nothing", "wrong", "right"} {
		chain, ready, err := core.Collect(other.ID, 0)
		require.NoError(t, err)
		got := "nothing"
		if ready && pki.SamePublicKey(request.PublicKey, chain[0].PublicKey) {
			got = "right"
		} else if ready {
			got = "wrong"
		}
		assert.Equal(t, want, got)
	}

	require.NoError(t, core.Rotate())
	later := place(t, core, csr(t, "b.example"))
	chain, _, err := core.Collect(later.ID, 0)
	require.NoError(t, err)
	assert.Equal(t, core.Issuers()[0], chain[1])
	assert.Len(t, core.Issuers(), 3)
}

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
	post := func(wait time.Duration) (status int, header http.Header, body string, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
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
			before := len(core.Ledger(nil))
			core.Script(fakeca.Place, c.fault)
			wait := time.Minute
			if c.fault.Kind == fakeca.Hang || c.fault.Kind == fakeca.LostSlow {
				wait = 300 * time.Millisecond
			}
			status, _, body, err := post(wait)
			assert.Equal(t, c.broken, err != nil, "%v", err)
			assert.Equal(t, c.status, status)
			assert.Contains(t, body, c.body)
			if c.fault.Kind != fakeca.LostSlow { // it may be acted upon when nobody waits any more
				assert.Len(t, core.Ledger(nil), before+c.accepted)
			}
			status, _, _, err = post(time.Minute)
			require.NoError(t, err)
			assert.Equal(t, 201, status, "each fault is for one request")
		})
	}

	core.Script(fakeca.Any, fakeca.Fault{Kind: fakeca.Refuse, Status: 429, RetryAfter: 90 * time.Second}, fakeca.Fault{Kind: fakeca.Refuse, Status: 503, RetryAfter: time.Minute, AsDate: true}, fakeca.Fault{Kind: fakeca.Refuse, Status: 429})
	_, header, _, err := post(time.Minute)
	require.NoError(t, err)
	assert.Equal(t, "90", header.Get("Retry-After"))
	_, header, _, err = post(time.Minute)
	require.NoError(t, err)
	assert.Equal(t, clock.Now().Add(time.Minute).UTC().Format(http.TimeFormat), header.Get("Retry-After"))
	assert.Equal(t, clock.Now().UTC().Format(http.TimeFormat), header.Get("Date"))
	_, header, _, err = post(time.Minute)
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

func TestControl(t *testing.T) {
	core := fakeca.New(fakeca.Config{Name: "Somebody <b>", Approval: true})
	one, other, third := place(t, core, csr(t, "a.example")), place(t, core, csr(t, "b.example")), place(t, core, csr(t, "c.example"))
	control := core.Control()
	ask := func(method, target, accept string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, target, nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		control.ServeHTTP(w, r)
		return w
	}
	page := ask(http.MethodGet, "/", "").Body.String()
	assert.Contains(t, page, one.ID)
	assert.Contains(t, page, "Somebody &lt;b&gt;")
	assert.Equal(t, http.StatusSeeOther, ask(http.MethodPost, "/approve?id="+url.QueryEscape(one.ID), "").Code)
	assert.Equal(t, http.StatusConflict, ask(http.MethodPost, "/approve?id="+one.ID, "").Code)
	assert.Equal(t, http.StatusSeeOther, ask(http.MethodPost, "/reject?id="+other.ID, "").Code)
	answer := ask(http.MethodPost, "/approve-all", "application/json")
	var list []struct {
		ID    string       `json:"id"`
		State fakeca.State `json:"state"`
	}
	require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &list))
	require.Len(t, list, 3)
	assert.Equal(t, fakeca.Issued, list[0].State)
	assert.Equal(t, fakeca.Rejected, list[1].State)
	assert.Equal(t, third.ID, list[2].ID)
	assert.Equal(t, fakeca.Issued, list[2].State)
	assert.JSONEq(t, answer.Body.String(), ask(http.MethodGet, "/orders", "").Body.String())
}

// In a bubble the fake's clock is the bubble's, and an hour is nothing.
func TestInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core := fakeca.New(fakeca.Config{Delay: time.Hour})
		pipe := fakeca.NewPipe()
		server := &http.Server{Handler: orders(core)}
		served := make(chan error)
		go func() { served <- server.Serve(pipe) }()
		transport := &http.Transport{DialContext: pipe.Dial}
		client := &http.Client{Transport: transport, Timeout: time.Minute}
		core.Script(fakeca.Status, fakeca.Fault{Kind: fakeca.Hang})
		_, err := client.Get("http://fake/")
		require.Error(t, err, "after a minute that nobody waited for")
		answer, err := client.Post("http://fake/", "", bytes.NewReader(csr(t, "a.example").Raw))
		require.NoError(t, err)
		_ = answer.Body.Close()
		require.Len(t, core.Ledger(nil), 1)
		assert.Equal(t, fakeca.Working, core.Ledger(nil)[0].State)
		time.Sleep(time.Hour)
		assert.Equal(t, fakeca.Issued, core.Ledger(nil)[0].State)
		transport.CloseIdleConnections()
		require.NoError(t, server.Close())
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		_, err = pipe.Dial(t.Context(), "", "")
		require.Error(t, err)
	})
}
