package globalsign_test

import (
	"encoding/json"
	"encoding/pem"
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
	"github.com/certctl/certctl/coordinator/connector/globalsign"
	"github.com/certctl/certctl/internal/fakeca"
	fake "github.com/certctl/certctl/internal/fakeca/globalsign"
	"github.com/certctl/certctl/shared/pki"
)

const plainPolicy = `{"validity":{"secondsmin":3600,"secondsmax":8640000,"not_before_negative_skew":120},"subject_dn":{"common_name":{"presence":"OPTIONAL"}},
"san":{"dns_names":{"static":false,"maxcount":3},"ip_addresses":{"static":false,"maxcount":3}},"public_key":{"key_format":"PKCS10"},"public_key_signature":"FORBIDDEN"}`

// sent is the body of the order that the connector places under a policy.
func sent(t *testing.T, policy string, r *connector.Request, at time.Time, change func(*globalsign.Config)) (map[string]any, error) {
	t.Helper()
	var got map[string]any
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/login":
			_, _ = w.Write([]byte(`{"access_token":"t"}`))
		case "/v2/validationpolicy":
			_, _ = w.Write([]byte(policy))
		default:
			assert.Equal(t, "/v2/certificates", r.URL.Path)
			assert.Equal(t, "application/json;charset=utf-8", r.Header.Get("Content-Type"))
			assert.Equal(t, "Bearer t", r.Header.Get("Authorization"))
			assert.NoError(t, json.NewDecoder(r.Body).Decode(&got))
			w.Header().Set("Location", "/v2/certificates/0AFF/")
			w.WriteHeader(http.StatusCreated)
		}
	}))
	defer server.Close()
	c, _ := fixture(t, connectortest.Options{}, func(c *globalsign.Config, _ *fake.Server) {
		c.URL, c.Now = server.URL+"/v2", func() time.Time { return at }
		if change != nil {
			change(c)
		}
	})
	defer c.Close()
	status, err := c.Place(t.Context(), r)
	if err == nil {
		assert.Equal(t, "0AFF", status.Handle.Order)
		assert.Equal(t, connector.Pending, status.State)
	}
	return got, err
}

func TestWhatAnOrderSays(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	r, _ := connectortest.Request(t, "www.example.com", "example.com", "192.0.2.1")
	body, err := sent(t, plainPolicy, r, at, nil)
	require.NoError(t, err)
	block, _ := pem.Decode([]byte(body["public_key"].(string)))
	require.NotNil(t, block)
	assert.Equal(t, "CERTIFICATE REQUEST", block.Type)
	assert.Equal(t, r.CSRDER, block.Bytes)
	delete(body, "public_key")
	assert.Equal(t, map[string]any{
		"validity":   map[string]any{"not_before": 1_799_999_940.0, "not_after": 0.0},
		"subject_dn": map[string]any{"common_name": "example.com"},
		"san":        map[string]any{"dns_names": []any{"example.com", "www.example.com"}, "ip_addresses": []any{"192.0.2.1"}},
	}, body)

	for validity, seconds := range map[time.Duration]float64{time.Minute: 3600, 24 * time.Hour: 86400, 1000 * time.Hour * 24: 8640000} {
		r.Validity = validity
		body, err = sent(t, plainPolicy, r, at, nil)
		require.NoError(t, err)
		v := body["validity"].(map[string]any)
		assert.Equal(t, seconds, v["not_after"].(float64)-v["not_before"].(float64), validity)
	}
	r.Validity = 0
	body, err = sent(t, plainPolicy, r, at, func(c *globalsign.Config) { c.Validity = 2 * time.Hour })
	require.NoError(t, err)
	assert.Equal(t, 1_799_999_940.0+7200, body["validity"].(map[string]any)["not_after"])

	body, err = sent(t, strings.NewReplacer("PKCS10", "PKCS8",
		`"common_name":{"presence":"OPTIONAL"}`,
		`"common_name":{"presence":"STATIC"},"organization":{"presence":"REQUIRED"},"country":{"presence":"FORBIDDEN"},"organizational_unit":{"static":false,"mincount":1,"maxcount":1},"state":null`,
		`"dns_names":{"static":false`, `"dns_names":{"static":true`,
		`"public_key"`, `"extended_key_usages":{"ekus":{"static":false,"maxcount":2}},"signature":{"algorithm":{"presence":"REQUIRED","list":["RSA"]},"hash_algorithm":{"presence":"OPTIONAL","list":["SHA-256"]}},"public_key"`,
	).Replace(plainPolicy), r, at, func(c *globalsign.Config) {
		c.Subject = map[string]string{"organization": "O", "country": "GB", "organizational_unit": "U", "state": "S"}
		c.HashAlgorithm = "SHA-384"
	})
	require.NoError(t, err)
	block, _ = pem.Decode([]byte(body["public_key"].(string)))
	assert.Equal(t, "PUBLIC KEY", block.Type)
	delete(body, "public_key")
	delete(body, "validity")
	assert.Equal(t, map[string]any{
		"subject_dn":          map[string]any{"organization": "O", "organizational_unit": []any{"U"}},
		"san":                 map[string]any{"ip_addresses": []any{"192.0.2.1"}},
		"extended_key_usages": []any{"1.3.6.1.5.5.7.3.1"},
		"signature":           map[string]any{"algorithm": "RSA", "hash_algorithm": "SHA-384"},
	}, body)
}

