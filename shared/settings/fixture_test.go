package settings_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certctl/certctl/shared/settings"
	"github.com/stretchr/testify/require"
)

// daemon uses every kind of setting.
type daemon struct {
	StateDir string            `yaml:"state_dir" env:"CERTCTL_T_STATE_DIR" default:"/var/lib/t" default_windows:"C:\\ProgramData\\t" doc:"Directory of the state."`
	LogLevel string            `yaml:"log_level" env:"CERTCTL_T_LOG_LEVEL" default:"info" oneof:"debug|info|warn|error" doc:"Least level | that is logged."`
	Verbose  bool              `yaml:"verbose" env:"CERTCTL_T_VERBOSE" default:"false" doc:"Say more."`
	Listen   netip.Addr        `yaml:"listen" env:"CERTCTL_T_LISTEN" default:"127.0.0.1" doc:"Address to listen on."`
	Name     string            `yaml:"name" env:"CERTCTL_T_NAME" min:"1" max:"16" example:"web1" doc:"Name of the host."`
	Tags     []string          `yaml:"tags" env:"CERTCTL_T_TAGS" default:"a,b" max:"3" doc:"Words about the host."`
	Peers    []netip.Addr      `yaml:"peers" env:"CERTCTL_T_PEERS" doc:"Other hosts."`
	Labels   labels            `yaml:"labels" env:"CERTCTL_T_LABELS" doc:"Facts about the host."`
	Renewal  renewal           `yaml:"renewal" doc:"How renewals are paced."`
	Server   server            `yaml:"server" doc:"The coordinator."`
	Acme     *acme             `yaml:"acme" doc:"An ACME issuer."`
	Certs    []certificate     `yaml:"certificates" max:"3" doc:"What is kept valid."`
	Issuers  map[string]issuer `yaml:"issuers" doc:"Issuers by name."`
	Common   `yaml:",inline"`
	Hidden   string `yaml:"-"`
}

// Common is inlined.
type Common struct {
	Proxy string `yaml:"proxy" env:"CERTCTL_T_PROXY" default:"" doc:"Proxy to use."`
}

type labels map[string]string

type renewal struct {
	Concurrency int           `yaml:"concurrency" env:"CERTCTL_T_CONCURRENCY" default:"25" min:"1" max:"1000" doc:"Renewals at once."`
	Tick        time.Duration `yaml:"tick_interval" env:"CERTCTL_T_TICK" default:"5s" min:"100ms" max:"30d" doc:"Pause between looks."`
	Ratio       float64       `yaml:"ratio" env:"CERTCTL_T_RATIO" default:"0.67" min:"0" max:"1" doc:"Part of the lifetime."`
	Small       int8          `yaml:"small" default:"3" doc:"A narrow number."`
	Count       uint64        `yaml:"count" doc:"A counter."`
	Wide        int64         `yaml:"wide" default:"-9223372036854775808" doc:"A wide number."`
}

func (r renewal) Validate(report func(string, error)) {
	if r.Concurrency == 13 {
		report("concurrency", errors.New("cannot use 13; expected a lucky number"))
	}
	if r.Count > uint64(r.Concurrency) {
		report("", errors.New("count is above concurrency"))
	}
}

type server struct {
	URL   string          `yaml:"url" env:"CERTCTL_T_URL" required:"true" example:"https://coordinator.example.com" doc:"Where it is."`
	Token settings.Secret `yaml:"token" env:"CERTCTL_T_TOKEN" min:"4" doc:"Enrolment token."`
}

type acme struct {
	Directory string          `yaml:"directory" env:"CERTCTL_T_ACME" required:"true" example:"https://acme.example.com/dir" doc:"Directory URL."`
	Timeout   time.Duration   `yaml:"timeout" default:"30s" unit:"d" doc:"Time limit."`
	HMAC      settings.Secret `yaml:"hmac" doc:"External account key."`
}

type certificate struct {
	Names  []string        `yaml:"names" required:"true" min:"1" example:"web1.example.com" doc:"Names."`
	Key    string          `yaml:"key" default:"ecdsa-p256" oneof:"ecdsa-p256|rsa-2048" doc:"Key algorithm."`
	Hook   []hook          `yaml:"hooks" doc:"Commands."`
	Secret settings.Secret `yaml:"password" doc:"Password."`
}

func (c *certificate) Validate(report func(string, error)) {
	for i, name := range c.Names {
		if strings.HasSuffix(name, ".invalid") {
			report(fmt.Sprintf("names[%d]", i), fmt.Errorf("name %s is reserved", name))
		}
	}
}

type hook struct {
	Argv []string `yaml:"argv" doc:"Program and arguments."`
}

type issuer struct {
	URL string        `yaml:"url" required:"true" example:"https://ca.example.com" doc:"Address."`
	TTL time.Duration `yaml:"ttl" default:"1d12h" doc:"Lifetime."`
}

// write puts a configuration into a file and returns its path.
func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "t.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// loadText loads a daemon from a YAML text.
func loadText(t testing.TB, text string, env ...string) (daemon, *settings.Report, error) {
	t.Helper()
	var d daemon
	report, err := settings.Load(&d, settings.Options{File: write(t, text), Env: env})
	return d, report, err
}

// messages is the text of an error with the directory of the file cut off.
func messages(t testing.TB, report *settings.Report, err error) string {
	t.Helper()
	require.Error(t, err)
	require.NotNil(t, report)
	var e *settings.Error
	require.ErrorAs(t, err, &e)
	var lines []string
	for _, p := range e.Problems {
		if p.Origin.File != "" {
			p.Origin.File = filepath.Base(p.Origin.File)
		}
	}
	lines = append(lines, e.Error())
	return strings.Join(lines, "\n")
}

// overwrite replaces a file between the rounds of a property.
func overwrite(t testing.TB, path string, text []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, text, 0o600))
}
