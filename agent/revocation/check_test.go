package revocation

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/testca/statusca"
	"github.com/certctl/certctl/shared/pki"
)

func noList(c *x509.Certificate)      { c.CRLDistributionPoints = nil }
func noResponder(c *x509.Certificate) { c.OCSPServer = nil }

// What a responder says, and whether it is believed.
func TestResponses(t *testing.T) {
	ca := statusca.New(t)
	leaf, lost := ca.Leaf(nil), ca.Leaf(nil)
	ca.Revoke(lost, pki.ReasonKeyCompromise)
	for mode, want := range map[statusca.Mode]string{
		statusca.True: "", statusca.Delegated: "", statusca.SelfIncluded: "", statusca.Undated: "",
		statusca.Expired:          "out of date",
		statusca.Future:           "has not come",
		statusca.WrongSigner:      "not signed by the issuer",
		statusca.OtherIssuer:      "another issuer",
		statusca.OtherSerial:      "cannot be read",
		statusca.DelegatedNoUsage: "not for OCSP",
		statusca.DelegatedExpired: "not valid now",
		statusca.DelegatedAlien:   "has not certified",
	} {
		t.Run(string(mode), func(t *testing.T) {
			good, err := readOCSP(ca.Response(leaf, mode), leaf, ca.Cert, time.Now())
			bad, errBad := readOCSP(ca.Response(lost, mode), lost, ca.Cert, time.Now())
			if want != "" {
				require.ErrorContains(t, err, want)
				require.ErrorContains(t, errBad, want)
				return
			}
			require.NoError(t, err)
			require.NoError(t, errBad)
			assert.Equal(t, ResultGood, good.result)
			assert.Equal(t, ResultRevoked, bad.result)
			assert.Equal(t, pki.ReasonKeyCompromise, bad.reason)
			assert.WithinDuration(t, time.Now(), bad.revokedAt, 10*time.Minute)
		})
	}
	unknown, err := readOCSP(ca.Response(lost, statusca.Unknown), lost, ca.Cert, time.Now())
	require.NoError(t, err)
	assert.Equal(t, ResultUnknown, unknown.result, "unknown is not revoked")
	_, err = readOCSP(ca.Response(leaf, statusca.Undated), leaf, ca.Cert, time.Now().Add(48*time.Hour))
	require.ErrorContains(t, err, "does not say how long")
	_, err = readOCSP(ca.Response(leaf, statusca.True), leaf, ca.Cert, time.Now().Add(-72*time.Hour))
	require.ErrorContains(t, err, "has not come", "the trusted time counts")
}

// What a list says, and whether it is believed.
func TestLists(t *testing.T) {
	ca := statusca.New(t)
	leaf, lost := ca.Leaf(nil), ca.Leaf(nil)
	ca.Revoke(lost, 5)
	for mode, want := range map[statusca.Mode]string{
		statusca.True: "", statusca.OwnPoint: "",
		statusca.Expired:     "out of date",
		statusca.Future:      "has not come",
		statusca.WrongSigner: "not signed by the issuer",
		statusca.OtherIssuer: "another issuer",
		statusca.OtherPoint:  "one part of several",
		statusca.Indirect:    "indirect",
		statusca.CAOnly:      "not about certificates of hosts",
		statusca.SomeReasons: "some reasons",
		statusca.Delta:       "delta",
		statusca.Critical:    "critical extension 1.2.3.4",
	} {
		t.Run(string(mode), func(t *testing.T) {
			about := func(cert *x509.Certificate) (answer, error) {
				l, err := readCRL(ca.List(mode), ca.Cert, time.Now())
				if err != nil {
					return answer{}, err
				}
				return l.about(cert, ca.Cert)
			}
			good, err := about(leaf)
			bad, errBad := about(lost)
			if want != "" {
				require.ErrorContains(t, err, want)
				require.ErrorContains(t, errBad, want)
				return
			}
			require.NoError(t, err)
			require.NoError(t, errBad)
			assert.Equal(t, ResultGood, good.result)
			assert.Equal(t, ResultRevoked, bad.result)
			assert.Equal(t, 5, bad.reason)
			assert.WithinDuration(t, time.Now(), bad.revokedAt, 10*time.Minute)
		})
	}
	l, err := readCRL(ca.List(statusca.True), ca.Cert, time.Now())
	require.NoError(t, err)
	_, err = l.about(leaf, statusca.New(t).Cert)
	require.ErrorContains(t, err, "another issuer")
}

