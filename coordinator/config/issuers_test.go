package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/settings"
)

// canary is a secret that nothing may show.
const canary = "CANARY-b5b1f0-NEVER-SHOWN"

// issuers are the least that each kind needs. ABS stands for an absolute path.
var issuers = map[string]string{
	KindDigiCert:   "digicert: {api_key: " + canary + ", product: ssl_basic}",
	KindEntrust:    "entrust: {url: https://gateway.example.com/cagw, ca: one, profile: tls, client_certificate_file: ABS, client_key: " + canary + "}",
	KindGlobalSign: "globalsign: {api_key: " + canary + ", api_secret: " + canary + ", client_certificate_file: ABS, client_key: " + canary + "}",
	KindSectigo:    "sectigo: {login: admin, customer_uri: example, password: " + canary + ", organization: 1, profile: 2, terms: [90]}",
	KindVault:      "vault: {url: https://vault.example.com:8200, role: web, token: " + canary + "}",
}

func absolute(text string) string {
	path, err := filepath.Abs("/etc/certctl/client.pem")
	if err != nil {
		panic(err)
	}
	return strings.ReplaceAll(text, "ABS", "'"+path+"'")
}

func TestEachKindNeedsLittle(t *testing.T) {
	for kind, text := range issuers {
		s, err := load(t, absolute("issuers:\n  one:\n    "+text+"\n"))
		require.NoError(t, err, kind)
		one := s.Issuers["one"]
		assert.Equal(t, kind, one.Kind())
		assert.Equal(t, IssuerLimits{Rate: 2, Burst: 1, Concurrency: 4, AgentOrders: 200}, one.Limits)
		assert.Zero(t, s.PollBudget(&one), kind)
	}
}