// What the policy would refuse is not sent.
func TestOrdersThatThePolicyWouldRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		names    []string
		class    connector.Class
	}{
		"too many names":  {`"dns_names":{"static":false,"maxcount":3}`, `"dns_names":{"static":false,"maxcount":1}`, []string{"a.example.com", "b.example.com"}, connector.ClassRefused},
		"no addresses":    {`"ip_addresses":{"static":false,"maxcount":3}`, `"emails":null`, []string{"192.0.2.1"}, connector.ClassRefused},
		"no common name":  {`"presence":"OPTIONAL"`, `"presence":"REQUIRED"`, []string{"192.0.2.1"}, connector.ClassRefused},
		"no organization": {`"common_name"`, `"organization":{"presence":"REQUIRED"},"common_name"`, []string{"a.example.com"}, connector.ClassConfig},
		"a signed key":    {`PKCS10"},"public_key_signature":"FORBIDDEN"`, `PKCS8"},"public_key_signature":"REQUIRED"`, []string{"a.example.com"}, connector.ClassConfig},
		"nothing":         {plainPolicy, `{}`, []string{"a.example.com"}, connector.ClassAnswer},
		"no JSON":         {plainPolicy, `<html>`, []string{"a.example.com"}, connector.ClassAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := connectortest.Request(t, c.names...)
			got, err := sent(t, strings.ReplaceAll(plainPolicy, c.from, c.to), r, time.Now(), nil)
			e := connector.Classify(err)
			require.Error(t, err)
			assert.Equal(t, c.class, e.Class, "%v", e)
			assert.True(t, e.NotPlaced)
			assert.NotEmpty(t, e.Mend)
			assert.Nil(t, got)
		})
	}
}

// A policy that has changed is asked for again after the first refusal.
func TestAPolicyThatChanges(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, nil)
	r, _ := connectortest.Request(t, "www.example.com")
	_, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	server.Set(fake.Modes{BareKey: true, SignatureChosen: true})
	_, err = c.Place(t.Context(), r)
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassRefused, e.Class)
	assert.True(t, e.NotPlaced)
	assert.Contains(t, e.Detail, "public_key: ")
	_, err = c.Place(t.Context(), r)
	require.NoError(t, err)
}

