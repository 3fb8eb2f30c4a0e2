package digicert_test

import (
	"fmt"
	"net/http"
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

// Every state that is documented, as an order that waits and as one that has a
// certificate say it, in several spellings.
func TestEveryStateThatIsDocumented(t *testing.T) {
	states := map[string]connector.State{
		"needs_approval": connector.NeedsPerson, "pending": connector.Pending, "processing": connector.Pending, "reissue_pending": connector.Pending,
		"waiting_pickup": connector.NeedsPerson, "issued": connector.Issued, "expired": connector.Ended, "rejected": connector.Rejected,
		"denied": connector.Rejected, "canceled": connector.Cancelled, "cancelled": connector.Cancelled, "revoked": connector.Revoked, "approved": connector.Issued,
	}
	c, server := fixture(t, connectortest.Options{}, nil)
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	for word, state := range states {
		for _, spelled := range []string{word, strings.ToUpper(word), strings.ReplaceAll(word, "_", " ")} {
			t.Run(spelled, func(t *testing.T) {
				server.Core().Behave(fakeca.Behaviour{Word: spelled})
				status, err := c.Status(t.Context(), r, placed.Handle)
				require.NoError(t, err)
				assert.Equal(t, state, status.State)
				assert.Equal(t, spelled, status.Raw)
				assert.Equal(t, state == connector.NeedsPerson, status.Mend != "")
				listed, err := c.Changes(t.Context(), time.Now().Add(-time.Minute))
				require.NoError(t, err)
				require.Len(t, listed, 1)
				assert.Equal(t, state, listed[0].State, "the list says the same")
				assert.Equal(t, placed.Handle.Order, listed[0].Handle.Order)
			})
		}
	}
	server.Core().Behave(fakeca.Behaviour{Word: "new_word"})
	status, err := c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Equal(t, connector.Unrecognised, status.State)
}

// An order that is approved is issued only with a certificate.
func TestApprovedWithoutACertificateIsPending(t *testing.T) {
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Approval: true}}, nil)
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	server.Core().Behave(fakeca.Behaviour{Word: "APPROVED"})
	status, err := c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Equal(t, connector.Pending, status.State)
}

func TestStatesOfTheSettings(t *testing.T) {
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Delay: time.Hour}}, func(c *digicert.Config) {
		c.States = map[string]connector.State{"on_the_moon": connector.NeedsPerson}
	})
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	server.Core().Behave(fakeca.Behaviour{Word: "On The Moon"})
	status, err := c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Equal(t, connector.NeedsPerson, status.State)
}

// Every code that is documented, in the answer to an order and to a question.
func TestEveryCodeThatIsDocumented(t *testing.T) {
	for _, c := range []struct {
		code   string
		status int
		class  connector.Class
		placed bool // may have been
	}{
		{"not_found", 404, connector.ClassNotFound, false},
		{"not_found|order", 404, connector.ClassNotFound, false},
		{"not_found|product", 404, connector.ClassConfig, false},
		{"not_found|route", 404, connector.ClassConfig, false},
		{"access_denied", 403, connector.ClassCredentials, false},
		{"access_denied|missing_permission", 403, connector.ClassCredentials, false},
		{"access_denied|something_new", 403, connector.ClassCredentials, false},
		{"access_denied|invalid_approver", 403, connector.ClassNeedsPerson, false},
		{"bad_request_format", 400, connector.ClassRefused, false},
		{"csr_invalid_cannot_parse", 400, connector.ClassRefused, false},
		{"cert_validity_exceeds_order_validity", 400, connector.ClassConfig, false},
		{"ambiguous_product", 400, connector.ClassConfig, false},
		{"auth_key_not_setup", 400, connector.ClassConfig, false},
		{"caa_check_failed|www.example.com", 400, connector.ClassNeedsPerson, false},
		{"caa_not_found|www.example.com", 400, connector.ClassNeedsPerson, false},
		{"time_frame_too_long", 400, connector.ClassRefused, false},
		{"webhook_invalid_endpoint", 400, connector.ClassConfig, false},
		{"request_limit_exceeded", 429, connector.ClassBusy, false},
		{"duplicate_alternative_order_id", 400, connector.ClassRetry, true},
		{"never_heard_of", 400, connector.ClassRefused, false},
		{"server_error", 500, connector.ClassRetry, true},
	} {
		for _, spelled := range []string{c.code, strings.ToUpper(c.code)} {
			t.Run(spelled, func(t *testing.T) {
				connect, server := fixture(t, connectortest.Options{}, nil)
				body := fmt.Sprintf(`{"errors":[{"code":%q,"message":"in words, with %s in them"}]}`, spelled, fake.Key)
				server.Core().Script(fakeca.Any, fakeca.Repeat(2, fakeca.Fault{Kind: fakeca.Refuse, Status: c.status, ContentType: "application/json", Body: body})...)
				r, _ := connectortest.Request(t, "www.example.com")
				_, err := connect.Place(t.Context(), r)
				e := connector.Classify(err)
				assert.Equal(t, c.class, e.Class)
				assert.Equal(t, !c.placed, e.NotPlaced)
				assert.Equal(t, spelled, e.Code)
				assert.Equal(t, "in words, with [redacted] in them", e.Detail)
				_, err = connect.Status(t.Context(), r, connector.Handle{Order: "1"})
				assert.Equal(t, c.class, connector.Classify(err).Class)
			})
		}
	}
}

