package config

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/settings"
)

func load(t *testing.T, text string, env ...string) (*Settings, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "agent.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	var s Settings
	_, err := settings.Load(&s, settings.Options{File: file, FileRequired: true, Env: env})
	return &s, err
}

const whole = `
renewal:
  concurrency: 3
issuers:
  public:
    acme:
      directory: https://acme.example/directory
      email: [pki@example.com]
      terms_agreed: true
certificates:
  - name: www
    names: [WWW.example.com]
    issuer: public
    key: rsa-2048
    lifetime: 30d
    deployments:
      - files:
          fullchain: /etc/nginx/tls/www.pem
          key: /etc/nginx/tls/www.key
          key_mode: 0640
        check: [nginx, -t]
        reload: [systemctl, reload, nginx]
        verify: {address: "127.0.0.1:443"}
  - name: internal
    names: [db.internal.example, 10.0.0.7]
`

func TestMetrics(t *testing.T) {
	s, err := load(t, "metrics: {listen: '127.0.0.1:9464'}\n", "CERTCTL_METRICS_TEXTFILE="+filepath.Join(t.TempDir(), "certctl.prom"))
	require.NoError(t, err)
	assert.Equal(t, "127.0.0.1:9464", s.Metrics.Listen)
	assert.Equal(t, time.Minute, s.Metrics.TextFileInterval)
	for text, says := range map[string]string{
		"metrics: {listen: '9464'}":                                              "metrics.listen: ",
		"metrics: {textfile: certctl.prom}":                                      "expected an absolute path",
		"metrics: {textfile_interval: 1s}":                                       "metrics.textfile_interval: ",
		"metrics: {textfile: " + filepath.Join(t.TempDir(), "certctl.txt") + "}": "ends in .prom",
	} {
		_, err := load(t, text)
		assert.ErrorContains(t, err, says, text)
	}
}

func TestAWholeFileIsRead(t *testing.T) {
	s, err := load(t, whole, "CERTCTL_RENEWAL_CONCURRENCY=7")
	require.NoError(t, err)
	assert.Equal(t, 7, s.Renewal.Concurrency, "the environment replaces the file")
	assert.Equal(t, 5*time.Second, s.Renewal.TickInterval)
	require.Len(t, s.Certificates, 2)
	www := s.Certificates[0]
	assert.Equal(t, pki.RSA2048, www.Key)
	assert.Equal(t, 30*24*time.Hour, www.Lifetime)
	assert.Equal(t, "1", www.Deployments[0].IDAt(0))
	assert.Equal(t, managed.FileMode(0o640), www.Deployments[0].Files.KeyMode)
	assert.Equal(t, managed.FileMode(0), www.Deployments[0].Files.Mode)
	assert.Equal(t, 10*time.Second, www.Deployments[0].Verify.Patience)
	assert.Equal(t, CoordinatorIssuer, s.Certificates[1].Issuer)
	assert.Equal(t, filepath.Join(s.StateDir, "keys"), s.Keys())
}

func TestBudgetOfAnIssuer(t *testing.T) {
	s, err := load(t, `
issuers:
  public: {acme: {directory: "https://a.example/d", terms_agreed: true}}
  private: {acme: {directory: "https://b.example/d", terms_agreed: true, ca_file: /etc/roots.pem}}
  chosen: {acme: {directory: "https://c.example/d", terms_agreed: true}, limits: {orders_per_hour: 5, burst: 2, concurrency: 1}}
`)
	require.NoError(t, err)
	for name, want := range map[string]int{"public": 100, "private": 0, "chosen": 5} {
		iss := s.Issuers[name]
		assert.Equal(t, want, iss.Budget(), name)
	}
	assert.Equal(t, Limits{OrdersPerHour: 5, Burst: 2, Concurrency: 1}, s.Issuers["chosen"].Limits)
}

