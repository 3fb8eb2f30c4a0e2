package sectigo_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/sectigo"
	"github.com/certctl/certctl/internal/fakeca"
	fake "github.com/certctl/certctl/internal/fakeca/sectigo"
	"github.com/certctl/certctl/shared/pki"
)

// sent is the body of the order that the connector of a config places.
func sent(t *testing.T, r *connector.Request, change func(*sectigo.Config)) map[string]any {
	t.Helper()
	got := map[string]any{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/api/ssl/v1/enroll", r.URL.Path)
		assert.Equal(t, []string{"the-login", "the-password", "the-customer"}, []string{r.Header.Get("login"), r.Header.Get("password"), r.Header.Get("customerUri")})
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&got))
		_, _ = io.WriteString(w, `{"sslId":"55","renewId":"gu03"}`)
	}))
	defer server.Close()
	config := sectigo.Config{
		URL: server.URL + "/api", Auth: sectigo.AuthPassword, Login: "the-login", CustomerURI: "the-customer", Password: func() (string, error) { return "the-password", nil },
		Organization: 7, Profile: 8, Terms: []int{90, 365, 30},
	}
	if change != nil {
		change(&config)
	}
	c, err := sectigo.New(config)
	require.NoError(t, err)
	defer c.Close()
	status, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	assert.Equal(t, "55", status.Handle.Order)
	assert.Equal(t, connector.Pending, status.State)
	return got
}

func TestWhatAnOrderSays(t *testing.T) {
	r, _ := connectortest.Request(t, "www.example.com", "example.com", "192.0.2.1")
	body := sent(t, r, nil)
	assert.Contains(t, body["csr"], "-----BEGIN CERTIFICATE REQUEST-----")
	delete(body, "csr")
	assert.Equal(t, map[string]any{
		"orgId": 7.0, "certType": 8.0, "term": 90.0, "subjAltNames": "example.com,www.example.com,192.0.2.1", "comments": "certctl:" + r.Reference,
	}, body)
	body = sent(t, r, func(c *sectigo.Config) {
		c.Comment, c.ExternalRequester, c.CustomFields = "for the shop", "a+{reference}@example.com", []sectigo.CustomField{{Name: "n", Value: "v"}}
		c.DCVMode, c.DCVEmail = "EMAIL", "hostmaster@example.com"
	})
	assert.Equal(t, "for the shop certctl:"+r.Reference, body["comments"])
	assert.Equal(t, "a+"+r.Reference+"@example.com", body["externalRequester"])
	assert.Equal(t, []any{map[string]any{"name": "n", "value": "v"}}, body["customFields"])
	assert.Equal(t, "EMAIL", body["dcvMode"])
	assert.Equal(t, "hostmaster@example.com", body["dcvEmail"])
	body = sent(t, r, func(c *sectigo.Config) { c.NoComments = true })
	assert.NotContains(t, body, "comments")
	for validity, term := range map[time.Duration]float64{0: 90, 24 * time.Hour: 30, 30 * 24 * time.Hour: 30, 89 * 24 * time.Hour: 30, 90 * 24 * time.Hour: 90, 1000 * 24 * time.Hour: 365} {
		r.Validity = validity
		assert.Equal(t, term, sent(t, r, nil)["term"], validity)
	}
}

func TestAnswersToOrdersThatAreNone(t *testing.T) {
	for _, body := range []string{`{}`, `null`, `[]`, `{"sslId":0}`, `{"sslId":"x"}`, `{"sslId":-1}`, ``} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
		c, _ := fixture(t, connectortest.Options{}, func(c *sectigo.Config, _ *fake.Server) { c.URL = server.URL })
		r, _ := connectortest.Request(t, "www.example.com")
		_, err := c.Place(t.Context(), r)
		e := connector.Classify(err)
		assert.Equal(t, connector.ClassAnswer, e.Class, body)
		assert.False(t, e.NotPlaced, body)
		c.Close()
		server.Close()
	}
}

// The external requester may have been dropped by the account: the comments tell.
func TestASearchDoesNotRelyOnTheExternalRequester(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, func(c *sectigo.Config, _ *fake.Server) { c.ExternalRequester = "a+{reference}@example.com" })
	server.Set(fake.Modes{NoExternalRequester: true})
	server.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost})
	r, _ := connectortest.Request(t, "www.example.com")
	_, err := c.Place(t.Context(), r)
	require.Error(t, err)
	found, err := c.Search(t.Context(), r, 0)
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.Equal(t, r.Reference, found[0].Reference)
	assert.Positive(t, c.Visible())
}

