package sectigo_test

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
	"github.com/certctl/certctl/coordinator/connector/sectigo"
	"github.com/certctl/certctl/internal/fakeca"
	fake "github.com/certctl/certctl/internal/fakeca/sectigo"
)

// Every state that is documented, in several spellings.
func TestEveryStateThatIsDocumented(t *testing.T) {
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Delay: time.Hour}}, nil)
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	for word, state := range map[string]connector.State{
		"Init": connector.Pending, "Not Enrolled": connector.Pending, "Requested": connector.NeedsPerson, "Awaiting Approval": connector.NeedsPerson,
		"Approved": connector.Pending, "SAApproved": connector.Pending, "SA Approved": connector.Pending, "Applied": connector.Pending, "Issued": connector.Issued,
		"Enrolled - Pending Download": connector.Issued, "Downloaded": connector.Issued, "Declined": connector.Rejected, "Rejected": connector.Rejected,
		"Invalid": connector.Rejected, "Replaced": connector.Ended, "Revoked": connector.Revoked, "Expired": connector.Ended, "Unmanaged": connector.Ended,
		"External": connector.Ended, "Something Else": connector.Unrecognised,
	} {
		for _, spelled := range []string{word, strings.ToUpper(word), strings.ReplaceAll(word, " ", "_")} {
			t.Run(spelled, func(t *testing.T) {
				server.Core().Behave(fakeca.Behaviour{Word: spelled})
				status, err := c.Status(t.Context(), r, placed.Handle)
				require.NoError(t, err)
				assert.Equal(t, state, status.State)
				assert.Equal(t, spelled, status.Raw)
				assert.Equal(t, state == connector.NeedsPerson || state == connector.Unrecognised, status.Mend != "")
				assert.Equal(t, placed.Handle.Order, status.Handle.Order)
				assert.Equal(t, r.Reference, status.Reference)
			})
		}
	}
}

// Every code that is documented, in the answer to an order, to a question, and to
// the fetching of a certificate.
func TestEveryCodeThatIsDocumented(t *testing.T) {
	for class, codes := range map[connector.Class][]int{
		connector.ClassRetry:       {-140, -195, -3114, -3115, -1400},
		connector.ClassNotReady:    {-183, -103, -109},
		connector.ClassNeedsPerson: {-107, -737, -1137, -715, -727, -843, -1140, -993},
		connector.ClassRefused:     {-9, -10, -11, -12, -13, -14, -138, -102, -110, -159, -99999},
		connector.ClassConfig:      {-36, -37, -39, -62, -126},
		connector.ClassCredentials: {-16, -970},
		connector.ClassNotFound:    {-124, -169},
	} {
		for _, code := range codes {
			t.Run(fmt.Sprint(code), func(t *testing.T) {
				c, server := fixture(t, connectortest.Options{}, nil)
				body := fmt.Sprintf(`{"code":%d,"description":"in words, with %s in them"}`, code, fake.Password)
				fault := fakeca.Fault{Kind: fakeca.Refuse, Status: 400, ContentType: "application/json", Body: body}
				server.Core().Script(fakeca.Any, fakeca.Repeat(3, fault)...)
				r, _ := connectortest.Request(t, "www.example.com")
				_, err := c.Place(t.Context(), r)
				e := connector.Classify(err)
				assert.Equal(t, class, e.Class)
				assert.Equal(t, fmt.Sprint(code), e.Code)
				assert.Equal(t, "in words, with [redacted] in them", e.Detail)
				assert.Equal(t, class != connector.ClassRetry && class != connector.ClassNotReady, e.NotPlaced, "trouble on the other side may have made an order")
				_, err = c.Status(t.Context(), r, connector.Handle{Order: "1"})
				assert.Equal(t, class, connector.Classify(err).Class)
				_, err = c.Collect(t.Context(), r, connector.Handle{Order: "1"})
				if code == -1400 {
					class = connector.ClassNotReady
				}
				assert.Equal(t, class, connector.Classify(err).Class)
			})
		}
	}
}

func TestFormsOfFailures(t *testing.T) {
	for name, c := range map[string]struct {
		body, code, detail string
		class              connector.Class
	}{
		"a number":       {`{"code":-36,"description":"d"}`, "-36", "d", connector.ClassConfig},
		"a text":         {`{"code":"-36","description":"d"}`, "-36", "d", connector.ClassConfig},
		"with items":     {`{"code":-124,"description":"d","details":"x","items":[1]}`, "-124", "d", connector.ClassNotFound},
		"no code":        {`{"description":"d"}`, "", "the answer is not the authority's: application/json, 19 bytes", connector.ClassAnswer},
		"a word":         {`{"code":"x","description":"d"}`, "", "the answer is not the authority's: application/json, 30 bytes", connector.ClassAnswer},
		"something else": {`[]`, "", "the answer is not the authority's: application/json, 2 bytes", connector.ClassAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			connect, server := fixture(t, connectortest.Options{}, nil)
			server.Core().Script(fakeca.Any, fakeca.Fault{Kind: fakeca.Refuse, Status: 400, ContentType: "application/json", Body: c.body})
			r, _ := connectortest.Request(t, "www.example.com")
			_, err := connect.Status(t.Context(), r, connector.Handle{Order: "1"})
			e := connector.Classify(err)
			assert.Equal(t, c.class, e.Class)
			assert.Equal(t, c.code, e.Code)
			assert.Equal(t, c.detail, e.Detail)
		})
	}
}

func TestSettingsAreChecked(t *testing.T) {
	text := func() (string, error) { return "k", nil }
	sound := sectigo.Config{
		URL: sectigo.URLPassword, Auth: sectigo.AuthPassword, Login: "l", CustomerURI: "c", Password: text, Organization: 1, Profile: 2, Terms: []int{90},
	}
	for field, change := range map[string]func(c *sectigo.Config){
		"url":                func(c *sectigo.Config) { c.URL = "cert-manager" },
		"auth":               func(c *sectigo.Config) { c.Auth = "" },
		"login":              func(c *sectigo.Config) { c.Login = "" },
		"customer URI":       func(c *sectigo.Config) { c.CustomerURI = "" },
		"password":           func(c *sectigo.Config) { c.Password = nil },
		"client certificate": func(c *sectigo.Config) { c.Auth = sectigo.AuthCertificate },
		"client's id":        func(c *sectigo.Config) { c.Auth = sectigo.AuthOAuth },
		"token url": func(c *sectigo.Config) {
			c.Auth, c.ClientID, c.ClientSecret, c.TokenURL = sectigo.AuthOAuth, "i", text, "x"
		},
		"organization":       func(c *sectigo.Config) { c.Organization = 0 },
		"profile":            func(c *sectigo.Config) { c.Profile = -1 },
		"terms":              func(c *sectigo.Config) { c.Terms = nil },
		"at least one":       func(c *sectigo.Config) { c.Terms = []int{90, 0} },
		"external requester": func(c *sectigo.Config) { c.ExternalRequester = "certs@example.com" },
		"comment":            func(c *sectigo.Config) { c.Comment = strings.Repeat("x", 600) },
		"format":             func(c *sectigo.Config) { c.Format = "x509IO" },
		`"Odd"`:              func(c *sectigo.Config) { c.States = map[string]connector.State{"Odd": "odd"} },
	} {
		c := sound
		change(&c)
		_, err := sectigo.New(c)
		assert.ErrorContains(t, err, field)
	}
	sound.Auth, sound.Certificate = sectigo.AuthCertificate, func() (*tls.Certificate, error) { return nil, nil }
	c, err := sectigo.New(sound)
	require.NoError(t, err)
	c.Close()
}
