package digicert_test

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
	"github.com/certctl/certctl/coordinator/connector/digicert"
	"github.com/certctl/certctl/internal/fakeca"
	fake "github.com/certctl/certctl/internal/fakeca/digicert"
)

// Without alternative_order_id a lost order is found by name and key.
func TestContractWithoutReferences(t *testing.T) {
	s := suite(func(c *digicert.Config) { c.NoReference = true }, fake.Modes{})
	s.Formats = nil
	s.Run(t)
}

// An account that drops the reference, and one that says 404 where none is found.
func TestASearchDoesNotRelyOnTheReference(t *testing.T) {
	for name, modes := range map[string]fake.Modes{"dropped": {NoReference: true}, "404": {NoneIsNotFound: true, NoReference: true}} {
		t.Run(name, func(t *testing.T) {
			c, server := fixture(t, connectortest.Options{}, nil)
			server.Set(modes)
			r, _ := connectortest.Request(t, "www.example.com")
			found, err := c.Search(t.Context(), r, 0)
			require.NoError(t, err)
			assert.Empty(t, found)
			server.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost})
			_, err = c.Place(t.Context(), r)
			require.Error(t, err)
			found, err = c.Search(t.Context(), r, 0)
			require.NoError(t, err)
			require.Len(t, found, 1)
			assert.Equal(t, server.Core().Ledger(nil)[0].ID, found[0].Handle.Order)
		})
	}
}

// An order for the same key that was placed long before, or under another
// reference, is not the lost one.
func TestASearchByKeyTakesNoOlderOrder(t *testing.T) {
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Now: clock}}, func(c *digicert.Config) { c.NoReference = true })
	r, _ := connectortest.Request(t, "www.example.com")
	_, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	r.CommittedAt = now.Add(72 * time.Hour)
	found, err := c.Search(t.Context(), r, 0)
	require.NoError(t, err)
	assert.Empty(t, found)
	now = r.CommittedAt
	_, err = c.Place(t.Context(), r)
	require.NoError(t, err)
	found, err = c.Search(t.Context(), r, 0)
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.Equal(t, server.Core().Ledger(nil)[1].ID, found[0].Handle.Order)

	other, server := fixture(t, connectortest.Options{}, nil)
	_, err = other.Place(t.Context(), r)
	require.NoError(t, err)
	again := *r
	again.Reference = "00112233445566778899aabbccddeeff"
	again.CommittedAt = time.Now()
	found, err = other.Search(t.Context(), &again, 0)
	require.NoError(t, err)
	assert.Empty(t, found)
	assert.Len(t, server.Core().Ledger(nil), 1)
}

// Two orders with one reference: both are found, for somebody to choose.
func TestEveryOrderOfAReferenceIsFound(t *testing.T) {
	c, _ := fixture(t, connectortest.Options{}, nil)
	r, _ := connectortest.Request(t, "www.example.com")
	for range 2 {
		_, err := c.Place(t.Context(), r)
		require.NoError(t, err)
	}
	found, err := c.Search(t.Context(), r, 0)
	require.NoError(t, err)
	assert.Len(t, found, 2)
	assert.Equal(t, r.Reference, found[1].Reference)
}

// A clone that keeps references unique says that the order is there: it is looked
// for, not refused.
func TestAReferenceThatIsTaken(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, nil)
	server.Set(fake.Modes{UniqueReference: true})
	r, _ := connectortest.Request(t, "www.example.com")
	server.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost})
	_, err := c.Place(t.Context(), r)
	require.Error(t, err)
	_, err = c.Place(t.Context(), r)
	assert.False(t, connector.Classify(err).NotPlaced)
	found, err := c.Search(t.Context(), r, 0)
	require.NoError(t, err)
	assert.Len(t, found, 1)
	assert.Len(t, server.Core().Ledger(nil), 1)
}

// A new order may be found after a while alone, and within Visible at the latest.
func TestANewOrderThatIsNotFoundAtOnce(t *testing.T) {
	for _, modes := range []fake.Modes{{}, {NoReference: true}} {
		now := time.Now()
		c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Hidden: 2 * time.Minute, Now: func() time.Time { return now }}}, nil)
		server.Set(modes)
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
}

func TestAListOfManyPages(t *testing.T) {
	c, _ := fixture(t, connectortest.Options{}, func(c *digicert.Config) { c.NoReference = true })
	first, _ := connectortest.Request(t, "www.example.com")
	_, err := c.Place(t.Context(), first)
	require.NoError(t, err)
	for range 120 {
		r, _ := connectortest.Request(t, "www.example.com")
		_, err := c.Place(t.Context(), r)
		require.NoError(t, err)
	}
	found, err := c.Search(t.Context(), first, 0)
	require.NoError(t, err)
	assert.Len(t, found, 1, "on the second page")
}