// A new order may be listed after a while alone, and within Visible at the latest.
func TestANewOrderThatIsNotListedAtOnce(t *testing.T) {
	now := time.Now()
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Hidden: 2 * time.Minute, Now: func() time.Time { return now }}}, nil)
	server.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost})
	r, _ := connectortest.Request(t, "www.example.com")
	_, err := c.Place(t.Context(), r)
	require.Error(t, err)
	found, err := c.Search(t.Context(), r, 0)
	require.NoError(t, err)
	assert.Empty(t, found)
	now = now.Add(c.Visible())
	found, err = c.Search(t.Context(), r, 0)
	require.NoError(t, err)
	assert.Len(t, found, 1)
}

func TestWithoutAnyReferenceASearchProvesNothing(t *testing.T) {
	c, _ := fixture(t, connectortest.Options{}, func(c *sectigo.Config, _ *fake.Server) { c.NoComments = true })
	assert.Negative(t, c.Visible())
	account, err := c.Test(t.Context())
	require.NoError(t, err)
	assert.Len(t, account.Warnings, 1)
}

// More orders of one name than a page, and names that are addresses alone.
func TestASearchReadsEveryPage(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, nil)
	r, _ := connectortest.Request(t, "www.example.com")
	_, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	csr, _ := connectortest.Request(t, "www.example.com")
	for range 230 {
		_, err := server.Core().Accept(fakeca.Placement{PublicKey: csr.CSR.PublicKey, CommonName: "www.example.com", Names: []string{"www.example.com"}, Person: true})
		require.NoError(t, err)
	}
	found, err := c.Search(t.Context(), r, 0)
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.Equal(t, server.Core().Ledger(nil)[0].ID, found[0].Handle.Order)
	assert.Equal(t, 2, server.Core().Count(fakeca.Search))
	for range 200 {
		_, err := server.Core().Accept(fakeca.Placement{PublicKey: csr.CSR.PublicKey, CommonName: "www.example.com", Person: true})
		require.NoError(t, err)
	}
	_, err = c.Search(t.Context(), r, 0)
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassNeedsPerson, e.Class, "too many to look through is not none")
	assert.NotEmpty(t, e.Mend)

	address, _ := connectortest.Request(t, "192.0.2.7")
	_, err = c.Place(t.Context(), address)
	require.NoError(t, err)
	found, err = c.Search(t.Context(), address, 0)
	require.NoError(t, err)
	assert.Len(t, found, 1)
}

// A replacement keeps the number, and until it is there the certificate of before
// comes: it is for another key, and is never taken.
func TestAReplacementFirstHandsOutTheOldCertificate(t *testing.T) {
	for _, modes := range []fake.Modes{{}, {SaysReplaced: true}} {
		now := time.Now()
		c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Delay: time.Hour, Now: func() time.Time { return now }}}, nil)
		server.Set(modes)
		r, _ := connectortest.Request(t, "www.example.com")
		placed, err := c.Place(t.Context(), r)
		require.NoError(t, err)
		now = now.Add(time.Hour)
		again, _ := connectortest.Request(t, "www.example.com")
		replaced, err := c.Reissue(t.Context(), again, placed.Handle)
		require.NoError(t, err)
		assert.Equal(t, placed.Handle.Order, replaced.Handle.Order)
		bundle, err := c.Collect(t.Context(), again, replaced.Handle)
		require.NoError(t, err)
		_, err = connectortest.Check(t, c, again, bundle)
		require.ErrorIs(t, err, pki.ErrKeyMismatch)
		now = now.Add(time.Hour)
		status, err := c.Status(t.Context(), again, replaced.Handle)
		require.NoError(t, err)
		assert.Equal(t, connector.Issued, status.State, status.Raw)
		assert.Equal(t, replaced.Handle, status.Handle)
		bundle, err = c.Collect(t.Context(), again, status.Handle)
		require.NoError(t, err)
		_, err = connectortest.Check(t, c, again, bundle)
		require.NoError(t, err)
		if modes.SaysReplaced {
			status, err = c.Status(t.Context(), r, placed.Handle)
			require.NoError(t, err)
			assert.Equal(t, connector.Ended, status.State, "for who asks about the certificate of before")
		}
	}
}

