package entrust_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/entrust"
	"github.com/certctl/certctl/internal/fakeca"
	fake "github.com/certctl/certctl/internal/fakeca/entrust"
)

// sent is the body of the order that the connector of a config places, which answer
// answers.
func sent(t *testing.T, r *connector.Request, answer string, change func(*entrust.Config)) (body map[string]any, status *connector.Status, err error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/cagw/v1/certificate-authorities/p~a%2Fb/enrollments", r.URL.EscapedPath())
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&body))
		assert.Equal(t, "the-client", r.Header.Get("ca-client-id"))
		_, _ = w.Write([]byte(answer))
	}))
	defer server.Close()
	c, _ := fixture(t, connectortest.Options{}, func(c *entrust.Config, _ *fake.Server) {
		c.URL, c.CA, c.Profile, c.ClientID = server.URL+"/cagw", "p~a/b", "tls", "the-client"
		if change != nil {
			change(c)
		}
	})
	defer c.Close()
	status, err = c.Place(t.Context(), r)
	return body, status, err
}

func TestWhatAnOrderSays(t *testing.T) {
	r, _ := connectortest.Request(t, "www.example.com", "192.0.2.1")
	body, _, err := sent(t, r, `{"enrollment":{"id":"e"}}`, nil)
	require.NoError(t, err)
	assert.Equal(t, base64.StdEncoding.EncodeToString(r.CSRDER), body["csr"], "no armour")
	delete(body, "csr")
	names := []any{map[string]any{"type": "dNSName", "value": "www.example.com"}, map[string]any{"type": "iPAddress", "value": "192.0.2.1"}}
	assert.Equal(t, map[string]any{
		"profileId": "tls", "requiredFormat": map[string]any{"format": "X509"}, "subjectAltNames": names,
		"optionalCertificateRequestDetails": map[string]any{"subjectDn": "CN=www.example.com"},
	}, body)
	r.Validity, r.Renews = 90*time.Minute, &connector.Handle{Order: "0AFF"}
	body, _, err = sent(t, r, `{"enrollment":{"id":"e"}}`, func(c *entrust.Config) {
		c.Subject, c.Variables, c.LinkRenewals = "O=Example,C=GB", map[string]string{"b": "2", "a": "1"}, true
		c.Properties = map[string]string{"tracking.trackingInfo": "certctl {reference}"}
	})
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"subjectDn": "CN=www.example.com,O=Example,C=GB", "validityPeriod": "PT90M"}, body["optionalCertificateRequestDetails"])
	assert.Equal(t, []any{map[string]any{"type": "a", "value": "1"}, map[string]any{"type": "b", "value": "2"}}, body["subjectVariables"])
	assert.Equal(t, map[string]any{"tracking.trackingInfo": "certctl " + r.Reference, "RenewalSerialNumber": "0AFF"}, body["properties"])
	assert.Equal(t, true, body["renewal"])
	r.Validity = 0
	body, _, err = sent(t, r, `{"enrollment":{"id":"e"}}`, func(c *entrust.Config) { c.Validity = 90 * 24 * time.Hour })
	require.NoError(t, err)
	assert.Equal(t, "PT2160H", body["optionalCertificateRequestDetails"].(map[string]any)["validityPeriod"])
}

