package issuers_test

import (
	"context"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/issuers"
	"github.com/certctl/certctl/coordinator/issuers/issuerstest"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/digicert"
	"github.com/certctl/certctl/internal/fakeca/globalsign"
	"github.com/certctl/certctl/internal/fakeca/sectigo"
	"github.com/certctl/certctl/internal/fakeca/served"
	"github.com/certctl/certctl/internal/fakeca/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open makes the issuers of a text.
func open(t *testing.T, text string, o issuers.Options, env ...string) (*issuers.Registry, error) {
	t.Helper()
	s, err := issuerstest.Load(t, text, env...)
	require.NoError(t, err, text)
	registry, err := issuers.New(s, o)
	if err == nil {
		t.Cleanup(registry.Close)
	}
	return registry, err
}

// one makes the issuer of a fake.
func one(t *testing.T, s *served.Server, o issuers.Options) *issuers.Issuer {
	t.Helper()
	registry, err := open(t, "issuers:\n  one:\n"+s.Settings("    "), o)
	require.NoError(t, err)
	return registry.Issuer("one")
}

// An issuer of each kind orders by what its settings say, and nothing else.
func TestIssuersOfEachKindOrder(t *testing.T) {
	for _, kind := range served.Kinds() {
		t.Run(kind, func(t *testing.T) {
			fake := issuerstest.Serve(t, kind, fakeca.Config{})
			i := one(t, fake, issuers.Options{})
			assert.Equal(t, kind, i.Kind)
			account, err := i.Test(t.Context())
			require.NoError(t, err)
			assert.NotEmpty(t, account.Facts)
			r, _ := connectortest.Request(t, "www.example.com")
			status, err := i.Connector.Place(t.Context(), r)
			require.NoError(t, err)
			if status.Bundle == nil {
				status, err = i.Connector.Status(t.Context(), r, status.Handle)
				require.NoError(t, err)
				require.Equal(t, connector.Issued, status.State)
			}
			bundle := status.Bundle
			if bundle == nil {
				bundle, err = i.Connector.Collect(t.Context(), r, status.Handle)
				require.NoError(t, err)
			}
			_, err = connectortest.Check(t, i.Connector, r, bundle)
			require.NoError(t, err)
			assert.Len(t, fake.Fake.Core().Ledger(nil), 1)
		})
	}
}

// A secret whose file has changed is the new one at the next request, and nothing is
// started anew.
func TestCredentialsAreReadAnew(t *testing.T) {
	for kind, spoil := range map[string]struct {
		file  string
		spoil func(s fakeca.Server, text string)
	}{
		config.KindDigiCert:   {"api_key_file", func(s fakeca.Server, text string) { s.(*digicert.Server).SetKey(text) }},
		config.KindSectigo:    {"password_file", func(s fakeca.Server, text string) { s.(*sectigo.Server).SetPassword(text) }},
		config.KindVault:      {"token_file", func(s fakeca.Server, text string) { s.(*vault.Server).SetToken(text) }},
		config.KindGlobalSign: {"api_secret_file", func(s fakeca.Server, text string) { s.(*globalsign.Server).SetSecret(text) }},
	} {
		t.Run(kind, func(t *testing.T) {
			fake := issuerstest.Serve(t, kind, fakeca.Config{})
			i := one(t, fake, issuers.Options{})
			_, err := i.Test(t.Context())
			require.NoError(t, err)
			const fresh = "another-one-of-their-secrets"
			spoil.spoil(fake.Fake, fresh)
			_, err = i.Test(t.Context())
			refused := connector.Classify(err)
			require.Equal(t, connector.ClassCredentials, refused.Class, "%v", err)
			require.NoError(t, os.WriteFile(fake.Setting(spoil.file), []byte(fresh+"\n"), 0o600))
			_, err = i.Test(t.Context())
			require.NoError(t, err)
			require.NoError(t, os.Remove(fake.Setting(spoil.file)))
			_, err = i.Test(t.Context())
			if kind != config.KindGlobalSign { // whose token is still good
				refused = connector.Classify(err)
				require.Equal(t, connector.ClassCredentials, refused.Class, "%v", err)
				assert.True(t, refused.NotPlaced)
				assert.ErrorContains(t, err, fake.Setting(spoil.file))
			}
		})
	}
}

// A client certificate that has changed is shown by the next connection; one that has
// ended, or does not go with its key, is shown to nobody, and says why.
func TestClientCertificatesAreReadAnew(t *testing.T) {
	for _, kind := range []string{config.KindEntrust, config.KindGlobalSign} {
		t.Run(kind, func(t *testing.T) {
			fake := issuerstest.Serve(t, kind, fakeca.Config{})
			now := time.Now()
			i := one(t, fake, issuers.Options{Now: func() time.Time { return now }})
			account, err := i.Test(t.Context())
			require.NoError(t, err)
			assert.Contains(t, account.Facts[len(account.Facts)-1].Name, "client certificate")
			assert.NotContains(t, strings.Join(account.Warnings, "\n"), "client certificate")

			certFile, keyFile := fake.Setting("client_certificate_file"), fake.Setting("client_key_file")
			good := map[string][]byte{}
			for _, file := range []string{certFile, keyFile} {
				good[file], err = os.ReadFile(file)
				require.NoError(t, err)
			}
			anew := func() (*connector.Account, error) {
				i.Connector.(interface{ Close() }).Close() // its idle connections
				return i.Test(t.Context())
			}
			// Of another client, whom the fake does not know.
			require.NoError(t, served.WriteClient(certFile, keyFile, fakeca.ClientCertificate("other", big.NewInt(77), time.Now())))
			_, err = anew()
			require.Equal(t, connector.ClassCredentials, connector.Classify(err).Class, "%v", err)
			// Half of a change.
			require.NoError(t, os.WriteFile(certFile, good[certFile], 0o600))
			_, err = anew()
			require.Equal(t, connector.ClassCredentials, connector.Classify(err).Class, "%v", err)
			assert.ErrorContains(t, err, "the client certificate: "+certFile)
			assert.NotContains(t, err.Error(), "BEGIN")
			require.NoError(t, os.WriteFile(keyFile, good[keyFile], 0o600))
			_, err = anew()
			require.NoError(t, err)

			now = now.AddDate(1, 0, -20)
			account, err = anew()
			require.NoError(t, err)
			assert.Contains(t, strings.Join(account.Warnings, "\n"), "the client certificate in "+certFile+" expires at")
			now = now.AddDate(0, 0, 30)
			_, err = anew()
			refused := connector.Classify(err)
			assert.Equal(t, connector.ClassCredentials, refused.Class, "%v", err)
			assert.True(t, refused.NotPlaced)
			assert.ErrorContains(t, err, "expired at")
		})
	}
}

// A file that cannot be used is named by its setting, and all of them at once.
func TestFilesThatCannotBeUsedAreNamed(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "odd")
	require.NoError(t, os.WriteFile(odd, []byte("no certificate"), 0o600))
	huge := filepath.Join(dir, "huge")
	require.NoError(t, os.WriteFile(huge, make([]byte, 1<<20+1), 0o600))
	quoted := func(path string) string { return "'" + path + "'" }
	_, err := open(t, "issuers:\n"+
		"  a: {digicert: {api_key: k, product: p, ca_file: "+quoted(odd)+"}}\n"+
		"  b: {digicert: {api_key: k, product: p}, chain_file: "+quoted(filepath.Join(dir, "absent"))+"}\n"+
		"  c: {entrust: {url: 'https://g.example', ca: c, profile: p, client_certificate_file: "+quoted(odd)+", client_key: CANARY-KEY}}\n"+
		"  d: {digicert: {api_key: k, product: p}, chain_file: "+quoted(huge)+"}\n", issuers.Options{})
	require.Error(t, err)
	for _, says := range []string{
		"issuers.a.digicert.ca_file: " + odd + " holds no certificate",
		"issuers.b.chain_file: open ",
		"issuers.c.entrust.client_certificate_file: " + odd,
		"issuers.d.chain_file: " + huge + " is larger than",
	} {
		assert.ErrorContains(t, err, says)
	}
	assert.NotContains(t, err.Error(), "CANARY-KEY")
	located, ok := errors.AsType[*issuers.Error](err)
	require.True(t, ok)
	assert.Equal(t, "issuers.a.digicert.ca_file", located.Path)
}

