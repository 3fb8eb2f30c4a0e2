package globalsign_test

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/globalsign"
	"github.com/certctl/certctl/internal/fakeca"
	fake "github.com/certctl/certctl/internal/fakeca/globalsign"
)

// Every state that is documented, in several spellings.
func TestEveryStateThatIsDocumented(t *testing.T) {
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Delay: time.Hour}}, func(c *globalsign.Config, _ *fake.Server) {
		c.States = map[string]connector.State{"on hold": connector.NeedsPerson}
	})
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	status, err := c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Equal(t, connector.Pending, status.State, "status 202")
	assert.Equal(t, "202", status.Raw)
	for word, state := range map[string]connector.State{
		"ISSUED":  connector.Pending, // without a certificate
		"REVOKED": connector.Revoked, "on hold": connector.NeedsPerson, "SOMETHING ELSE": connector.Unrecognised,
	} {
		for _, spelled := range []string{word, strings.ToLower(word), strings.ReplaceAll(word, " ", "_")} {
			server.Core().Behave(fakeca.Behaviour{Word: spelled})
			status, err := c.Status(t.Context(), r, placed.Handle)
			require.NoError(t, err)
			assert.Equal(t, state, status.State, spelled)
			assert.Equal(t, spelled, status.Raw)
			assert.Equal(t, placed.Handle, status.Handle)
			assert.Equal(t, state == connector.NeedsPerson || state == connector.Unrecognised, status.Mend != "", spelled)
			_, err = c.Collect(t.Context(), r, placed.Handle)
			class := connector.ClassNotReady
			if state == connector.Revoked {
				class = connector.ClassRefused
			}
			assert.Equal(t, class, connector.Classify(err).Class, spelled)
		}
	}
	server.Core().Behave(fakeca.Behaviour{})
	server.Set(fake.Modes{IssuedIsDone: true})
	_, err = c.Collect(t.Context(), r, placed.Handle)
	assert.Equal(t, connector.ClassNotReady, connector.Classify(err).Class, "issued, and there is nothing")
}

// Every failure that is documented, or known by a word, in the answer to an order and
// to a question.
func TestEveryFailureThatIsDocumented(t *testing.T) {
	for _, c := range []struct {
		status int
		text   string
		class  connector.Class
		mend   bool
		placed bool // may have been
	}{
		{400, "The request is not valid", connector.ClassRefused, true, false},
		{401, "no quota for this token", connector.ClassCredentials, true, false},
		{403, "not allowed", connector.ClassCredentials, true, false},
		{403, "The quota is exhausted", connector.ClassNeedsPerson, true, false},
		{404, "no such certificate", connector.ClassNotFound, false, false},
		{404, "no such claim", connector.ClassNotFound, false, false},
		{409, "a conflict", connector.ClassRefused, false, true},
		{415, "no JSON", connector.ClassRefused, false, false},
		{422, "it does not fit", connector.ClassRefused, true, false},
		{422, "no verified CLAIM for the domain", connector.ClassNeedsPerson, true, false},
		{422, "the domain is not vetted", connector.ClassNeedsPerson, true, false},
		{422, "Issuance Quota exceeded", connector.ClassNeedsPerson, true, false},
		{422, "the contract has ended", connector.ClassNeedsPerson, true, false}, // of the settings
		{429, "slow down, quota", connector.ClassBusy, false, false},
		{500, "quota", connector.ClassRetry, false, true},
		{503, "quota", connector.ClassBusy, false, true},
	} {
		t.Run(fmt.Sprint(c.status, " ", c.text), func(t *testing.T) {
			connect, server := fixture(t, connectortest.Options{}, func(c *globalsign.Config, _ *fake.Server) { c.NeedsPerson = []string{"Contract"} })
			first, _ := connectortest.Request(t, "www.example.com")
			placed, err := connect.Place(t.Context(), first)
			require.NoError(t, err)
			fault := fakeca.Fault{Kind: fakeca.Refuse, Status: c.status, ContentType: "application/problem+json", Body: `{"description":"` + c.text + `","errors":{"b":"2","a":"` + fake.APISecret + `"}}`}
			server.Core().Script(fakeca.Place, fakeca.Repeat(2, fault)...)
			r, _ := connectortest.Request(t, "www.example.com")
			_, err = connect.Place(t.Context(), r)
			e := connector.Classify(err)
			assert.Equal(t, c.class, e.Class)
			assert.Equal(t, !c.placed, e.NotPlaced)
			assert.Equal(t, c.mend, e.Mend != "")
			assert.Equal(t, c.text+"; a: [redacted]; b: 2", e.Detail)
			server.Core().Forget()
			server.Core().Script(fakeca.Status, fakeca.Repeat(2, fault)...)
			_, err = connect.Status(t.Context(), r, placed.Handle)
			assert.Equal(t, c.class, connector.Classify(err).Class)
		})
	}
}

func TestFormsOfFailures(t *testing.T) {
	for name, c := range map[string]struct {
		kind, body, code, detail string
		class                    connector.Class
	}{
		"whole":          {"application/problem+json", `{"description":"d","id":"42","errors":{"f":"t"}}`, "42", "d; f: t", connector.ClassRefused},
		"plain JSON":     {"application/json", `{"description":"d"}`, "", "d", connector.ClassRefused},
		"no description": {"application/problem+json", `{"id":"42"}`, "", "the answer is not the authority's: application/problem+json, 11 bytes", connector.ClassAnswer},
		"a page":         {"text/html", `{"description":"d"}`, "", "the answer is not the authority's: text/html, 19 bytes", connector.ClassAnswer},
		"half":           {"application/problem+json", `{"descr`, "", "the answer is not the authority's: application/problem+json, 7 bytes", connector.ClassAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			connect, server := fixture(t, connectortest.Options{}, nil)
			server.Core().Script(fakeca.Status, fakeca.Fault{Kind: fakeca.Refuse, Status: 422, ContentType: c.kind, Body: c.body})
			r, _ := connectortest.Request(t, "www.example.com")
			_, err := connect.Status(t.Context(), r, connector.Handle{Order: "0A"})
			e := connector.Classify(err)
			assert.Equal(t, c.class, e.Class)
			assert.Equal(t, c.code, e.Code)
			assert.Equal(t, c.detail, e.Detail)
		})
	}
}

func TestSettingsAreChecked(t *testing.T) {
	sound := globalsign.Config{URL: globalsign.URL, APIKey: fixed("k"), APISecret: fixed("s"), Certificate: func() (*tls.Certificate, error) { return nil, nil }}
	for field, change := range map[string]func(c *globalsign.Config){
		"url":                func(c *globalsign.Config) { c.URL = "atlas" },
		"API key":            func(c *globalsign.Config) { c.APIKey = nil },
		"API secret":         func(c *globalsign.Config) { c.APISecret = nil },
		"client certificate": func(c *globalsign.Config) { c.Certificate = nil },
		"validity":           func(c *globalsign.Config) { c.Validity = time.Minute },
		"token life":         func(c *globalsign.Config) { c.TokenLife = time.Second },
		"common_name":        func(c *globalsign.Config) { c.Subject = map[string]string{"common_name": "x"} },
		`"Odd"`:              func(c *globalsign.Config) { c.States = map[string]connector.State{"Odd": "odd"} },
	} {
		c := sound
		change(&c)
		_, err := globalsign.New(c)
		assert.ErrorContains(t, err, field)
	}
	c, err := globalsign.New(sound)
	require.NoError(t, err)
	c.Close()
}