// Every word that is documented for an enrollment, in several spellings, without a
// certificate beside it; and with one it is issued, whatever the word.
func TestAnEnrollmentIsDecidedByItsCertificate(t *testing.T) {
	r, _ := connectortest.Request(t, "www.example.com")
	for word, state := range map[string]connector.State{
		"": connector.Pending, "PENDING": connector.Pending, "ACCEPTED": connector.Pending, "ISSUED": connector.Pending, "REJECTED": connector.Rejected,
		"ODD": connector.Unrecognised, "WITH SOMEBODY": connector.NeedsPerson,
	} {
		for _, spelled := range []string{word, strings.ToLower(word)} {
			for _, id := range []string{"e-1", ""} {
				_, status, err := sent(t, r, `{"message":"m","enrollment":{"id":"`+id+`","status":"`+spelled+`","body":"","chain":[]}}`, func(c *entrust.Config) {
					c.EnrollmentStates = map[string]connector.State{"with somebody": connector.NeedsPerson}
				})
				require.NoError(t, err)
				assert.Equal(t, state, status.State, word)
				assert.Equal(t, spelled, status.Raw)
				assert.Empty(t, status.Handle.Order)
				assert.False(t, status.Handle.IsZero())
				assert.Equal(t, "m", status.Detail)
			}
		}
		c, server := fixture(t, connectortest.Options{}, nil)
		server.Set(fake.Modes{Word: word})
		status, err := c.Place(t.Context(), r)
		require.NoError(t, err)
		assert.Equal(t, connector.Issued, status.State, word)
		assert.Empty(t, status.Mend)
		assert.NotNil(t, status.Bundle)
	}
}

// Every word that is documented for a certificate, in several spellings.
func TestEveryStateOfACertificate(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, func(c *entrust.Config, _ *fake.Server) {
		c.States = map[string]connector.State{"good": connector.Issued}
	})
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	for word, state := range map[string]connector.State{
		"normal": connector.Issued, "held": connector.Revoked, "suspended": connector.Revoked, "revoked": connector.Revoked, "expired": connector.Ended,
		"good": connector.Issued, "odd": connector.Unrecognised,
	} {
		for _, spelled := range []string{word, strings.ToUpper(word), strings.ToUpper(word[:1]) + word[1:]} {
			server.Core().Behave(fakeca.Behaviour{Word: spelled})
			status, err := c.Status(t.Context(), r, placed.Handle)
			require.NoError(t, err)
			assert.Equal(t, state, status.State, spelled)
			assert.Equal(t, spelled, status.Raw)
			assert.Equal(t, state == connector.Issued, status.Bundle != nil)
			_, err = c.Collect(t.Context(), r, placed.Handle)
			assert.Equal(t, state == connector.Revoked, err != nil, "%s: %v", spelled, err)
		}
	}
}

// Every failure that is documented, or known by a word, and nothing of its details.
func TestEveryFailureThatIsDocumented(t *testing.T) {
	for _, c := range []struct {
		status     int
		code, text string
		class      connector.Class
		notPlaced  bool
		mend       bool
	}{
		{400, "cagw-4018", "The CSR is bad", connector.ClassRefused, true, true},
		{400, "CAGW-4018", "The CSR is bad", connector.ClassRefused, true, true},
		{400, "cagw-1", "Bad request", connector.ClassRefused, true, false},
		{401, "cagw-1", "Who are you", connector.ClassCredentials, true, true},
		{403, "cagw-1", "Not you", connector.ClassCredentials, true, true},
		{403, "cagw-1", "The cap of Purchased certificates", connector.ClassNeedsPerson, true, true},
		{400, "cagw-1", "no inventory left", connector.ClassNeedsPerson, true, true},
		{422, "cagw-1", "over the quota", connector.ClassNeedsPerson, true, true},
		{404, "cagw-1", "No such CA", connector.ClassNotFound, true, false},
		{429, "TooManyRequests", "quota", connector.ClassBusy, true, false},
		{429, "cagw-1", "quota", connector.ClassBusy, true, false},
		{500, "cagw-1", "quota", connector.ClassRetry, false, false},
		{501, "cagw-1", "not here", connector.ClassRefused, false, false},
		{503, "cagw-1", "later", connector.ClassBusy, false, false},
	} {
		t.Run(http.StatusText(c.status)+c.text, func(t *testing.T) {
			connect, server := fixture(t, connectortest.Options{}, nil)
			server.Core().Script(fakeca.Any, fakeca.Repeat(2, fakeca.Fault{
				Kind: fakeca.Refuse, Status: c.status, ContentType: "application/json",
				Body: `{"type":"ErrorResponse","error":{"code":"` + c.code + `","message":"` + c.text + `","details":["` + fake.Secret + `"],"additionalProperties":{"a":"` + fake.Secret + `"}}}`,
			})...)
			r, _ := connectortest.Request(t, "www.example.com")
			_, err := connect.Place(t.Context(), r)
			e := connector.Classify(err)
			assert.Equal(t, c.class, e.Class)
			assert.Equal(t, c.notPlaced, e.NotPlaced)
			assert.Equal(t, c.code, e.Code)
			assert.Equal(t, c.text, e.Detail)
			assert.Equal(t, c.mend, e.Mend != "")
			assert.NotContains(t, err.Error(), fake.Secret)
			_, err = connect.Status(t.Context(), r, connector.Handle{Order: "0A"})
			assert.Equal(t, c.class, connector.Classify(err).Class)
		})
	}
}

