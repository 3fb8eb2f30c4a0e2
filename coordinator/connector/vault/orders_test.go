package vault_test

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/vault"
	"github.com/certctl/certctl/internal/fakeca"
	fake "github.com/certctl/certctl/internal/fakeca/vault"
)

// sent is what the connector of a config sends for an order, which answer answers.
func sent(t *testing.T, r *connector.Request, answer string, change func(*vault.Config)) (path string, header http.Header, body map[string]any, err error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, http.MethodPost, r.Method)
		path, header = r.URL.EscapedPath(), r.Header
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&body))
		_, _ = w.Write([]byte(answer))
	}))
	defer server.Close()
	c, _ := fixture(t, connectortest.Options{}, func(c *vault.Config, _ *fake.Server) {
		c.URL = server.URL
		if change != nil {
			change(c)
		}
	})
	defer c.Close()
	_, err = c.Place(t.Context(), r)
	return path, header, body, err
}

func TestWhatAnOrderSays(t *testing.T) {
	r, _ := connectortest.Request(t, "www.example.com", "example.com", "192.0.2.1", "2001:db8::1")
	path, header, body, _ := sent(t, r, `{}`, nil)
	assert.Equal(t, "/v1/pki-int/issuing/sign/web-servers", path)
	assert.Equal(t, fake.Token, header.Get("X-Vault-Token"), "without the end of the line")
	assert.Equal(t, "true", header.Get("X-Vault-Request"))
	assert.NotContains(t, header, "X-Vault-Namespace")
	block, rest := pem.Decode([]byte(body["csr"].(string)))
	assert.Empty(t, rest)
	assert.Equal(t, r.CSRDER, block.Bytes)
	delete(body, "csr")
	assert.Equal(t, map[string]any{
		"common_name": "example.com", "alt_names": "example.com,www.example.com", "ip_sans": "192.0.2.1,2001:db8::1", "exclude_cn_from_sans": true, "format": "pem",
	}, body)

	r, _ = connectortest.Request(t, "192.0.2.1")
	path, header, body, _ = sent(t, r, `{}`, func(c *vault.Config) {
		c.URL, c.Namespace, c.Issuer, c.Validity = c.URL+"/behind/", "a/b/", "web-2026", 90*24*time.Hour
	})
	assert.Equal(t, "/behind/v1/pki-int/issuing/issuer/web-2026/sign/web-servers", path)
	assert.Equal(t, "a/b", header.Get("X-Vault-Namespace"))
	assert.NotContains(t, body, "common_name")
	assert.NotContains(t, body, "alt_names")
	assert.Equal(t, "7776000s", body["ttl"])
	r.Validity = time.Second
	_, _, body, _ = sent(t, r, `{}`, nil)
	assert.Equal(t, "60s", body["ttl"], "the order's own validity")
}

func TestAnswersToOrdersThatAreNone(t *testing.T) {
	r, _ := connectortest.Request(t, "www.example.com")
	for body, c := range map[string]struct {
		class     connector.Class
		notPlaced bool
	}{
		`{}`:                                  {connector.ClassAnswer, false},
		`null`:                                {connector.ClassAnswer, false},
		`[]`:                                  {connector.ClassAnswer, false},
		`{"data":null}`:                       {connector.ClassAnswer, false},
		`{"data":{"certificate":" "}}`:        {connector.ClassAnswer, false},
		`{"data":{"certificate":"AAAA"}}`:     {connector.ClassAnswer, false},
		`{"errors":["no"]}`:                   {connector.ClassAnswer, false},
		`{"data":null,"wrap_info":{"ttl":1}}`: {connector.ClassConfig, true},
	} {
		_, _, _, err := sent(t, r, body, nil)
		e := connector.Classify(err)
		require.Error(t, err, body)
		assert.Equal(t, c.class, e.Class, body)
		assert.Equal(t, c.notPlaced, e.NotPlaced, body)
	}
}