// The budget of an issuer: its own, else its kind's, else everybody's, else ten
// minutes; each from where an operator says it.
func TestBudgets(t *testing.T) {
	t.Cleanup(func() { asyncpoll.SetDefaultMaxWait(0) })
	for _, kind := range served.Kinds() {
		fake := issuerstest.Serve(t, kind, fakeca.Config{})
		section := fake.Settings("    ")
		text := "issuers:\n  plain:\n" + section + "  own:\n    poll_max_wait: 90s\n" + section
		all := "CERTCTL_ASYNC_POLL_MAX_WAIT_SECONDS=45"
		kinds := "CERTCTL_" + strings.ToUpper(kind) + "_POLL_MAX_WAIT_SECONDS=30"
		for _, c := range []struct {
			env        []string
			plain, own time.Duration
		}{
			{nil, 10 * time.Minute, 90 * time.Second},
			{[]string{all}, 45 * time.Second, 90 * time.Second},
			{[]string{kinds}, 30 * time.Second, 90 * time.Second},
			{[]string{kinds, all}, 30 * time.Second, 90 * time.Second},
		} {
			if served.AtOnce(kind) && slices.Contains(c.env, kinds) {
				continue // nothing waits there, and it has no budget of its own
			}
			registry, err := open(t, text, issuers.Options{}, c.env...)
			require.NoError(t, err)
			assert.Equal(t, c.plain, registry.Issuer("plain").Budget(), "%s %v", kind, c.env)
			assert.Equal(t, c.own, registry.Issuer("own").Budget(), "%s %v", kind, c.env)
			found, ok := registry.Known("own")
			assert.True(t, ok)
			assert.Equal(t, kind, found)
			_, ok = registry.Known("other")
			assert.False(t, ok)
			assert.Len(t, registry.All(), 2)
		}
	}
}

// No error of an account shows a secret, whatever a proxy sends back.
func TestErrorsShowNoSecret(t *testing.T) {
	for _, kind := range served.Kinds() {
		fake := issuerstest.Serve(t, kind, fakeca.Config{})
		i := one(t, fake, issuers.Options{})
		var secrets []string
		for _, file := range fake.Secrets() {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			secrets = append(secrets, strings.TrimSpace(string(text)))
		}
		require.NotEmpty(t, secrets)
		for _, fault := range []fakeca.Kind{fakeca.Page, fakeca.Refuse, fakeca.Dropped, fakeca.PageAfter} {
			fake.Fake.Core().Script(fakeca.Any, fakeca.Repeat(5, fakeca.Fault{Kind: fault})...)
			_, err := i.Test(context.Background())
			fake.Fake.Core().Forget()
			require.Error(t, err, "%s %s", kind, fault)
			for _, secret := range secrets {
				assert.NotContains(t, err.Error(), secret, "%s %s", kind, fault)
			}
		}
	}
}