func TestAnswersToOrdersThatAreNone(t *testing.T) {
	r, _ := connectortest.Request(t, "www.example.com")
	for body, c := range map[string]struct {
		class     connector.Class
		notPlaced bool
	}{
		`{}`:                                   {connector.ClassAnswer, false},
		`null`:                                 {connector.ClassAnswer, false},
		`[]`:                                   {connector.ClassAnswer, false},
		`{"enrollment":null}`:                  {connector.ClassAnswer, false},
		`{"enrollment":{"body":"AAAA"}}`:       {connector.ClassAnswer, false},
		`{"error":{"code":"c"}}`:               {connector.ClassRefused, true},
		`{"error":{"message":"no quota"}}`:     {connector.ClassNeedsPerson, true},
		`{"error":{"code":"TooManyRequests"}}`: {connector.ClassBusy, false},
	} {
		_, _, err := sent(t, r, body, nil)
		e := connector.Classify(err)
		require.Error(t, err, body)
		assert.Equal(t, c.class, e.Class, body)
		assert.Equal(t, c.notPlaced, e.NotPlaced, body)
	}
}

// An enrollment without a certificate is found when there is one, and told of to a
// person when there is none for long.
func TestAnEnrollmentThatIsNotIssuedAtOnce(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Approval: true, Now: clock}}, func(c *entrust.Config, _ *fake.Server) { c.Now = clock })
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	assert.Equal(t, connector.Pending, placed.State)
	status, err := c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Equal(t, connector.Pending, status.State)
	_, err = c.Collect(t.Context(), r, placed.Handle)
	assert.Equal(t, connector.ClassNotReady, connector.Classify(err).Class)
	now = now.Add(5 * time.Hour)
	status, err = c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Equal(t, connector.NeedsPerson, status.State)
	assert.NotEmpty(t, status.Mend)
	assert.Equal(t, 1, server.Core().ApproveAll())
	_, err = c.Collect(t.Context(), r, placed.Handle)
	require.NoError(t, err, "the handle has no serial number yet")
	status, err = c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Equal(t, connector.Issued, status.State)
	assert.Equal(t, server.Core().Ledger(nil)[0].ID, status.Handle.Order)
	assert.Len(t, server.Core().Ledger(nil), 1)
	_, err = c.Status(t.Context(), r, connector.Handle{})
	assert.Equal(t, connector.ClassNotFound, connector.Classify(err).Class)
	server.Set(fake.Modes{Rejects: true})
	rejected, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	assert.Equal(t, connector.Rejected, rejected.State, "inside of status 200")
	assert.Equal(t, "Not by this policy", rejected.Detail)
}

// The gateway waits for the CA behind it longer than we do.
func TestASlowGateway(t *testing.T) {
	c, server := fixture(t, connectortest.Options{Timeout: 300 * time.Millisecond}, nil)
	server.Set(fake.Modes{Slow: time.Hour})
	r, _ := connectortest.Request(t, "www.example.com")
	_, err := c.Place(t.Context(), r)
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassRetry, e.Class)
	assert.False(t, e.NotPlaced)
}