func TestCertificatesThatAreNotChecked(t *testing.T) {
	ca := statusca.New(t)
	c := newTestChecker(t, private, time.Now)
	for want, change := range map[string]func(*x509.Certificate){
		"less than a week": func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(7*24*time.Hour - time.Second) },
		"noRevAvail": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: oidNoRevAvail, Value: asn1.NullBytes}}
		},
		"names no responder": func(c *x509.Certificate) {
			c.OCSPServer, c.CRLDistributionPoints = []string{"ldap://ca.example.com/"}, []string{"ldap://ca.example.com/", "file:///etc/passwd"}
		},
		"has expired": func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().AddDate(0, -2, 0), time.Now().Add(-time.Hour)
		},
	} {
		found := c.check(t.Context(), []*x509.Certificate{ca.Leaf(change), ca.Cert})
		assert.Equal(t, ResultSkipped, found.result)
		assert.Contains(t, found.detail, want)
	}
	found := c.check(t.Context(), []*x509.Certificate{ca.Leaf(nil)})
	assert.Contains(t, found.detail, "issuer is not there")
	assert.Zero(t, ca.Asked("GET ocsp")+ca.Asked("POST ocsp")+ca.Asked("GET crl"), "nobody was asked")
	long := ca.Leaf(func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(7 * 24 * time.Hour) })
	assert.Equal(t, ResultGood, c.check(t.Context(), []*x509.Certificate{long, ca.Cert}).result)
}

// The responder comes first; a list is asked when it is of no use.
func TestWhoIsAsked(t *testing.T) {
	ca := statusca.New(t)
	leaf, lost := ca.Leaf(nil), ca.Leaf(nil)
	ca.Revoke(lost, 4)
	for _, test := range []struct {
		name            string
		responder, list statusca.Mode
		good, bad       Result
		detail          string
	}{
		{"both work", statusca.True, statusca.True, ResultGood, ResultRevoked, ""},
		{"garbage", statusca.Garbage, statusca.True, ResultGood, ResultRevoked, ""},
		{"error", statusca.Error, statusca.True, ResultGood, ResultRevoked, ""},
		{"too much", statusca.Huge, statusca.True, ResultGood, ResultRevoked, ""},
		{"try later", statusca.TryLater, statusca.True, ResultGood, ResultRevoked, ""},
		{"not known", statusca.Unknown, statusca.True, ResultGood, ResultRevoked, ""},
		{"not known, no list", statusca.Unknown, statusca.Error, ResultUnknown, ResultUnknown, "does not know"},
		{"no list needed", statusca.True, statusca.Error, ResultGood, ResultRevoked, ""},
		{"nobody", statusca.Error, statusca.Error, ResultFailed, ResultFailed, "503"},
		{"a list that is too long", statusca.Error, statusca.Huge, ResultFailed, ResultFailed, "more than 10485760 octets"},
		{"another scheme", statusca.OtherScheme, statusca.OtherScheme, ResultFailed, ResultFailed, "leads from http to ftp"},
		{"an endless way", statusca.Endless, statusca.Endless, ResultFailed, ResultFailed, "more than 3 redirects"},
		{"a metadata service", statusca.Elsewhere, statusca.Elsewhere, ResultFailed, ResultFailed, "not one that a certificate may send"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ca.Answer(test.responder, test.list)
			for cert, want := range map[*x509.Certificate]Result{leaf: test.good, lost: test.bad} {
				c := newTestChecker(t, private, time.Now)
				found := c.check(t.Context(), []*x509.Certificate{cert, ca.Cert})
				assert.Equal(t, want, found.result, found.detail)
				assert.Contains(t, found.detail, test.detail)
				assert.NotEmpty(t, found.source)
			}
		})
	}
	assert.Zero(t, ca.Asked("POST ocsp"), "short questions are part of the URL")
}