// Certificates are named by their serial number, in whatever form it is given, and the
// state is told by a time and by the certificate itself.
func TestHowACertificateStands(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Now: clock}}, func(c *vault.Config, _ *fake.Server) { c.Now = clock })
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	assert.Equal(t, server.Core().Ledger(nil)[0].ID, placed.Handle.Order)
	assert.Contains(t, placed.Handle.Order, ":")
	assert.False(t, placed.PlacedAt.IsZero())
	plain := strings.ReplaceAll(placed.Handle.Order, ":", "")
	for _, written := range []string{placed.Handle.Order, plain, strings.ToUpper(plain), strings.ReplaceAll(placed.Handle.Order, ":", "-")} {
		status, err := c.Status(t.Context(), r, connector.Handle{Order: written})
		require.NoError(t, err, written)
		assert.Equal(t, connector.Issued, status.State)
		assert.Equal(t, placed.Handle, status.Handle)
	}
	done, err := c.Revoke(t.Context(), &connector.Revocation{Serial: plain, Reason: 1})
	require.NoError(t, err)
	assert.True(t, done)
	status, err := c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Equal(t, connector.Revoked, status.State)
	_, err = c.Collect(t.Context(), r, placed.Handle)
	assert.Equal(t, connector.ClassRefused, connector.Classify(err).Class)

	placed, err = c.Place(t.Context(), r)
	require.NoError(t, err)
	now = now.AddDate(1, 0, 0)
	status, err = c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Equal(t, connector.Ended, status.State)
	_, err = c.Revoke(t.Context(), &connector.Revocation{Handle: placed.Handle})
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassRefused, e.Class)
	assert.Contains(t, e.Detail, "already expired")
	for _, none := range []connector.Handle{{}, {Order: "ca"}, {Order: "../ca"}, {Order: strings.Repeat("ab", 21)}, {Order: "0:"}, {Order: "ab:cd"}} {
		_, err = c.Status(t.Context(), r, none)
		assert.Equal(t, connector.ClassNotFound, connector.Classify(err).Class, none)
		_, err = c.Collect(t.Context(), r, none)
		assert.Equal(t, connector.ClassNotFound, connector.Classify(err).Class, none)
		_, err = c.Revoke(t.Context(), &connector.Revocation{Handle: none})
		assert.Equal(t, connector.ClassNotFound, connector.Classify(err).Class, none)
	}
}

// A certificate is collected with the chain of the issuer that signed it, which may be
// none that signs any more.
func TestTheChainOfAnIssuerThatSignsNoMore(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, nil)
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, server.Core().Rotate())
	}
	bundle, err := c.Collect(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Len(t, bundle.Certificates, 3)
	require.NoError(t, bundle.Certificates[0].CheckSignatureFrom(bundle.Certificates[1]))
	server.Set(fake.Modes{Old: true})
	bundle, err = c.Collect(t.Context(), r, placed.Handle)
	require.NoError(t, err, "what cannot be found is for others to complete")
	assert.NotEmpty(t, bundle.Certificates)
}

// An order that is cut down by the role says so.
func TestWarningsAreShown(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, func(c *vault.Config, _ *fake.Server) { c.Validity = 90 * 24 * time.Hour })
	server.Set(fake.Modes{MaxTTL: 24 * time.Hour})
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	assert.Contains(t, placed.Detail, "longer than permitted")
	assert.InDelta(t, 24, time.Until(placed.Bundle.Certificates[0].NotAfter).Hours(), 1)
}