// Pages of fifty are read to the last one, and an event that is not shown at once is,
// within Visible.
func TestASearchReadsEveryPage(t *testing.T) {
	now := time.Now()
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Hidden: 15 * time.Minute, Now: func() time.Time { return now }}}, nil)
	other, _ := connectortest.Request(t, "www.example.com")
	for range 120 {
		serial := server.Core().NewSerial()
		_, err := server.Core().Accept(fakeca.Placement{ID: strings.ToUpper(serial.Text(16)), Serial: serial, PublicKey: other.CSR.PublicKey, Names: []string{"www.example.com"}})
		require.NoError(t, err)
	}
	server.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost})
	r, _ := connectortest.Request(t, "www.example.com")
	_, err := c.Place(t.Context(), r)
	require.Error(t, err)
	found, err := c.Search(t.Context(), r, 0)
	require.NoError(t, err)
	assert.Empty(t, found)
	now = now.Add(c.Visible())
	before := server.Core().Count(fakeca.Search)
	found, err = c.Search(t.Context(), r, 0)
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.Equal(t, server.Core().Ledger(nil)[120].ID, found[0].Handle.Order)
	assert.Equal(t, 3, server.Core().Count(fakeca.Search)-before)
	may, _ := fixture(t, connectortest.Options{}, func(c *entrust.Config, _ *fake.Server) { c.MayWait = true })
	assert.Negative(t, may.Visible())
}

func TestActionsThatAreNotDone(t *testing.T) {
	for word, c := range map[string]struct {
		class connector.Class
		done  bool
	}{"ACCEPTED": {"", false}, "COMPLETED": {"", true}, "REJECTED": {connector.ClassRefused, false}, "odd": {connector.ClassAnswer, false}} {
		connect, server := fixture(t, connectortest.Options{}, nil)
		r, _ := connectortest.Request(t, "www.example.com")
		placed, err := connect.Place(t.Context(), r)
		require.NoError(t, err)
		server.Set(fake.Modes{ActionStatus: word})
		done, err := connect.Revoke(t.Context(), &connector.Revocation{Handle: placed.Handle})
		assert.Equal(t, c.done, done, word)
		if c.class == "" {
			require.NoError(t, err, word)
		} else {
			assert.Equal(t, c.class, connector.Classify(err).Class, word)
		}
	}
	for reason, sent := range map[int]int{0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 0, 9: 9, 10: 0} {
		connect, server := fixture(t, connectortest.Options{}, nil)
		r, _ := connectortest.Request(t, "www.example.com")
		placed, err := connect.Place(t.Context(), r)
		require.NoError(t, err)
		done, err := connect.Revoke(t.Context(), &connector.Revocation{Handle: placed.Handle, Reason: reason})
		require.NoError(t, err)
		assert.True(t, done)
		assert.Equal(t, sent, server.Core().Ledger(nil)[0].Newest().Reason)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	sound := entrust.Config{URL: "https://gateway.example/cagw", CA: "c", Profile: "p", Certificate: func() (*tls.Certificate, error) { return nil, nil }}
	for field, change := range map[string]func(c *entrust.Config){
		"url":                func(c *entrust.Config) { c.URL = "gateway" },
		"the CA":             func(c *entrust.Config) { c.CA = "" },
		"the profile":        func(c *entrust.Config) { c.Profile = "" },
		"client certificate": func(c *entrust.Config) { c.Certificate = nil },
		"validity":           func(c *entrust.Config) { c.Validity = time.Second },
		"client id":          func(c *entrust.Config) { c.ClientID = "a\nb" },
		`"Odd"`:              func(c *entrust.Config) { c.States = map[string]connector.State{"Odd": "odd"} },
		`"Even"`:             func(c *entrust.Config) { c.EnrollmentStates = map[string]connector.State{"Even": "odd"} },
	} {
		c := sound
		change(&c)
		_, err := entrust.New(c)
		assert.ErrorContains(t, err, field)
	}
	connect, server := fixture(t, connectortest.Options{}, func(c *entrust.Config, _ *fake.Server) {
		c.Certificate = func() (*tls.Certificate, error) { return nil, errors.New("no such file") }
	})
	r, _ := connectortest.Request(t, "www.example.com")
	_, err := connect.Place(t.Context(), r)
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassCredentials, e.Class)
	assert.True(t, e.NotPlaced)
	assert.Zero(t, server.Core().Count(fakeca.Place))
	warned, _ := fixture(t, connectortest.Options{}, func(c *entrust.Config, _ *fake.Server) { c.Profile, c.MayWait = "odd", true })
	account, err := warned.Test(t.Context())
	require.NoError(t, err)
	assert.Len(t, account.Warnings, 2)
	hasty, _ := fixture(t, connectortest.Options{}, func(c *entrust.Config, _ *fake.Server) { c.Visible = 90 * time.Second })
	account, err = hasty.Test(t.Context())
	require.NoError(t, err)
	require.Len(t, account.Warnings, 1)
	assert.Contains(t, account.Warnings[0], "visible_after is 1m30s")
	patient, _ := fixture(t, connectortest.Options{}, nil)
	account, err = patient.Test(t.Context())
	require.NoError(t, err)
	assert.Empty(t, account.Warnings)
}