// A certificate of a public authority cannot send this host to itself or into its
// network, and no certificate to its neighbours or to a metadata service.
func TestPlacesThatAreForbidden(t *testing.T) {
	ca := statusca.New(t)
	chain := []*x509.Certificate{ca.Leaf(nil), ca.Cert}
	found := newTestChecker(t, public, time.Now).check(t.Context(), chain)
	assert.Equal(t, ResultFailed, found.result)
	assert.Contains(t, found.detail, errForbidden.Error())
	assert.Zero(t, ca.Asked("GET ocsp")+ca.Asked("GET crl"))

	for address, who := range map[string]string{
		"192.0.2.1:80": "all", "[2001:db8::1]:443": "all", "10.1.2.3:80": "own", "127.0.0.1:80": "own", "[::1]:80": "own", "[fd00::1]:80": "own",
		"[::ffff:127.0.0.1]:80": "own", "169.254.169.254:80": "none", "[fe80::1%1]:80": "none", "[::ffff:169.254.1.1]:80": "none", "0.0.0.0:80": "none",
		"224.0.0.1:80": "none", "[ff02::1]:80": "none", "@:80": "none",
	} {
		own := context.WithValue(t.Context(), privateKey{}, true)
		assert.Equal(t, who == "all", permitted(t.Context(), "tcp", address, nil) == nil, address)
		assert.Equal(t, who != "none", permitted(own, "tcp", address, nil) == nil, address)
	}
	assert.False(t, trustedByTheSystem(time.Now)(chain))
}

// Where the administrator has set a proxy, it is the proxy that is connected to,
// wherever it is.
func TestAProxyIsUsed(t *testing.T) {
	ca := statusca.New(t)
	var through atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		through.Add(1)
		assert.Equal(t, "status.example.com", r.Host)
		w.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(proxy.Close)
	at, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	c := newTestChecker(t, public, time.Now)
	c.fetch.proxy = func(*http.Request) (*url.URL, error) { return at, nil }
	leaf := ca.Leaf(func(c *x509.Certificate) {
		noList(c)
		c.OCSPServer = []string{"http://status.example.com/ocsp"}
	})
	found := c.check(t.Context(), []*x509.Certificate{leaf, ca.Cert})
	assert.Contains(t, found.detail, "502")
	assert.EqualValues(t, 1, through.Load())
}

// Ten thousand certificates of one list fetch it once, whatever comes of it.
func TestAListIsFetchedOnce(t *testing.T) {
	ca := statusca.New(t)
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	pass := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	ca.Now = clock
	c := newTestChecker(t, private, clock)
	leaf := ca.Leaf(noResponder)
	all := func(want Result) {
		t.Helper()
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				assert.Equal(t, want, c.check(t.Context(), []*x509.Certificate{leaf, ca.Cert}).result)
			})
		}
		group.Wait()
	}
	all(ResultGood)
	assert.Equal(t, 1, ca.Asked("GET crl"))
	pass(listFreshness - time.Minute)
	all(ResultGood)
	assert.Equal(t, 1, ca.Asked("GET crl"))
	pass(2 * time.Minute)
	all(ResultGood)
	assert.Equal(t, 2, ca.Asked("GET crl"), "asked whether there is a newer one")
	ca.Revoke(leaf, 1)
	pass(listFreshness + time.Minute)
	all(ResultRevoked)
	assert.Equal(t, 3, ca.Asked("GET crl"))
	ca.Answer(statusca.True, statusca.Error)
	pass(listFreshness + time.Minute)
	all(ResultFailed)
	assert.Equal(t, 4, ca.Asked("GET crl"), "a failure is everybody's")
	pass(failureLife + time.Second)
	ca.Answer(statusca.True, statusca.True)
	all(ResultRevoked)
	assert.Equal(t, 5, ca.Asked("GET crl"))

	for i := range maxLists + 5 {
		c.lists.place(strings.Repeat("x", i+1))
	}
	assert.Len(t, c.lists.known, maxLists)
}

