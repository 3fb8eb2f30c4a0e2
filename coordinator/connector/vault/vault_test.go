package vault_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/vault"
	"github.com/certctl/certctl/internal/fakeca"
	fake "github.com/certctl/certctl/internal/fakeca/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fixed(text string) func() (string, error) { return func() (string, error) { return text, nil } }

// fixture is a connector with a fake; change may be nil.
func fixture(t testing.TB, o connectortest.Options, change func(*vault.Config, *fake.Server)) (*vault.Connector, *fake.Server) {
	t.Helper()
	server := fake.New(o.Fake)
	config := vault.Config{URL: connectortest.Serve(t, server), Mount: fake.Mount, Role: fake.Role, Token: fixed(fake.Token + "\n"), Timeout: o.Timeout, Dial: o.Dial}
	if change != nil {
		change(&config, server)
	}
	c, err := vault.New(config)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c, server
}

func approle(c *vault.Config) {
	c.Token, c.RoleID, c.SecretID = nil, fixed(fake.RoleID), fixed(fake.SecretID)
}

func suite(change func(*vault.Config, *fake.Server)) connectortest.Suite {
	return connectortest.Suite{
		New: func(t *testing.T, o connectortest.Options) connectortest.Fixture {
			c, server := fixture(t, o, change)
			return connectortest.Fixture{Connector: c, Fake: server, Secrets: []string{fake.Token, fake.SecretID, "hvs.login-"}, Spoil: server.Spoil}
		},
		NoPerson: true, OneQuestion: true, AtOnce: true, NoWords: true,
	}
}

func TestContract(t *testing.T) { suite(nil).Run(t) }

// With a login for each token, in a namespace, by the name of an issuer, and where each
// signature counts.
func TestContractWithEverySetting(t *testing.T) {
	suite(func(c *vault.Config, server *fake.Server) {
		approle(c)
		c.Namespace, c.Mount, c.Issuer, c.PlaceOnce = "/teams/web/", "/"+fake.Mount+"/", "default", true
		server.Set(fake.Modes{Namespace: "teams/web", Pages: true, NoChain: true})
	}).Run(t)
}

// A server from before there were several issuers in a mount.
func TestContractWithAnOldServer(t *testing.T) {
	suite(func(_ *vault.Config, server *fake.Server) { server.Set(fake.Modes{Old: true}) }).Run(t)
}

// The dialect knows no waiting, whatever the fake is told.
func TestTheFakeIssuesAtOnce(t *testing.T) {
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Approval: true, Delay: 1 << 40}}, nil)
	r, _ := connectortest.Request(t, "www.example.com")
	status, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	require.NotNil(t, status.Bundle)
	require.Equal(t, fakeca.Issued, server.Core().Ledger(nil)[0].State)
}