// FuzzAnswers has every question answered by anything at all.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		`{"enrollment":{"id":"e","status":"ACCEPTED","serialNumber":"0A","body":"MAA=","chain":["x"]}}`, `{"enrollment":{"id":"","body":""},"message":{"message":"m"}}`,
		`{"certificate":{"status":"normal","certificateData":"MAA="},"chain":[]}`, `{"events":[{"serialNumber":"0A","certificate":"MAA="}],"morePages":true,"nextPageIndex":1}`,
		`{"events":[],"morePages":false}`, `{"ca":{"id":"c","certificate":"x","chain":[]}}`, `{"action":{"status":"REJECTED"}}`, `{"error":{"code":"cagw-4018","message":"m"}}`,
		``, `null`, `[]`, `<html>`,
	} {
		f.Add(200, []byte(seed))
		f.Add(400, []byte(seed))
	}
	var status int
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}))
	f.Cleanup(server.Close)
	c, _ := fixture(f, connectortest.Options{}, func(c *entrust.Config, _ *fake.Server) { c.URL = server.URL })
	r, _ := connectortest.Request(f, "www.example.com")
	f.Fuzz(func(t *testing.T, code int, data []byte) {
		if code < 200 || code > 599 || len(data) > 1<<16 {
			return
		}
		status, body = code, data
		if code == http.StatusNoContent || code == http.StatusNotModified {
			body = nil
		}
		sound := func(s *connector.Status, err error) {
			connectortest.SoundStatus(t, s, err)
		}
		sound(c.Place(t.Context(), r))
		sound(c.Status(t.Context(), r, connector.Handle{Order: "0A"}))
		sound(c.Status(t.Context(), r, connector.Handle{Request: "e"}))
		list, err := c.Search(t.Context(), r, 0)
		connectortest.Sound(t, err)
		for i := range list {
			sound(&list[i], nil)
		}
		_, err = c.Collect(t.Context(), r, connector.Handle{Order: "0A"})
		connectortest.Sound(t, err)
		_, err = c.Issuers(t.Context(), r)
		connectortest.Sound(t, err)
		_, err = c.Revoke(t.Context(), &connector.Revocation{Request: r, Handle: connector.Handle{Order: "0A"}})
		connectortest.Sound(t, err)
		_, err = c.Test(t.Context())
		connectortest.Sound(t, err)
	})
}
