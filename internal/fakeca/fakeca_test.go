package fakeca_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
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

// Authorities that are started with the same seed have serial numbers of their own:
// that of a certificate says which one it is of.
func TestSerialNumbersAreAnAuthoritysOwn(t *testing.T) {
	serials := map[string]string{}
	for _, name := range []string{"DigiCert", "Entrust", "GlobalSign", "Sectigo"} {
		first, again := fakeca.New(fakeca.Config{Name: name, Seed: 7}), fakeca.New(fakeca.Config{Name: name, Seed: 7})
		for range 20 {
			serial := first.NewSerial()
			assert.Equal(t, serial, again.NewSerial(), "the same seed, the same numbers")
			assert.Empty(t, serials[serial.String()], "%s has a number of another one", name)
			serials[serial.String()] = name
		}
	}
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

func TestANewOrderIsNotFoundAtOnce(t *testing.T) {
	clock := newClock()
	core := fakeca.New(fakeca.Config{Now: clock.Now, Hidden: time.Minute})
	o := place(t, core, csr(t, "a.example"))
	assert.Empty(t, core.Listed(nil))
	assert.Len(t, core.Ledger(nil), 1, "it is there all the same")
	_, err := core.Order(o.ID)
	require.NoError(t, err)
	clock.Pass(time.Minute)
	assert.Len(t, core.Listed(nil), 1)
	assert.Empty(t, core.Listed(func(*fakeca.Order) bool { return false }))
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