// A responder that hangs is left alone for a while, and the end of the agent does
// not wait for it.
func TestAResponderThatHangs(t *testing.T) {
	ca := statusca.New(t)
	ca.Answer(statusca.Hang, statusca.True)
	c := newTestChecker(t, private, time.Now)
	chain := []*x509.Certificate{ca.Leaf(noList), ca.Cert}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan finding)
	go func() { done <- c.check(ctx, chain) }()
	require.Eventually(t, func() bool { return ca.Asked("GET ocsp") == 1 }, 60*time.Second, time.Millisecond)
	cancel()
	assert.Equal(t, ResultFailed, (<-done).result)
	assert.Empty(t, c.down, "a stop says nothing about the responder")

	c.silence(ca.URL+"/ocsp", context.DeadlineExceeded)
	found := c.check(t.Context(), chain)
	assert.Contains(t, found.detail, "deadline")
	assert.Equal(t, 1, ca.Asked("GET ocsp"))
}

func TestQuestions(t *testing.T) {
	r, err := ocspRequest(t.Context(), "http://ocsp.example.com/", []byte{0xff, 0xef, 0xbe})
	require.NoError(t, err)
	assert.Equal(t, "http://ocsp.example.com/%2F%2B%2B%2B", r.URL.String())
	r, err = ocspRequest(t.Context(), "http://ocsp.example.com", make([]byte, 300))
	require.NoError(t, err)
	assert.Equal(t, http.MethodPost, r.Method)
	assert.Equal(t, "application/ocsp-request", r.Header.Get("Content-Type"))
	r, err = ocspRequest(t.Context(), "http://ocsp.example.com/?ca=1", []byte{1})
	require.NoError(t, err)
	assert.Equal(t, http.MethodPost, r.Method, "a query has no room for a question")
}

func FuzzReadOCSP(f *testing.F) {
	ca := statusca.New(f)
	leaf := ca.Leaf(nil)
	for _, mode := range []statusca.Mode{statusca.True, statusca.Delegated, statusca.Unknown, statusca.OtherIssuer} {
		f.Add(ca.Response(leaf, mode))
	}
	ca.Revoke(leaf, 1)
	f.Add(ca.Response(leaf, statusca.True))
	f.Add([]byte("<html>"))
	// What was not revoked when the corpus was made is never read as such.
	other := ca.Leaf(nil)
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := readOCSP(body, other, ca.Cert, time.Now())
		if err == nil {
			t.Fatalf("believed without a signature of the issuer: %v", a.result)
		}
	})
}

func FuzzReadCRL(f *testing.F) {
	ca := statusca.New(f)
	ca.Revoke(ca.Leaf(nil), 1)
	for _, mode := range []statusca.Mode{statusca.True, statusca.OwnPoint, statusca.Indirect, statusca.Delta} {
		f.Add(ca.List(mode))
	}
	alien := statusca.New(f).Cert
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := readCRL(body, alien, time.Now()); err == nil {
			t.Fatal("believed without a signature of the issuer")
		}
		if l, err := readCRL(body, ca.Cert, time.Now()); err == nil {
			_, _ = l.about(alien, ca.Cert)
		}
	})
}

func FuzzReadIssuingPoint(f *testing.F) {
	f.Add([]byte{0x30, 0x03, 0x84, 0x01, 0xff})
	f.Add([]byte{0x30, 0x0e, 0xa0, 0x0c, 0xa0, 0x0a, 0x86, 0x08, 'h', 't', 't', 'p', ':', '/', '/', 'a'})
	f.Fuzz(func(t *testing.T, der []byte) {
		points, err := readIssuingPoint(der)
		if err != nil && points != nil {
			t.Fatal("both an error and places")
		}
	})
}