// Thousands of certificates are listed in pages and read once each, a part of them at
// a time; and one that was signed before the order, for a key that is used again, is
// none of it.
func TestASearchReadsEachCertificateOnce(t *testing.T) {
	for name, modes := range map[string]fake.Modes{"all at a time": {}, "in pages": {Pages: true}} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Now: func() time.Time { return now }}}, nil)
			server.Set(modes)
			r, _ := connectortest.Request(t, "www.example.com")
			old, err := c.Place(t.Context(), r)
			require.NoError(t, err)
			now = now.Add(24 * time.Hour)
			r.CommittedAt = now
			other, _ := connectortest.Request(t, "www.example.com")
			for range 1200 {
				serial := server.Core().NewSerial()
				_, err := server.Core().Accept(fakeca.Placement{ID: colons(serial.Text(16)), Serial: serial, PublicKey: other.CSR.PublicKey, Names: []string{"www.example.com"}})
				require.NoError(t, err)
			}
			server.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost})
			_, err = c.Place(t.Context(), r)
			require.Error(t, err)
			searches := 0
			var found []connector.Status
			for {
				searches++
				found, err = c.Search(t.Context(), r, 0)
				if err == nil {
					break
				}
				require.Equal(t, connector.ClassRetry, connector.Classify(err).Class, "%v", err)
				require.Less(t, searches, 10)
			}
			assert.Equal(t, 3, searches)
			require.Len(t, found, 1)
			assert.Equal(t, server.Core().Ledger(nil)[1201].ID, found[0].Handle.Order)
			assert.NotEqual(t, old.Handle, found[0].Handle)
			assert.GreaterOrEqual(t, server.Core().Count(fakeca.Status), 1202, "each of them")
			assert.LessOrEqual(t, server.Core().Count(fakeca.Status), 1202+2*searches, "and once")
		})
	}
}

func colons(digits string) string {
	var octets []string
	for i := 0; i < len(digits); i += 2 {
		octets = append(octets, digits[i:i+2])
	}
	return strings.Join(octets, ":")
}

// What cannot be looked through, or proves nothing, is left to a person.
func TestSearchesThatProveNothing(t *testing.T) {
	r, _ := connectortest.Request(t, "www.example.com")
	many := make([]string, 0, 10_001)
	for i := range 10_001 {
		many = append(many, colons(fmt.Sprintf("%08x", i)))
	}
	list, err := json.Marshal(map[string]any{"data": map[string]any{"keys": many}})
	require.NoError(t, err)
	for name, body := range map[string]string{"too many": string(list), "too large": strings.Repeat(" ", connector.MaxAnswer+1)} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		c, _ := fixture(t, connectortest.Options{}, func(c *vault.Config, _ *fake.Server) { c.URL = server.URL })
		_, err := c.Search(t.Context(), r, 0)
		assert.Equal(t, connector.ClassNeedsPerson, connector.Classify(err).Class, name)
		assert.Contains(t, connector.Classify(err).Mend, "orders resolve", name)
		server.Close()
	}

	c, server := fixture(t, connectortest.Options{}, nil)
	assert.Equal(t, time.Minute, c.Visible())
	found, err := c.Search(t.Context(), r, 0)
	require.NoError(t, err, "an empty list is status 404")
	assert.Empty(t, found)
	server.Set(fake.Modes{NoStore: true})
	_, err = c.Search(t.Context(), r, 0)
	assert.Equal(t, connector.ClassNeedsPerson, connector.Classify(err).Class, "the role keeps nothing, whatever the settings say")
	server.Set(fake.Modes{Denied: []string{"roles/" + fake.Role}})
	_, err = c.Search(t.Context(), r, 0)
	require.NoError(t, err, "the role may not be read: the settings count")
	server.Set(fake.Modes{Denied: []string{"certs"}})
	_, err = c.Search(t.Context(), r, 0)
	assert.Equal(t, connector.ClassCredentials, connector.Classify(err).Class)

	none, server := fixture(t, connectortest.Options{}, func(c *vault.Config, _ *fake.Server) { c.NoStore = true })
	server.Set(fake.Modes{NoStore: true})
	assert.Negative(t, none.Visible())
	placed, err := none.Place(t.Context(), r)
	require.NoError(t, err)
	_, err = connectortest.Check(t, none, r, placed.Bundle)
	require.NoError(t, err)
	_, err = none.Collect(t.Context(), r, placed.Handle)
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassNotFound, e.Class)
	assert.NotEmpty(t, e.Mend)
}