func TestFormsOfFailures(t *testing.T) {
	for name, c := range map[string]struct {
		body, code, detail string
		class              connector.Class
	}{
		"one":            {`{"errors":[{"code":"not_found|order","message":"gone"}]}`, "not_found|order", "gone", connector.ClassNotFound},
		"more":           {`{"errors":[{"code":"odd","message":"a"},{"code":"ambiguous_product","message":"b"}]}`, "ambiguous_product", "a; b", connector.ClassConfig},
		"an object":      {`{"errors":{"code":"csr_invalid_cannot_parse","message":"bad"}}`, "csr_invalid_cannot_parse", "bad", connector.ClassRefused},
		"no code":        {`{"errors":[{"message":"only words"}]}`, "", "only words", connector.ClassRefused},
		"nothing":        {`{"errors":[]}`, "", "the answer is not the authority's: application/json, 13 bytes", connector.ClassAnswer},
		"something else": {`{"error":"x"}`, "", "the answer is not the authority's: application/json, 13 bytes", connector.ClassAnswer},
		"a word":         {`{"errors":"x"}`, "", "the answer is not the authority's: application/json, 14 bytes", connector.ClassAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			connect, server := fixture(t, connectortest.Options{}, nil)
			server.Core().Script(fakeca.Any, fakeca.Fault{Kind: fakeca.Refuse, Status: http.StatusBadRequest, ContentType: "application/json", Body: c.body})
			_, err := connect.Status(t.Context(), nil, connector.Handle{Order: "1"})
			e := connector.Classify(err)
			assert.Equal(t, c.class, e.Class)
			assert.Equal(t, c.code, e.Code)
			assert.Equal(t, c.detail, e.Detail)
		})
	}
	connect, server := fixture(t, connectortest.Options{}, nil)
	server.Set(fake.Modes{ErrorsAsObject: true})
	_, err := connect.Status(t.Context(), nil, connector.Handle{Order: "1"})
	assert.Equal(t, connector.ClassNotFound, connector.Classify(err).Class)
}

func TestSettingsAreChecked(t *testing.T) {
	key := func() (string, error) { return "k", nil }
	for field, c := range map[string]digicert.Config{
		"url":            {URL: "example.com", Key: key, Product: "ssl_basic"},
		"API key":        {URL: digicert.URLAmerica, Product: "ssl_basic"},
		"product":        {URL: digicert.URLAmerica, Key: key},
		"format":         {URL: digicert.URLAmerica, Key: key, Product: "ssl_basic", Format: "default_pem"},
		"validity field": {URL: digicert.URLAmerica, Key: key, Product: "ssl_basic", ValidityField: "validity_years"},
		"validity":       {URL: digicert.URLAmerica, Key: key, Product: "ssl_basic", Validity: time.Hour},
		`"issued"`:       {URL: digicert.URLAmerica, Key: key, Product: "ssl_basic", States: map[string]connector.State{"issued": "good"}},
	} {
		_, err := digicert.New(c)
		assert.ErrorContains(t, err, field)
	}
}
