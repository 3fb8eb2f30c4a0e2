package globalsign_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/globalsign"
	fake "github.com/certctl/certctl/internal/fakeca/globalsign"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fixed(text string) func() (string, error) { return func() (string, error) { return text, nil } }

// fixture is a connector with a fake, which asks for its certificate; change may be
// nil.
func fixture(t testing.TB, o connectortest.Options, change func(*globalsign.Config, *fake.Server)) (*globalsign.Connector, *fake.Server) {
	t.Helper()
	server := fake.New(o.Fake)
	listening := httptest.NewUnstartedServer(server)
	listening.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	listening.EnableHTTP2 = true
	listening.StartTLS()
	t.Cleanup(listening.Close)
	config := globalsign.Config{
		URL: listening.URL + fake.Base, APIKey: fixed(fake.APIKey), APISecret: fixed(fake.APISecret),
		Certificate: func() (*tls.Certificate, error) { cert := server.Client(); return &cert, nil },
		Roots:       x509.NewCertPool(), Timeout: o.Timeout, Dial: o.Dial,
	}
	config.Roots.AddCert(listening.Certificate())
	if change != nil {
		change(&config, server)
	}
	c, err := globalsign.New(config)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c, server
}

func suite(change func(*globalsign.Config, *fake.Server)) connectortest.Suite {
	return connectortest.Suite{
		New: func(t *testing.T, o connectortest.Options) connectortest.Fixture {
			c, server := fixture(t, o, change)
			return connectortest.Fixture{Connector: c, Fake: server, Secrets: []string{fake.APIKey, fake.APISecret}, Spoil: server.Spoil}
		},
		NoPerson: true, OneQuestion: true,
	}
}

func TestContract(t *testing.T) { suite(nil).Run(t) }

// An account that differs in all that a policy can say.
func TestContractWithAnotherPolicy(t *testing.T) {
	suite(func(c *globalsign.Config, server *fake.Server) {
		c.Subject = map[string]string{"organization": "Example Ltd", "country": "GB", "organizational_unit": "Web"}
		server.Set(fake.Modes{
			BareKey: true, SignatureChosen: true, RelativeLocation: true, TurnedTrustChain: true, ClaimsNeeded: true,
			Presence: map[string]string{"organization": "REQUIRED", "country": "OPTIONAL", "common_name": "REQUIRED", "locality": "FORBIDDEN"},
		})
	}).Run(t)
}