// A fast clock, within what the policy allows and beyond.
func TestAClockThatDiffers(t *testing.T) {
	now := time.Now()
	for off, sound := range map[time.Duration]bool{-50 * time.Second: true, 170 * time.Second: true, 10 * time.Minute: false, -10 * time.Minute: false} {
		c, _ := fixture(t, connectortest.Options{Fake: fakeca.Config{Now: func() time.Time { return now }}}, func(c *globalsign.Config, _ *fake.Server) {
			c.Now = func() time.Time { return now.Add(off) }
		})
		r, _ := connectortest.Request(t, "www.example.com")
		_, err := c.Place(t.Context(), r)
		if sound {
			require.NoError(t, err, off)
			continue
		}
		e := connector.Classify(err)
		assert.Equal(t, connector.ClassRefused, e.Class, off)
		assert.Contains(t, e.Detail, "not_before")
	}
}

func TestAnswersToOrdersThatAreNone(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"no location": func(w http.ResponseWriter) { w.WriteHeader(http.StatusCreated) },
		"no serial": func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://a.example/v2/certificates/new")
			w.WriteHeader(http.StatusCreated)
		},
		"no URL": func(w http.ResponseWriter) { w.Header().Set("Location", "::"); w.WriteHeader(http.StatusCreated) },
		"another status": func(w http.ResponseWriter) {
			w.Header().Set("Location", "/v2/certificates/0A")
			w.WriteHeader(http.StatusOK)
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/login":
					_, _ = w.Write([]byte(`{"access_token":"t"}`))
				case "/validationpolicy":
					_, _ = w.Write([]byte(plainPolicy))
				default:
					answer(w)
				}
			}))
			defer server.Close()
			c, _ := fixture(t, connectortest.Options{}, func(c *globalsign.Config, _ *fake.Server) { c.URL = server.URL })
			defer c.Close()
			r, _ := connectortest.Request(t, "www.example.com")
			_, err := c.Place(t.Context(), r)
			e := connector.Classify(err)
			assert.Equal(t, connector.ClassAnswer, e.Class)
			assert.False(t, e.NotPlaced)
		})
	}
}

// The authority knows of an order some seconds after it took it.
func TestUnknownForAMoment(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, nil)
	server.Set(fake.Modes{UnknownAtFirst: 2})
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	for range 2 {
		_, err = c.Status(t.Context(), r, placed.Handle)
		assert.Equal(t, connector.ClassNotFound, connector.Classify(err).Class)
	}
	status, err := c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Equal(t, connector.Issued, status.State)
	_, err = c.Status(t.Context(), r, connector.Handle{Order: "../login"})
	assert.Equal(t, connector.ClassNotFound, connector.Classify(err).Class)
}

// An issuer that has replaced the one that is remembered.
func TestAnotherIssuerSigns(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, nil)
	server.Set(fake.Modes{OldTrustChain: 1})
	old, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), old)
	require.NoError(t, err)
	bundle, err := c.Collect(t.Context(), old, placed.Handle)
	require.NoError(t, err)
	assert.Len(t, bundle.Certificates, 3)
	status, err := c.Status(t.Context(), old, placed.Handle)
	require.NoError(t, err)
	require.NotNil(t, status.Bundle, "its issuers are known by now")
	require.NoError(t, server.Core().Rotate())
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err = c.Place(t.Context(), r)
	require.NoError(t, err)
	status, err = c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Nil(t, status.Bundle)
	bundle, err = c.Collect(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	_, err = pki.CheckIssued(bundle.Certificates, r.CSR.PublicKey, r.Names, time.Now())
	require.NoError(t, err)
}