// A wrong setting of an issuer is named with its whole path, in the file with line
// and column.
func TestMistakesInIssuersAreNamed(t *testing.T) {
	const digicert = "{api_key: k, product: p, "
	for text, want := range map[string]string{
		"issuers: {builtin: {digicert: {api_key: k, product: p}}}":     "coordinator.yaml:1:11: issuers.builtin: this name stands for the built-in CA",
		"issuers: {coordinator: {digicert: {api_key: k, product: p}}}": "issuers.coordinator: this name stands for the built-in CA",
		"issuers: {Two_Words: {digicert: {api_key: k, product: p}}}":   `issuers["Two_Words"]: expected a name of 1 to 63 lower-case letters`,
		"issuers: {-a: {digicert: {api_key: k, product: p}}}":          `issuers["-a"]: expected a name`,
		"issuers: {ov: {}}": "issuers.ov: an issuer needs one section that says what it is; expected exactly one of digicert, entrust, globalsign, sectigo and vault",
		"issuers:\n  ov:\n": "coordinator.yaml:2:3: issuers.ov: an issuer needs one section",
		"issuers: {ov: {digicert: " + digicert + "}, " + issuers[KindSectigo] + "}}":                                                           "issuers.ov: an issuer is one account, and here are digicert and sectigo",
		"issuers:\n  ov:\n    digicrt: {}":                                                                                                     `coordinator.yaml:3:5: issuers.ov.digicrt: unknown key; expected`,
		"issuers:\n  ov:\n    digicert:\n      prodct: p":                                                                                      `coordinator.yaml:4:7: issuers.ov.digicert.prodct: unknown key; did you mean "product"?`,
		"issuers:\n  ov:\n    digicert:\n      product: p":                                                                                     "coordinator.yaml:3:5: issuers.ov.digicert.api_key: missing; expected it, or \"api_key_file\"",
		"issuers: {ov: {digicert: {api_key: k}}}":                                                                                              "issuers.ov.digicert.product: missing; expected text",
		"issuers: {ov: {digicert: " + digicert + "url: 'ftp://x'}}}":                                                                           "issuers.ov.digicert.url: cannot use \"ftp://x\"; expected an https URL",
		"issuers: {ov: {digicert: " + digicert + "url: 'http://ca.example'}}}":                                                                 "issuers.ov.digicert.url: cannot use \"http://ca.example\"; expected https, since credentials go there",
		"issuers: {ov: {digicert: " + digicert + "format: zip}}}":                                                                              "issuers.ov.digicert.format: cannot use \"zip\"; expected pem_noroot",
		"issuers: {ov: {digicert: " + digicert + "states: {odd: good}}}}":                                                                      "issuers.ov.digicert.states.odd: cannot use \"good\"; expected pending",
		"issuers: {ov: {digicert: " + digicert + "ca_file: ca.pem}}}":                                                                          "issuers.ov.digicert.ca_file: cannot use \"ca.pem\"; expected an absolute path",
		"issuers: {ov: {digicert: {api_key: k, product: 'a b'}}}":                                                                              "issuers.ov.digicert.product: cannot use \"a b\"",
		"issuers: {ov: {digicert: {api_key: k, product: p}, validity: 1h}}":                                                                    "issuers.ov.validity: cannot use 1h; expected at least 1d for this authority",
		"issuers: {ov: {digicert: {api_key: k, product: p}, validity: 90d, max_validity: 30d}}":                                                "issuers.ov.validity: cannot use 90d; expected at most max_validity, which is 30d",
		"issuers: {ov: {digicert: {api_key: k, product: p}, limits: {rate: 0}}}":                                                               "issuers.ov.limits.rate: cannot use",
		"issuers: {ov: {digicert: {api_key: k, product: p}, chain_file: x}}":                                                                   "issuers.ov.chain_file: cannot use \"x\"; expected an absolute path",
		"issuers: {ov: {digicert: {api_key: k, product: p}, poll_max_wait: -1s}}":                                                              "issuers.ov.poll_max_wait: cannot use",
		"issuers: {ov: {entrust: {url: 'https://g', ca: c, profile: p}}}":                                                                      "issuers.ov.entrust.client_certificate_file: missing",
		"issuers: {ov: {entrust: {url: 'https://g', ca: c}}}":                                                                                  "issuers.ov.entrust.profile: missing",
		"issuers: {ov: {entrust: {url: 'https://g', ca: '', profile: p, client_certificate_file: ABS, client_key: k}}}":                        "issuers.ov.entrust.ca: it is empty",
		"issuers: {ov: {globalsign: {api_key: k, api_secret: s, client_certificate_file: ABS}}}":                                               "issuers.ov.globalsign.client_key: missing; expected it, or \"client_key_file\"",
		"issuers: {ov: {globalsign: {api_key: k, client_certificate_file: ABS, client_key: k}}}":                                               "issuers.ov.globalsign.api_secret: missing",
		"issuers: {ov: {globalsign: {api_key: k, api_secret: s, client_certificate_file: ABS, client_key: k, extended_key_usages: [tls]}}}":    "issuers.ov.globalsign.extended_key_usages[0]: cannot use \"tls\"",
		"issuers: {ov: {globalsign: {api_key: k, api_secret: s, client_certificate_file: ABS, client_key: k, subject: {common_name: x}}}}":     "issuers.ov.globalsign.subject: the common name comes from each order",
		"issuers: {ov: {sectigo: {auth: certificate, login: a, customer_uri: c, organization: 1, profile: 2, terms: [90]}}}":                   "issuers.ov.sectigo.client_certificate_file: missing",
		"issuers: {ov: {sectigo: {auth: oauth2, organization: 1, profile: 2, terms: [90]}}}":                                                   "issuers.ov.sectigo.client_id: missing; an account with auth: oauth2 needs it",
		"issuers: {ov: {sectigo: {login: a, customer_uri: c, password: p, organization: 1, profile: 2, terms: [0]}}}":                          "issuers.ov.sectigo.terms[0]: cannot use 0",
		"issuers: {ov: {sectigo: {login: a, customer_uri: c, password: p, organization: 1, profile: 2, terms: [90], external_requester: me}}}": "issuers.ov.sectigo.external_requester: cannot use \"me\"",
		"issuers: {ov: {sectigo: {login: a, customer_uri: c, organization: 1, profile: 2, terms: [90]}}}":                                      "issuers.ov.sectigo.password: missing; expected it, or \"password_file\"",
		"issuers: {ov: {vault: {role: web, token: t}}}":                                                                                        "issuers.ov.vault.url: missing",
		"issuers: {ov: {vault: {url: 'https://v/v1/', role: web, token: t}}}":                                                                  "issuers.ov.vault.url: cannot use \"https://v/v1/\"; leave out /v1",
		"issuers: {ov: {vault: {url: 'https://v', token: t}}}":                                                                                 "issuers.ov.vault.role: missing",
		"issuers: {ov: {vault: {url: 'https://v', role: a/b, token: t}}}":                                                                      "issuers.ov.vault.role: cannot use \"a/b\"; expected a name",
		"issuers: {ov: {vault: {url: 'https://v', role: web, mount: /pki, token: t}}}":                                                         "issuers.ov.vault.mount: cannot use \"/pki\"; expected a path",
		"issuers: {ov: {vault: {url: 'https://v', role: web, namespace: a/../b, token: t}}}":                                                   "issuers.ov.vault.namespace: cannot use",
		"issuers: {ov: {vault: {url: 'https://v', role: web}}}":                                                                                "issuers.ov.vault.token: missing; expected it, or \"token_file\", or role_id",
		"issuers: {ov: {vault: {url: 'https://v', role: web, token: t, role_id: r}}}":                                                          "issuers.ov.vault.token: give it, or role_id",
		"issuers: {ov: {vault: {url: 'https://v', role: web, role_id: r}}}":                                                                    "issuers.ov.vault.secret_id: missing",
		"issuers: {ov: {vault: {url: 'https://v', role: web, secret_id: r}}}":                                                                  "issuers.ov.vault.role_id: missing",
		"issuers: {ov: {vault: {url: 'https://v', role: web, token: t}, validity: 30s}}":                                                       "issuers.ov.validity: cannot use 30s; expected at least 1m",
		"orders: {poll_max_wait_seconds: 0}":                                                                                                   "orders.poll_max_wait_seconds: cannot use",
	} {
		_, err := load(t, absolute(text))
		require.Error(t, err, text)
		assert.Contains(t, err.Error(), want, text)
	}
	_, err := load(t, "", "CERTCTL_DIGICERT_POLL_MAX_WAIT_SECONDS=10m")
	require.ErrorContains(t, err, "environment CERTCTL_DIGICERT_POLL_MAX_WAIT_SECONDS: cannot use \"10m\"")
	s, err := load(t, "issuers: {ov: {digicert: "+digicert+"url: 'http://127.0.0.1:8080/x', states: {odd: needs_person}}}}")
	require.NoError(t, err)
	assert.Equal(t, map[string]connector.State{"odd": connector.NeedsPerson}, s.Issuers["ov"].DigiCert.States)
}

