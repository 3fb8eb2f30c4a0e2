package vault_test

import (
	"encoding/json"
	"net/http"
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

// Every failure that is known by its words, in the answer to an order and to a
// question.
func TestEveryFailureThatIsDocumented(t *testing.T) {
	for _, c := range []struct {
		status    int
		body      string
		detail    string
		class     connector.Class
		notPlaced bool
		mend      string // a part of it, "" for none
	}{
		{503, `{"errors":["Vault is sealed"]}`, "Vault is sealed", connector.ClassBusy, false, "unseal"},
		{503, `{"errors":["overloaded"]}`, "overloaded", connector.ClassBusy, false, ""},
		{412, `{"errors":["required index state not present"]}`, "required index state not present", connector.ClassRetry, true, ""},
		{403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, "permission denied", connector.ClassCredentials, true, "policies"},
		{403, `{"errors":["2 errors occurred:\n\t* Permission denied\n\t* invalid token\n\n"]}`, "Permission denied; invalid token", connector.ClassCredentials, true, "policies"},
		{403, `{"errors":["namespace not authorized"]}`, "namespace not authorized", connector.ClassCredentials, true, "credentials"},
		{400, `{"errors":["missing client token"]}`, "missing client token", connector.ClassCredentials, true, "policies"},
		{400, `{"errors":["invalid role or secret ID"]}`, "invalid role or secret ID", connector.ClassCredentials, true, "secret id"},
		{400, `{"errors":["invalid secret id"]}`, "invalid secret id", connector.ClassCredentials, true, "secret id"},
		{400, `{"errors":["invalid role ID"]}`, "invalid role ID", connector.ClassCredentials, true, "secret id"},
		{400, `{"errors":["request needs further approval"]}`, "request needs further approval", connector.ClassConfig, true, "control group"},
		{404, `{"errors":["no handler for route \"pki/sign/x\". route entry not found."]}`, `no handler for route "pki/sign/x". route entry not found.`, connector.ClassConfig, true, "mount"},
		{404, `{"errors":["1 error occurred:\n\t* unsupported path\n\n"]}`, "unsupported path", connector.ClassConfig, true, "mount"},
		{405, `{"errors":["1 error occurred:\n\t* unsupported operation\n\n"]}`, "unsupported operation", connector.ClassConfig, true, "mount"},
		{400, `{"errors":["unknown role: x"]}`, "unknown role: x", connector.ClassConfig, true, "role"},
		{400, `{"errors":["unable to find PKI issuer for reference: x"]}`, "unable to find PKI issuer for reference: x", connector.ClassConfig, true, "issuer"},
		{400, `{"errors":["could not fetch the CA certificate (was one set?): none"]}`, "could not fetch the CA certificate (was one set?): none", connector.ClassConfig, true, "key to sign with"},
		{
			400, `{"errors":["cannot satisfy request, as TTL would result in notAfter that is beyond the expiration of the CA certificate"]}`,
			"cannot satisfy request, as TTL would result in notAfter that is beyond the expiration of the CA certificate", connector.ClassNeedsPerson, true, "renew the issuing",
		},
		{400, `{"errors":["common name a.b not allowed by this role"]}`, "common name a.b not allowed by this role", connector.ClassRefused, true, "allowed_domains"},
		{400, `{"errors":["IP Subject Alternative Names are not allowed in this role"]}`, "IP Subject Alternative Names are not allowed in this role", connector.ClassRefused, true, "allow_ip_sans"},
		{400, `{"errors":["the common_name field is required"]}`, "the common_name field is required", connector.ClassRefused, true, "require_cn"},
		{400, `{"errors":["role requires keys of type rsa"]}`, "role requires keys of type rsa", connector.ClassRefused, true, "key_type"},
		{400, `{"errors":["certificate request could not be parsed"]}`, "certificate request could not be parsed", connector.ClassRefused, true, ""},
		{400, `{"errors":["certificate with serial 1 not found."]}`, "certificate with serial 1 not found.", connector.ClassNotFound, true, "no_store"},
		{404, `{"errors":[]}`, "the server has nothing there", connector.ClassNotFound, true, ""},
		{429, `{"errors":["rate limit quota exceeded"]}`, "rate limit quota exceeded", connector.ClassBusy, true, ""},
		{500, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, "permission denied", connector.ClassRetry, false, ""},
		{502, `{"errors":["upstream rate limited"]}`, "upstream rate limited", connector.ClassRetry, false, ""},
	} {
		t.Run(http.StatusText(c.status)+c.detail, func(t *testing.T) {
			connect, server := fixture(t, connectortest.Options{}, nil)
			server.Core().Script(fakeca.Any, fakeca.Repeat(2, fakeca.Fault{Kind: fakeca.Refuse, Status: c.status, ContentType: "application/json", Body: c.body})...)
			r, _ := connectortest.Request(t, "www.example.com")
			_, err := connect.Place(t.Context(), r)
			e := connector.Classify(err)
			assert.Equal(t, c.class, e.Class)
			assert.Equal(t, c.notPlaced, e.NotPlaced)
			assert.Equal(t, c.detail, e.Detail)
			if c.mend == "" {
				assert.Empty(t, e.Mend)
			} else {
				assert.Contains(t, e.Mend, c.mend)
			}
			_, err = connect.Status(t.Context(), r, connector.Handle{Order: "0a:ff"})
			assert.Equal(t, c.class, connector.Classify(err).Class)
		})
	}
}

// What an operator is told of a server that is not as it should be.
func TestWhatATestWarnsOf(t *testing.T) {
	sign, role := "sign/"+fake.Role, "roles/"+fake.Role
	for name, c := range map[string]struct {
		modes  fake.Modes
		change func(*vault.Config)
		warn   []string
	}{
		"all is well":       {},
		"a root namespace":  {modes: fake.Modes{Namespace: "a"}, change: func(c *vault.Config) { c.Namespace = "a" }},
		"a token that ends": {modes: fake.Modes{TokenTTL: 24 * time.Hour}, warn: []string{"AppRole"}},
		"a login's token":   {modes: fake.Modes{TokenTTL: time.Hour, Uses: 3}, change: approle},
		"a token used up":   {modes: fake.Modes{Uses: 3}, warn: []string{"3 more requests"}},
		"no policy to sign": {modes: fake.Modes{Denied: []string{sign}}, warn: []string{sign}},
		"no policy to list": {modes: fake.Modes{Denied: []string{"certs"}}, change: func(c *vault.Config) { c.PlaceOnce = true }, warn: []string{"/certs"}},
		"nothing to search": {modes: fake.Modes{Denied: []string{"certs"}}},
		"a hidden role":     {modes: fake.Modes{Denied: []string{role}}, warn: []string{"read\" on " + fake.Mount + "/" + role}},
		"no role":           {change: func(c *vault.Config) { c.Role = "odd" }, warn: []string{"role odd"}},
		"no issuer":         {change: func(c *vault.Config) { c.Issuer = "odd" }, warn: []string{"issuing certificate cannot be read"}},
		"nothing is kept":   {modes: fake.Modes{NoStore: true}, warn: []string{"set no_store"}},
		"everything is":     {change: func(c *vault.Config) { c.NoStore = true }, warn: []string{"leave out no_store"}},
		"waits for a person": {
			modes: fake.Modes{NoStore: true}, change: func(c *vault.Config) { c.NoStore, c.PlaceOnce = true, true }, warn: []string{"waits for a person"},
		},
		"a short role": {modes: fake.Modes{MaxTTL: time.Hour}, change: func(c *vault.Config) { c.Validity = 2 * time.Hour }, warn: []string{"valid for 1h, as long as the role lets them, and not for 2h"}},
		"another time": {modes: fake.Modes{Behind: time.Hour}, warn: []string{"clock"}},
		"a long life":  {change: func(c *vault.Config) { c.Now = func() time.Time { return time.Now().AddDate(20, 0, -10) } }, warn: []string{"clock", "renew the issuing"}},
	} {
		t.Run(name, func(t *testing.T) {
			connect, server := fixture(t, connectortest.Options{}, func(config *vault.Config, _ *fake.Server) {
				if c.change != nil {
					c.change(config)
				}
			})
			server.Set(c.modes)
			account, err := connect.Test(t.Context())
			require.NoError(t, err)
			assert.Equal(t, "token-certctl", account.Name)
			require.Len(t, account.Warnings, len(c.warn), "%q", account.Warnings)
			for i, part := range c.warn {
				assert.Contains(t, account.Warnings[i], part)
			}
			assert.Contains(t, account.Facts, connector.Fact{Name: "server", Value: "fake 1.19.0"})
			if c.modes.MaxTTL > 0 {
				assert.Contains(t, account.Facts, connector.Fact{Name: "longest validity", Value: "1h"})
			}
		})
	}
	connect, server := fixture(t, connectortest.Options{}, nil)
	server.Set(fake.Modes{Sealed: true})
	_, err := connect.Test(t.Context())
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassBusy, e.Class)
	assert.Equal(t, "unseal the server", e.Mend)
}

