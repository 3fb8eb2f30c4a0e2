package digicert_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/digicert"
	fake "github.com/certctl/certctl/internal/fakeca/digicert"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a connector with a fake; change may be nil.
func fixture(t *testing.T, o connectortest.Options, change func(*digicert.Config)) (*digicert.Connector, *fake.Server) {
	t.Helper()
	server := fake.New(o.Fake)
	config := digicert.Config{
		URL: connectortest.Serve(t, server) + fake.Base, Key: func() (string, error) { return fake.Key, nil }, Product: "ssl_basic",
		Organization: fake.Organization, Format: o.Format, Timeout: o.Timeout, Dial: o.Dial,
	}
	if change != nil {
		change(&config)
	}
	c, err := digicert.New(config)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c, server
}

func suite(change func(*digicert.Config), modes fake.Modes) connectortest.Suite {
	return connectortest.Suite{
		Formats: digicert.Formats,
		New: func(t *testing.T, o connectortest.Options) connectortest.Fixture {
			c, server := fixture(t, o, change)
			server.Set(modes)
			return connectortest.Fixture{Connector: c, Fake: server, Secrets: []string{fake.Key}, Spoil: func() { server.SetKey("another") }}
		},
	}
}

func TestContract(t *testing.T) {
	suite(nil, fake.Modes{}).Run(t)
}