// Mistakes at one place hide none at another, and each is told once.
func TestAllMistakesAreTold(t *testing.T) {
	_, err := load(t, `certificates:
  - name: a
    names: [a.example.com, b c, x_y, b/../c]
    deployments:
      - {id: x, files: {combined: /x/a.pem}}
      - {id: x, files: {combined: /x/b.pem}}
  - name: a
    names: [b.example.com]
    issuer: nix
  - name: c
    names: [c.example.com]
    deployments: [{files: {combined: c.pem}}]
`)
	var all *settings.Error
	require.ErrorAs(t, err, &all)
	var paths []string
	for _, problem := range all.Problems {
		paths = append(paths, problem.Path)
	}
	assert.Equal(t, []string{
		"certificates[0].names[1]", "certificates[0].names[2]", "certificates[0].names[3]",
		"certificates[0].deployments[1].id", "certificates[1].name", "certificates[1].issuer",
		"certificates[2].deployments[0].files.combined",
	}, paths)
}

// Each mistake is one error that names file, line, column, field and mend.
func TestMistakesAreNamed(t *testing.T) {
	const issuer = "issuers: {le: {acme: {directory: 'https://a.example/d', terms_agreed: true}}}\n"
	for name, tt := range map[string]struct{ text, want string }{
		"misspelt key":        {"renewal:\n  concurency: 3\n", `agent.yaml:2:3: renewal.concurency: unknown key`},
		"did you mean":        {"renewal:\n  concurency: 3\n", `did you mean "concurrency"?`},
		"relative state":      {"state_dir: var/x\n", `agent.yaml:1:12: state_dir: cannot use "var/x"; expected an absolute path`},
		"unknown issuer":      {issuer + "certificates: [{name: a, names: [a.example.com], issuer: lee}]\n", `there is no issuer "lee"; expected one of: coordinator, coordinator/NAME, le`},
		"misnamed brokered":   {issuer + "certificates: [{name: a, names: [a.example.com], issuer: coordinator/DigiCert}]\n", `certificates[0].issuer: cannot use "coordinator/DigiCert"; expected coordinator/ and the name of an issuer in the coordinator's settings`},
		"brokered's own":      {"issuers: {coordinator/le: {acme: {directory: \"https://ca.example.com/\", terms_agreed: true}}}\n", `issuers["coordinator/le"]: names that begin so stand for issuers of the coordinator's settings`},
		"unknown fallback":    {issuer + "certificates: [{name: a, names: [a.example.com], issuer: le, fallback_issuers: [zero]}]\n", `certificates[0].fallback_issuers[0]: there is no issuer "zero"; expected one of: coordinator, coordinator/NAME, le`},
		"fallback twice":      {issuer + "certificates: [{name: a, names: [a.example.com], issuer: le, fallback_issuers: [coordinator, le]}]\n", `certificates[0].fallback_issuers[1]: issuer "le" is asked already`},
		"fallback, wildcard":  {issuer + "certificates: [{name: a, names: ['*.example.com'], fallback_issuers: [le]}]\n", `the wildcard *.example.com needs an issuer whose challenge is dns-01`},
		"reserved issuer":     {"issuers: {coordinator: {acme: {directory: 'https://a.example/d', terms_agreed: true}}}\n", "stands for the coordinator's built-in CA"},
		"long issuer":         {"issuers: {" + strings.Repeat("x", 129) + ": {acme: {directory: 'https://a.example/d', terms_agreed: true}}}\n", "expected a name of 1 to 128 characters"},
		"empty issuer":        {"issuers: {le: {}}\n", "an issuer needs a section that says what it is"},
		"wildcard over http":  {issuer + "certificates: [{name: a, names: ['*.example.com'], issuer: le}]\n", "needs an issuer whose challenge is dns-01"},
		"bad name":            {"certificates: [{name: a, names: ['exa mple.com']}]\n", "certificates[0].names"},
		"twice the same name": {"certificates: [{name: a, names: [a.example.com]}, {name: a, names: [b.example.com]}]\n", `"a" is the name of certificates[0] already`},
		"two for one file":    {"certificates: [{name: a, names: [a.example.com], deployments: [{files: {combined: /x/a.pem}}]}, {name: b, names: [b.example.com], deployments: [{files: {combined: /x/./a.pem}}]}]\n", "every file belongs to one deployment"},
		"allow_verify":        {"assignments: {allow_verify: ['10.0.0.0/24', '10.0.0.7']}\n", "assignments.allow_verify[1]: cannot use \"10.0.0.7\"; expected host:port"},
		"no files":            {"certificates: [{name: a, names: [a.example.com], deployments: [{id: x}]}]\n", "no file to write"},
		"open key":            {"certificates: [{name: a, names: [a.example.com], deployments: [{files: {key: /x/a.key, key_mode: 0644}}]}]\n", "lets everybody on this host use the private key"},
		"mode":                {"certificates: [{name: a, names: [a.example.com], deployments: [{files: {key: /x/a.key, mode: rw}}]}]\n", `cannot use "rw": want octal digits such as 0640, or keep; expected a file mode`},
		"directory and file":  {"certificates: [{name: a, names: [a.example.com], deployments: [{files: {directory: /x/a, key: /x/k}}]}]\n", "cannot be combined"},
		"empty verify":        {"certificates: [{name: a, names: [a.example.com], deployments: [{files: {key: /x/a.key}, verify: {patience: 3s}}]}]\n", "expected an address or a command"},
		"verify port":         {"certificates: [{name: a, names: [a.example.com], deployments: [{files: {key: /x/a.key}, verify: {address: localhost}}]}]\n", "expected host:port"},
		"terms":               {"issuers: {le: {acme: {directory: 'https://a.example/d'}}}\n", "agree to them"},
		"http directory":      {"issuers: {le: {acme: {directory: 'http://a.example/d', terms_agreed: true}}}\n", "expected an https URL"},
		"dns without how":     {"issuers: {le: {acme: {directory: 'https://a.example/d', terms_agreed: true, challenge: dns-01}}}\n", "expected exactly one of exec and rfc2136"},
		"dns waits too long":  {"issuers: {le: {acme: {directory: 'https://a.example/d', terms_agreed: true, challenge: dns-01, dns_01: {propagation_wait: 1h, exec: {command: [/x]}}}}}\n", "as long as a whole attempt"},
		"half a tsig":         {"issuers: {le: {acme: {directory: 'https://a.example/d', terms_agreed: true, challenge: dns-01, dns_01: {rfc2136: {server: 'ns:53', tsig_key_name: k}}}}}\n", "expected tsig_key_name and tsig_secret together"},
		"eab without key":     {"issuers: {le: {acme: {directory: 'https://a.example/d', terms_agreed: true, eab: {key_id: x}}}}\n", "expected hmac_key or hmac_key_file"},
		"key algorithm":       {"certificates: [{name: a, names: [a.example.com], key: rsa-1024}]\n", `certificates[0].key: cannot use "rsa-1024": want one of ecdsa-p256, `},
		"key policy":          {"certificates: [{name: a, names: [a.example.com], key_policy: keep}]\n", "certificates[0].key_policy"},
		"negative budget":     {"issuers: {le: {acme: {directory: 'https://a.example/d', terms_agreed: true}, limits: {orders_per_hour: -1}}}\n", "issuers.le.limits.orders_per_hour"},
		"mail":                {"issuers: {le: {acme: {directory: 'https://a.example/d', terms_agreed: true, email: [me]}}}\n", "not an e-mail address"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tt.text)
			require.Error(t, err)
			assert.Contains(t, err.Error(), tt.want)
			assert.Regexp(t, `agent\.yaml:\d+:\d+: `, err.Error())
		})
	}
}

// Two certificates that reach one file by different paths would overwrite each
// other's.
func TestOneFileByTwoPaths(t *testing.T) {
	dir := t.TempDir()
	actual, other := filepath.Join(dir, "Real"), filepath.Join(dir, "real")
	require.NoError(t, os.Mkdir(actual, 0o700))
	if runtime.GOOS != "windows" { // where case makes no difference, and links need a privilege
		require.NoError(t, os.Symlink(actual, other))
	}
	text := fmt.Sprintf("certificates:\n- {name: a, names: [a.example.com], deployments: [{files: {combined: '%s'}}]}\n- {name: b, names: [b.example.com], deployments: [{files: {combined: '%%s'}}]}\n", filepath.Join(actual, "x.pem"))
	_, err := load(t, fmt.Sprintf(text, filepath.Join(other, "x.pem")))
	assert.ErrorContains(t, err, `certificates[1].deployments[0].files.combined: `)
	assert.ErrorContains(t, err, `x.pem is written by certificate "a" already; every file belongs to one deployment`)
	_, err = load(t, fmt.Sprintf(text, filepath.Join(other, "y.pem")))
	assert.NoError(t, err)
}