func TestAnOrderThatOthersHaveToRelease(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, nil)
	server.Set(fake.Modes{ControlGroup: true})
	r, _ := connectortest.Request(t, "www.example.com")
	_, err := c.Place(t.Context(), r)
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassConfig, e.Class)
	assert.True(t, e.NotPlaced)
	assert.Empty(t, server.Core().Ledger(nil))
}

// What a server, or something before it, says back of the credentials is not shown.
func TestCredentialsAreNotShown(t *testing.T) {
	for name, change := range map[string]func(c *vault.Config){"token": func(*vault.Config) {}, "login": approle} {
		c, server := fixture(t, connectortest.Options{}, func(c *vault.Config, _ *fake.Server) { change(c) })
		r, _ := connectortest.Request(t, "www.example.com")
		placed, err := c.Place(t.Context(), r)
		require.NoError(t, err, name)
		said := fake.Token + " " + fake.RoleID + " " + fake.SecretID + " " + server.Logged()
		body, err := json.Marshal(map[string]any{"errors": []string{"you sent " + said}})
		require.NoError(t, err)
		server.Core().Script(fakeca.Status, fakeca.Fault{Kind: fakeca.Refuse, Status: 400, ContentType: "application/json", Body: string(body)})
		_, err = c.Status(t.Context(), r, placed.Handle)
		require.ErrorContains(t, err, "you sent", name)
		hidden := []string{fake.Token}
		if name == "login" {
			hidden = []string{fake.RoleID, fake.SecretID, server.Logged()}
		}
		for _, secret := range hidden {
			assert.NotContains(t, err.Error(), secret, name)
		}
	}
}