// A new order is listed when it is issued, and within Visible at the latest; pages
// are read to the last one, and what was seen once is not fetched again.
func TestASearchReadsEveryPage(t *testing.T) {
	now := time.Now()
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Hidden: 4 * time.Minute, Now: func() time.Time { return now }}}, func(c *globalsign.Config, _ *fake.Server) {
		c.Now = func() time.Time { return now }
	})
	other, _ := connectortest.Request(t, "www.example.com")
	for range 230 {
		serial := server.Core().NewSerial()
		_, err := server.Core().Accept(fakeca.Placement{
			ID: strings.ToUpper(serial.Text(16)), Serial: serial, PublicKey: other.CSR.PublicKey, Names: []string{"www.example.com"},
		})
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
	for range 2 {
		asked, listed := server.Core().Count(fakeca.Status), server.Core().Count(fakeca.Search)
		found, err = c.Search(t.Context(), r, 0)
		require.NoError(t, err)
		require.Len(t, found, 1)
		assert.Equal(t, server.Core().Ledger(nil)[230].ID, found[0].Handle.Order)
		assert.Equal(t, 3, server.Core().Count(fakeca.Search)-listed)
		assert.Contains(t, []int{1, 232}, server.Core().Count(fakeca.Status)-asked)
	}
	// What was issued long before the order is none of it.
	r.CommittedAt = now.Add(40 * time.Minute)
	now = now.Add(41 * time.Minute)
	found, err = c.Search(t.Context(), r, 0)
	require.NoError(t, err)
	assert.Empty(t, found)
}

// A token is asked for once, used until it is about to end, and replaced when the
// authority has forgotten it.
func TestTokens(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	secret := fake.APISecret
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Now: clock, Delay: time.Hour}}, func(c *globalsign.Config, _ *fake.Server) {
		c.Now, c.APISecret = clock, func() (string, error) { return secret, nil }
	})
	logins := func() int { return server.Core().Count(fakeca.Login) }
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	assert.Equal(t, 1, logins())
	ask := func() error { _, err := c.Status(t.Context(), r, placed.Handle); return err }
	now = now.Add(9*time.Minute + 29*time.Second)
	require.NoError(t, ask())
	assert.Equal(t, 1, logins())
	now = now.Add(time.Second)
	require.NoError(t, ask())
	assert.Equal(t, 2, logins())
	// The authority's clock runs ahead of ours: the token has ended, within a poll.
	server.ForgetTokens()
	require.NoError(t, ask())
	assert.Equal(t, 3, logins())
	server.ForgetTokens()
	_, err = c.Place(t.Context(), r)
	require.NoError(t, err, "status 401 made no order, and a new token does")
	assert.Len(t, server.Core().Ledger(nil), 2)
	server.ForgetTokens()
	secret = "wrong-secret-of-ours"
	err = ask()
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassCredentials, e.Class)
	assert.NotContains(t, err.Error(), secret)
	assert.NotContains(t, err.Error(), fake.APIKey)
	assert.Contains(t, err.Error(), "[redacted]")
	secret = fake.APISecret
	require.NoError(t, ask())
	// No token, no order.
	server.ForgetTokens()
	now = now.Add(time.Hour)
	server.Core().Script(fakeca.Login, fakeca.Fault{Kind: fakeca.Refuse, Status: 500})
	_, err = c.Place(t.Context(), r)
	e = connector.Classify(err)
	assert.Equal(t, connector.ClassRetry, e.Class)
	assert.True(t, e.NotPlaced)
}

func TestCredentialsThatCannotBeUsedSendNothing(t *testing.T) {
	for name, read := range map[string]func() (string, error){
		"missing": func() (string, error) { return "", errors.New("no such file") },
		"empty":   func() (string, error) { return "", nil },
		"lines":   func() (string, error) { return "a\nb", nil },
	} {
		for _, field := range []func(*globalsign.Config) *func() (string, error){
			func(c *globalsign.Config) *func() (string, error) { return &c.APIKey },
			func(c *globalsign.Config) *func() (string, error) { return &c.APISecret },
		} {
			c, server := fixture(t, connectortest.Options{}, func(c *globalsign.Config, _ *fake.Server) { *field(c) = read })
			r, _ := connectortest.Request(t, "www.example.com")
			_, err := c.Place(t.Context(), r)
			e := connector.Classify(err)
			assert.Equal(t, connector.ClassCredentials, e.Class, name)
			assert.True(t, e.NotPlaced)
			assert.NotEmpty(t, e.Mend)
			assert.Zero(t, server.Core().Count(fakeca.Login))
		}
	}
}