func TestTheThreeShapesOfAnAnswer(t *testing.T) {
	r, _ := connectortest.Request(t, "www.example.com")
	at := func(config fakeca.Config, modes fake.Modes) *connector.Status {
		c, server := fixture(t, connectortest.Options{Fake: config}, nil)
		server.Set(modes)
		status, err := c.Place(t.Context(), r)
		require.NoError(t, err)
		assert.NotEmpty(t, status.Handle.Order)
		assert.NotEmpty(t, status.Handle.Request)
		assert.False(t, status.PlacedAt.IsZero())
		return status
	}
	status := at(fakeca.Config{}, fake.Modes{})
	assert.Equal(t, connector.Issued, status.State)
	require.NotNil(t, status.Bundle)
	assert.Len(t, status.Bundle.Certificates, 3)
	status = at(fakeca.Config{Delay: time.Hour}, fake.Modes{})
	assert.Equal(t, connector.Pending, status.State)
	assert.NotEmpty(t, status.Handle.Certificate)
	assert.Nil(t, status.Bundle)
	status = at(fakeca.Config{Approval: true}, fake.Modes{})
	assert.Equal(t, connector.NeedsPerson, status.State)
	assert.Empty(t, status.Handle.Certificate)
	status = at(fakeca.Config{}, fake.Modes{Unproven: true})
	assert.Equal(t, connector.NeedsPerson, status.State)
	assert.Contains(t, status.Detail, "www.example.com")
	assert.NotEmpty(t, status.Mend)
}

func TestAnswersToOrdersThatAreNone(t *testing.T) {
	for _, body := range []string{`{}`, `null`, `[]`, `{"id":0}`, `{"id":"x"}`, `{"id":-1}`, `{"id":1.5}`, ``} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, body)
		}))
		c, err := digicert.New(digicert.Config{URL: server.URL, Key: func() (string, error) { return "k", nil }, Product: "ssl_basic"})
		require.NoError(t, err)
		r, _ := connectortest.Request(t, "www.example.com")
		_, err = c.Place(t.Context(), r)
		e := connector.Classify(err)
		assert.Equal(t, connector.ClassAnswer, e.Class, body)
		assert.False(t, e.NotPlaced, body)
		c.Close()
		server.Close()
	}
}