// The CA behind the manager is not available, and then it is.
func TestTheBackendIsDownForAWhile(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, nil)
	server.Set(fake.Modes{BackendDown: 1})
	r, _ := connectortest.Request(t, "www.example.com")
	_, err := c.Place(t.Context(), r)
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassRetry, e.Class)
	assert.False(t, e.NotPlaced)
	found, err := c.Search(t.Context(), r, 0)
	require.NoError(t, err)
	assert.Empty(t, found)
	_, err = c.Place(t.Context(), r)
	require.NoError(t, err)
}

func TestOrdersThatThePolicyRefuses(t *testing.T) {
	for class, modes := range map[connector.Class]fake.Modes{connector.ClassNeedsPerson: {UnknownDomains: true}, connector.ClassConfig: {Mandatory: "Cost centre"}} {
		c, server := fixture(t, connectortest.Options{}, nil)
		server.Set(modes)
		r, _ := connectortest.Request(t, "www.example.com")
		_, err := c.Place(t.Context(), r)
		e := connector.Classify(err)
		assert.Equal(t, class, e.Class)
		assert.True(t, e.NotPlaced)
		assert.NotEmpty(t, e.Mend)
	}
}

// A token is asked for once, used until it is about to end, and replaced when the
// authority has forgotten it.
func TestTokens(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	clientSecret := fake.ClientSecret
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Now: clock}}, func(c *sectigo.Config, _ *fake.Server) {
		c.TokenURL = c.URL[:len(c.URL)-len(fake.Base)] + fake.TokenPath
		c.Auth, c.ClientID, c.Now = sectigo.AuthOAuth, fake.ClientID, clock
		c.ClientSecret = func() (string, error) { return clientSecret, nil }
	})
	logins := func() int { return server.Core().Count(fakeca.Login) }
	ask := func() error { _, err := c.Test(t.Context()); return err }
	for range 3 {
		require.NoError(t, ask())
	}
	assert.Equal(t, 1, logins())
	now = now.Add(4*time.Minute + 29*time.Second)
	require.NoError(t, ask())
	assert.Equal(t, 1, logins())
	now = now.Add(time.Second)
	require.NoError(t, ask())
	assert.Equal(t, 2, logins())
	server.ForgetTokens()
	r, _ := connectortest.Request(t, "www.example.com")
	_, err := c.Place(t.Context(), r)
	require.NoError(t, err, "status 401 made no order, and a new token does")
	assert.Equal(t, 3, logins())
	assert.Len(t, server.Core().Ledger(nil), 1)
	server.ForgetTokens()
	clientSecret = "wrong-secret-of-ours"
	err = ask()
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassCredentials, e.Class)
	assert.Equal(t, "invalid_client", e.Code)
	assert.NotContains(t, err.Error(), clientSecret)
	assert.Contains(t, err.Error(), "[redacted]")
	clientSecret = fake.ClientSecret
	require.NoError(t, ask())
	// No token, no order: that the authorization server is down leaves nothing open.
	server.ForgetTokens()
	now = now.Add(time.Hour)
	server.Core().Script(fakeca.Login, fakeca.Fault{Kind: fakeca.Refuse, Status: 500})
	_, err = c.Place(t.Context(), r)
	e = connector.Classify(err)
	assert.Equal(t, connector.ClassRetry, e.Class)
	assert.True(t, e.NotPlaced)
}

func TestAPasswordThatCannotBeUsedSendsNothing(t *testing.T) {
	for name, read := range map[string]func() (string, error){
		"missing": func() (string, error) { return "", errors.New("no such file") },
		"empty":   func() (string, error) { return "", nil },
		"lines":   func() (string, error) { return "a\nb", nil },
	} {
		c, server := fixture(t, connectortest.Options{}, func(c *sectigo.Config, _ *fake.Server) { c.Password = read })
		r, _ := connectortest.Request(t, "www.example.com")
		_, err := c.Place(t.Context(), r)
		e := connector.Classify(err)
		assert.Equal(t, connector.ClassCredentials, e.Class, name)
		assert.True(t, e.NotPlaced)
		assert.Zero(t, server.Core().Count(fakeca.Place))
	}
}

// A list that is longer than what was asked for is not followed to its end.
func TestAListWithoutAnEnd(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"id":1}`+strings.Repeat(`,{"id":2}`, 5000)+`]`)
	}))
	defer server.Close()
	c, _ := fixture(t, connectortest.Options{}, func(c *sectigo.Config, _ *fake.Server) { c.URL = server.URL })
	r, _ := connectortest.Request(t, "www.example.com")
	_, err := c.Search(t.Context(), r, 0)
	assert.Equal(t, connector.ClassNeedsPerson, connector.Classify(err).Class)
}