func TestWhatMayBeRepeated(t *testing.T) {
	c, _ := fixture(t, connectortest.Options{}, nil)
	assert.True(t, c.Repeatable())
	c, _ = fixture(t, connectortest.Options{}, func(c *vault.Config, _ *fake.Server) { c.PlaceOnce = true })
	assert.False(t, c.Repeatable())
}

// A token of a login is used until it ends or is refused; an order that meets one that
// has ended is not lost by it.
func TestTokensOfLogins(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Now: clock}}, func(c *vault.Config, _ *fake.Server) {
		approle(c)
		c.Now = clock
	})
	r, _ := connectortest.Request(t, "www.example.com")
	place := func() {
		t.Helper()
		_, err := c.Place(t.Context(), r)
		require.NoError(t, err)
	}
	place()
	place()
	assert.Equal(t, 1, server.Core().Count(fakeca.Login))
	now = now.Add(19*time.Minute + 45*time.Second)
	place()
	assert.Equal(t, 2, server.Core().Count(fakeca.Login), "shortly before its end")
	server.Logout()
	place()
	assert.Equal(t, 3, server.Core().Count(fakeca.Login))
	assert.Len(t, server.Core().Ledger(nil), 4)
	server.Set(fake.Modes{Denied: []string{"sign/" + fake.Role}})
	before := server.Core().Count(fakeca.Place)
	_, err := c.Place(t.Context(), r)
	assert.Equal(t, connector.ClassCredentials, connector.Classify(err).Class)
	assert.Equal(t, 2, server.Core().Count(fakeca.Place)-before, "once more, and no more")
	server.Core().Script(fakeca.Login, fakeca.Fault{Kind: fakeca.Refuse, Status: 500})
	server.Logout()
	_, err = c.Place(t.Context(), r)
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassRetry, e.Class)
	assert.True(t, e.NotPlaced, "what failed is the login")
}

func TestSettingsAreChecked(t *testing.T) {
	sound := vault.Config{URL: "https://vault.example:8200", Mount: "pki", Role: "web", Token: fixed("t")}
	for field, change := range map[string]func(c *vault.Config){
		"url":              func(c *vault.Config) { c.URL = "vault" },
		"leave out /v1":    func(c *vault.Config) { c.URL += "/v1" },
		"mount":            func(c *vault.Config) { c.Mount = "" },
		`"pki/../x"`:       func(c *vault.Config) { c.Mount = "pki/../x" },
		"role":             func(c *vault.Config) { c.Role = "a/b" },
		"issuer":           func(c *vault.Config) { c.Issuer = "a b" },
		"namespace":        func(c *vault.Config) { c.Namespace = "a//b" },
		"give a token":     func(c *vault.Config) { c.Token = nil },
		"not both":         func(c *vault.Config) { c.RoleID = fixed("r") },
		"one of them":      func(c *vault.Config) { c.Token, c.SecretID = nil, fixed("s") },
		"validity":         func(c *vault.Config) { c.Validity = time.Second },
		"mount of AppRole": func(c *vault.Config) { c.AppRoleMount = "a b" },
	} {
		c := sound
		change(&c)
		_, err := vault.New(c)
		assert.ErrorContains(t, err, field)
	}
	for name, read := range map[string]func() (string, error){
		"unreadable": func() (string, error) { return "", errors.New("no such file") }, "empty": fixed(" \n"), "two lines": fixed("a\nb"),
	} {
		c, server := fixture(t, connectortest.Options{}, func(c *vault.Config, _ *fake.Server) { c.Token = read })
		r, _ := connectortest.Request(t, "www.example.com")
		_, err := c.Place(t.Context(), r)
		e := connector.Classify(err)
		assert.Equal(t, connector.ClassCredentials, e.Class, name)
		assert.True(t, e.NotPlaced, name)
		assert.Zero(t, server.Core().Count(fakeca.Place), name)
	}
}