// sent is the body of the first order that the connector of a config places.
func sent(t *testing.T, r *connector.Request, change func(*digicert.Config)) map[string]any {
	t.Helper()
	got := map[string]any{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "the-key", r.Header.Get("X-DC-DEVKEY"))
		assert.Equal(t, "/order/certificate/ssl_basic", r.URL.Path)
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&got))
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"id":"12"}`)
	}))
	defer server.Close()
	config := digicert.Config{URL: server.URL, Key: func() (string, error) { return "the-key", nil }, Product: "ssl_basic"}
	if change != nil {
		change(&config)
	}
	c, err := digicert.New(config)
	require.NoError(t, err)
	defer c.Close()
	status, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	assert.Equal(t, "12", status.Handle.Order, "an identity may be a string")
	return got
}

func TestWhatAnOrderSays(t *testing.T) {
	r, _ := connectortest.Request(t, "www.example.com", "192.0.2.1")
	body := sent(t, r, nil)
	cert := body["certificate"].(map[string]any)
	assert.Equal(t, "www.example.com", cert["common_name"])
	assert.Equal(t, []any{"www.example.com", "192.0.2.1"}, cert["dns_names"])
	assert.Equal(t, "sha256", cert["signature_hash"])
	assert.Contains(t, cert["csr"], "-----BEGIN CERTIFICATE REQUEST-----")
	assert.Equal(t, r.Reference, body["alternative_order_id"])
	assert.Equal(t, map[string]any{"days": 90.0}, body["order_validity"])
	for _, absent := range []string{"organization", "skip_approval", "payment_method", "dcv_method", "renewal_of_order_id"} {
		assert.NotContains(t, body, absent)
	}
	r.Validity, r.Renews = 47*24*time.Hour-time.Minute, &connector.Handle{Order: "77"}
	body = sent(t, r, func(c *digicert.Config) {
		c.Organization, c.SkipApproval, c.PaymentMethod, c.DCVMethod, c.LinkRenewals = 5, true, "balance", "dns-txt-token", true
		c.NoReference, c.ValidityField, c.CACertificate, c.SignatureHash = true, digicert.ValidityOfBoth, "CA1", "sha384"
	})
	assert.Equal(t, map[string]any{"id": 5.0}, body["organization"])
	assert.Equal(t, true, body["skip_approval"])
	assert.Equal(t, "balance", body["payment_method"])
	assert.Equal(t, "dns-txt-token", body["dcv_method"])
	assert.Equal(t, 77.0, body["renewal_of_order_id"])
	assert.NotContains(t, body, "alternative_order_id")
	assert.Equal(t, map[string]any{"days": 47.0}, body["order_validity"])
	cert = body["certificate"].(map[string]any)
	assert.Equal(t, map[string]any{"days": 47.0}, cert["cert_validity"])
	assert.Equal(t, "CA1", cert["ca_cert_id"])
	assert.Equal(t, "sha384", cert["signature_hash"])
	body = sent(t, r, func(c *digicert.Config) { c.ValidityField = digicert.ValidityOfCertificate })
	assert.NotContains(t, body, "order_validity")
}

func TestAKeyThatCannotBeUsedSendsNothing(t *testing.T) {
	keys := map[string]func() (string, error){
		"missing": func() (string, error) { return "", errors.New("no such file") },
		"empty":   func() (string, error) { return "", nil },
		"lines":   func() (string, error) { return "a\nb", nil },
	}
	for name, key := range keys {
		c, server := fixture(t, connectortest.Options{}, func(c *digicert.Config) { c.Key = key })
		r, _ := connectortest.Request(t, "www.example.com")
		_, err := c.Place(t.Context(), r)
		e := connector.Classify(err)
		assert.Equal(t, connector.ClassCredentials, e.Class, name)
		assert.True(t, e.NotPlaced)
		assert.NotContains(t, err.Error(), "a\nb")
		assert.Zero(t, server.Core().Count(fakeca.Place))
	}
	// A key that changes needs no new connector.
	key := fake.Key
	c, server := fixture(t, connectortest.Options{}, func(c *digicert.Config) { c.Key = func() (string, error) { return key, nil } })
	server.SetKey("the-next")
	_, err := c.Test(t.Context())
	assert.Equal(t, connector.ClassCredentials, connector.Classify(err).Class)
	key = "the-next"
	_, err = c.Test(t.Context())
	require.NoError(t, err)
}

func TestChanges(t *testing.T) {
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Approval: true}}, nil)
	changed, err := c.Changes(t.Context(), time.Now())
	require.NoError(t, err)
	assert.Empty(t, changed, "{} is none")
	var handles []connector.Handle
	for range 3 {
		r, _ := connectortest.Request(t, "www.example.com")
		status, err := c.Place(t.Context(), r)
		require.NoError(t, err)
		handles = append(handles, status.Handle)
	}
	require.NoError(t, server.Core().Approve(handles[1].Order))
	changed, err = c.Changes(t.Context(), time.Now().Add(-time.Hour))
	require.NoError(t, err)
	require.Len(t, changed, 3)
	assert.Equal(t, connector.NeedsPerson, changed[0].State)
	assert.Equal(t, connector.Issued, changed[1].State)
	assert.Equal(t, handles[1].Order, changed[1].Handle.Order)
	assert.NotEmpty(t, changed[1].Handle.Certificate)
	for _, since := range []time.Duration{0, 6 * 24 * time.Hour, 7*24*time.Hour - 2*time.Minute} {
		_, err = c.Changes(t.Context(), time.Now().Add(-since))
		require.NoError(t, err, since)
	}
	_, err = c.Changes(t.Context(), time.Now().Add(-8*24*time.Hour))
	assert.Equal(t, connector.ClassRefused, connector.Classify(err).Class)
}

// A list that is longer than what was asked for is not followed to its end.
func TestAListWithoutAnEnd(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/order/certificate" {
			asked++
			_, _ = io.WriteString(w, `{"id":1,"status":"issued"}`)
			return
		}
		_, _ = io.WriteString(w, `{"orders":[{"id":1}`+strings.Repeat(`,{"id":1}`, 5000)+`]}`)
	}))
	defer server.Close()
	c, err := digicert.New(digicert.Config{URL: server.URL, Key: func() (string, error) { return "k", nil }, Product: "ssl_basic", NoReference: true})
	require.NoError(t, err)
	defer c.Close()
	r, _ := connectortest.Request(t, "www.example.com")
	_, err = c.Search(t.Context(), r, 0)
	assert.Equal(t, connector.ClassNeedsPerson, connector.Classify(err).Class)
	assert.LessOrEqual(t, asked, 500)
}
