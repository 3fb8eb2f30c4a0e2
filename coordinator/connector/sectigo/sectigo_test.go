package sectigo_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/sectigo"
	fake "github.com/certctl/certctl/internal/fakeca/sectigo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a connector with a fake; change may be nil.
func fixture(t testing.TB, o connectortest.Options, change func(*sectigo.Config, *fake.Server)) (*sectigo.Connector, *fake.Server) {
	t.Helper()
	server := fake.New(o.Fake)
	config := sectigo.Config{
		URL: connectortest.Serve(t, server) + fake.Base, Auth: sectigo.AuthPassword, Login: fake.Login, CustomerURI: fake.CustomerURI,
		Password:     func() (string, error) { return fake.Password, nil },
		Organization: fake.Organization, Profile: fake.Profile, Terms: []int{90}, Format: o.Format, Timeout: o.Timeout, Dial: o.Dial,
	}
	if change != nil {
		change(&config, server)
	}
	c, err := sectigo.New(config)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c, server
}

func suite(change func(*sectigo.Config, *fake.Server)) connectortest.Suite {
	return connectortest.Suite{
		New: func(t *testing.T, o connectortest.Options) connectortest.Fixture {
			c, server := fixture(t, o, change)
			return connectortest.Fixture{Connector: c, Fake: server, Secrets: []string{fake.Password, fake.ClientSecret}, Spoil: server.Spoil}
		},
	}
}

func TestContractWithPassword(t *testing.T) {
	s := suite(nil)
	s.Formats = sectigo.Formats
	s.Run(t)
}

// withCertificate speaks TLS with a fake of its own, which asks for the client's.
func withCertificate(t *testing.T) func(*sectigo.Config, *fake.Server) {
	return func(c *sectigo.Config, server *fake.Server) {
		listening := httptest.NewUnstartedServer(server)
		listening.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		listening.EnableHTTP2 = true
		listening.StartTLS()
		t.Cleanup(listening.Close)
		c.URL, c.Auth, c.Password = listening.URL+fake.PrivateBase, sectigo.AuthCertificate, nil
		c.Certificate = func() (*tls.Certificate, error) { cert := server.Client(); return &cert, nil }
		c.Roots = x509.NewCertPool()
		c.Roots.AddCert(listening.Certificate())
	}
}

func TestContractWithClientCertificate(t *testing.T) {
	suite(withCertificate(t)).Run(t)
}

// An external requester is found by the authority's own search.
func TestContractWithTokensAndExternalRequester(t *testing.T) {
	suite(func(c *sectigo.Config, _ *fake.Server) {
		c.Auth, c.ClientID, c.Login, c.CustomerURI, c.Password = sectigo.AuthOAuth, fake.ClientID, "", "", nil
		c.ClientSecret = func() (string, error) { return fake.ClientSecret, nil }
		c.TokenURL = c.URL[:len(c.URL)-len(fake.Base)] + fake.TokenPath
		c.ExternalRequester, c.NoComments, c.FormatInPath = "certs+{reference}@example.com", true, true
	}).Run(t)
}
