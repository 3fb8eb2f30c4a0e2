package entrust_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/entrust"
	fake "github.com/certctl/certctl/internal/fakeca/entrust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a connector with a fake, which asks for its certificate; change may be
// nil.
func fixture(t testing.TB, o connectortest.Options, change func(*entrust.Config, *fake.Server)) (*entrust.Connector, *fake.Server) {
	t.Helper()
	server := fake.New(o.Fake)
	listening := httptest.NewUnstartedServer(server)
	listening.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	listening.EnableHTTP2 = true
	listening.StartTLS()
	t.Cleanup(listening.Close)
	config := entrust.Config{
		URL: listening.URL + fake.Base, CA: fake.CA, Profile: fake.Profile, Timeout: o.Timeout, Dial: o.Dial, Roots: x509.NewCertPool(),
		Certificate: func() (*tls.Certificate, error) { cert := server.Client(); return &cert, nil },
	}
	config.Roots.AddCert(listening.Certificate())
	if change != nil {
		change(&config, server)
	}
	c, err := entrust.New(config)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c, server
}

func suite(change func(*entrust.Config, *fake.Server)) connectortest.Suite {
	return connectortest.Suite{
		New: func(t *testing.T, o connectortest.Options) connectortest.Fixture {
			c, server := fixture(t, o, change)
			return connectortest.Fixture{Connector: c, Fake: server, Secrets: []string{fake.Secret}, Spoil: server.Spoil}
		},
		NoPerson: true, OneQuestion: true, AtOnce: true, NoWords: true,
	}
}

func TestContract(t *testing.T) { suite(nil).Run(t) }

// A gateway that leaves out what it may.
func TestContractWithTheBareGateway(t *testing.T) {
	suite(func(_ *entrust.Config, server *fake.Server) {
		server.Set(fake.Modes{NoChain: true, NoStatus: true, NoEventData: true, PEM: true, Word: "QUITE_UNHEARD_OF"})
	}).Run(t)
}