// The budget of an issuer's orders: its own, then that of its kind.
func TestPollBudget(t *testing.T) {
	for kind, text := range issuers {
		if kind == KindVault { // nothing waits there
			continue
		}
		variable := "CERTCTL_" + strings.ToUpper(kind) + "_POLL_MAX_WAIT_SECONDS=90"
		s, err := load(t, absolute("issuers:\n  one:\n    "+text+"\n  own:\n    poll_max_wait: 2m\n    "+text+"\n"), variable, "CERTCTL_ASYNC_POLL_MAX_WAIT_SECONDS=45")
		require.NoError(t, err, kind)
		one, own := s.Issuers["one"], s.Issuers["own"]
		assert.Equal(t, 90*time.Second, s.PollBudget(&one), kind)
		assert.Equal(t, 2*time.Minute, s.PollBudget(&own), kind)
		assert.Equal(t, 45, s.Orders.PollMaxWait)
		for other, text := range issuers {
			if other == kind {
				continue
			}
			s, err := load(t, absolute("issuers:\n  one:\n    "+text+"\n"), variable)
			require.NoError(t, err, other)
			one := s.Issuers["one"]
			assert.Zero(t, s.PollBudget(&one), "%s is none of %s", other, kind)
		}
	}
}

// No dump of a configuration, and no message about it, shows a secret, wherever it
// came from.
func TestSecretsOfIssuersAreNotShown(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(file, []byte(canary+"\n"), 0o600))
	for kind, text := range issuers {
		for _, text := range []string{text, inFiles(text, file)} {
			var s Settings
			path := filepath.Join(dir, "coordinator.yaml")
			require.NoError(t, os.WriteFile(path, []byte(absolute("issuers:\n  one:\n    "+text+"\n")), 0o600))
			report, err := settings.Load(&s, settings.Options{File: path, FileRequired: true})
			require.NoError(t, err, kind)
			effective, err := settings.Effective(&s)
			require.NoError(t, err)
			assert.Contains(t, string(effective), "[redacted]", kind)
			assert.NotContains(t, string(effective), canary, kind)
			for _, v := range report.Values() {
				assert.NotContains(t, v.Text+v.Origin.String(), canary, v.Path)
			}
		}
		_, err := load(t, absolute("issuers:\n  one:\n    "+strings.ReplaceAll(text, "{", "{ca_file: x, ")+"\n"))
		require.ErrorContains(t, err, "ca_file")
		assert.NotContains(t, err.Error(), canary)
	}
	_, err := load(t, "issuers: {one: {digicert: {product: p, api_key: k, url: 'http://u:"+canary+"@ca.example/'}}}")
	require.ErrorContains(t, err, "issuers.one.digicert.url")
	assert.NotContains(t, err.Error(), canary)
}

// inFiles has the secrets of an issuer come from a file.
func inFiles(text, file string) string {
	for _, field := range []string{"api_key", "api_secret", "password", "client_key", "token"} {
		text = strings.ReplaceAll(text, field+": "+canary, field+"_file: '"+file+"'")
	}
	return text
}
