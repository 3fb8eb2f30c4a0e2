package settings_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certctl/certctl/shared/settings"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const fullYAML = `# everything
state_dir: /srv/t
log_level: warn
verbose: true
listen: "::1"
name: web1
tags: [x, "y z"]
peers:
  - 10.0.0.1
  - 10.0.0.2
labels: {site: a, rack.row: b}
renewal:
  concurrency: 0x10
  tick_interval: 1d12h
  ratio: 1e-1
  small: -4
server:
  url: https://c
  token: |
    abcdef
acme:
  directory: https://acme
certificates:
  - names: [a, b]
    hooks:
      - argv: [nginx, -t]
  - names:
      - c
    key: rsa-2048
    password: pw
issuers:
  ca:
    url: https://ca
  "my ca": {url: https://my, ttl: 30d}
proxy: p
`

func TestLoadFile(t *testing.T) {
	d, report, err := loadText(t, fullYAML)
	require.NoError(t, err)
	assert.True(t, report.FileRead())
	assert.Empty(t, report.Warnings())
	want := daemon{
		StateDir: "/srv/t", LogLevel: "warn", Verbose: true, Listen: netip.MustParseAddr("::1"), Name: "web1",
		Tags: []string{"x", "y z"}, Peers: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")},
		Labels:  labels{"site": "a", "rack.row": "b"},
		Renewal: renewal{Concurrency: 16, Tick: 36 * time.Hour, Ratio: 0.1, Small: -4, Wide: -1 << 63},
		Server:  server{URL: "https://c", Token: settings.NewSecret("abcdef\n")},
		Acme:    &acme{Directory: "https://acme", Timeout: 30 * time.Second},
		Certs: []certificate{
			{Names: []string{"a", "b"}, Key: "ecdsa-p256", Hook: []hook{{Argv: []string{"nginx", "-t"}}}},
			{Names: []string{"c"}, Key: "rsa-2048", Secret: settings.NewSecret("pw")},
		},
		Issuers: map[string]issuer{"ca": {URL: "https://ca", TTL: 36 * time.Hour}, "my ca": {URL: "https://my", TTL: 720 * time.Hour}},
		Common:  Common{Proxy: "p"},
	}
	assert.Equal(t, want, d)
}

func TestLaterSourceWins(t *testing.T) {
	path := write(t, "name: file\nlog_level: warn\ntags: [f, g]\nserver: {url: u, token: from-file}\n")
	var d daemon
	report, err := settings.Load(&d, settings.Options{
		File:     path,
		Env:      []string{"CERTCTL_T_NAME=env", "CERTCTL_T_TAGS=e, f", "CERTCTL_T_ACME=https://acme", "CERTCTL_T_TOKEN=old", "CERTCTL_T_TOKEN=from-env", "HOME=/x", "CERTCTL_T_LABELS=a=1, b=x=y"},
		Flags:    map[string]string{"name": "flag", "renewal.tick_interval": "90s"},
		KnownEnv: []string{"CERTCTL_OTHER"},
	})
	require.NoError(t, err)
	assert.Equal(t, "flag", d.Name)
	assert.Equal(t, "warn", d.LogLevel)
	assert.Equal(t, []string{"e", "f"}, d.Tags, "a list replaces a list")
	assert.Equal(t, "from-env", d.Server.Token.Reveal())
	assert.Equal(t, 90*time.Second, d.Renewal.Tick)
	assert.Equal(t, &acme{Directory: "https://acme", Timeout: 30 * time.Second}, d.Acme, "a variable brings its optional section with the defaults")
	assert.Equal(t, labels{"a": "1", "b": "x=y"}, d.Labels)

	assert.Equal(t, "flag name", report.Position("name"))
	assert.Equal(t, path+":2:12", report.Position("log_level"))
	assert.Equal(t, "environment CERTCTL_T_TAGS", report.Position("tags"))
	assert.Equal(t, "environment CERTCTL_T_TAGS", report.Position("tags[0]"), "the file's place of an element is gone")
	assert.Equal(t, path+":4:1", report.Position("server.unknown"))
	assert.Empty(t, report.Position("state_dir"))
	assert.Equal(t, settings.SourceDefault, report.Origin("state_dir").Source)
	assert.Equal(t, path+":2:12: log_level: too loud", report.Problem("log_level", errors.New("too loud")).Error())
}

func TestValuesExplainEverySetting(t *testing.T) {
	_, report, err := loadText(t, "certificates:\n- {names: [a, b], password: p}\nissuers: {my ca: {url: u}}\nserver: {url: u, token: abcd}\n", "CERTCTL_T_VERBOSE=true")
	require.NoError(t, err)
	var lines []string
	for _, v := range report.Values() {
		v.Origin.File = filepath.Base(v.Origin.File)
		lines = append(lines, fmt.Sprintf("%s=%s (%s)", v.Path, v.Text, v.Origin))
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{
		"log_level=info (default)", "verbose=true (environment CERTCTL_T_VERBOSE)", "tags=a,b (default)",
		"server.token=[redacted] (t.yaml:4:25)", "certificates[0].names=a,b (t.yaml:2:4)",
		"certificates[0].key=ecdsa-p256 (default)", "certificates[0].password=[redacted] (t.yaml:2:29)",
		`issuers["my ca"].ttl=1d12h (default)`, "proxy= (default)",
	} {
		assert.Contains(t, lines, want, text)
	}
	assert.NotContains(t, text, "acme.", "an optional section that is off has no settings")
}

func TestErrorLeavesDestinationAlone(t *testing.T) {
	before := daemon{Name: "before", Tags: []string{"kept"}}
	d := before
	_, err := settings.Load(&d, settings.Options{Flags: map[string]string{"name": "after", "verbose": "maybe"}})
	require.Error(t, err)
	assert.Equal(t, before, d)
}

func TestLoadStartsFromZero(t *testing.T) {
	d := daemon{Peers: []netip.Addr{{}}, Acme: &acme{}}
	_, err := settings.Load(&d, settings.Options{Flags: map[string]string{"server.url": "u"}})
	require.NoError(t, err)
	assert.Empty(t, d.Peers)
	assert.Nil(t, d.Acme)
}

func TestEmptyFileAndEmptyKeys(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "\ufeff# bom\n", "renewal:\ntags:\nlabels:\ncertificates:\nacme:\n", "renewal:\r\n  # off\r\ntags:\r\n"} {
		d, _, err := loadText(t, text, "CERTCTL_T_URL=u")
		require.NoError(t, err, "%q", text)
		assert.Equal(t, 25, d.Renewal.Concurrency)
		assert.Equal(t, []string{"a", "b"}, d.Tags)
		assert.Nil(t, d.Acme)
	}
	d, _, err := loadText(t, "tags: []\nacme: {directory: d}\n", "CERTCTL_T_URL=u")
	require.NoError(t, err)
	assert.Empty(t, d.Tags)
	assert.NotNil(t, d.Acme)
}

func TestTabsInsideTexts(t *testing.T) {
	d, _, err := loadText(t, "proxy: |\n  a\n  \tb\tc\nname: \"a\n  \tb\"\nserver: {url: u}\n")
	require.NoError(t, err)
	assert.Equal(t, "a\n\tb\tc\n", d.Proxy)
	assert.Equal(t, "a b", d.Name)
}

func TestMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	var d daemon
	flags := map[string]string{"server.url": "u"}
	report, err := settings.Load(&d, settings.Options{File: path, Flags: flags})
	require.NoError(t, err)
	assert.False(t, report.FileRead())

	_, err = settings.Load(&d, settings.Options{File: path, FileRequired: true, Flags: flags})
	require.ErrorIs(t, err, fs.ErrNotExist)
	assert.True(t, strings.HasPrefix(err.Error(), path+": cannot read the configuration file: open "+path+": "), err.Error())
}

func TestFileTooLarge(t *testing.T) {
	path := write(t, strings.Repeat("# padding\n", 12<<20/10+1))
	_, err := settings.Load(&daemon{}, settings.Options{File: path, Flags: map[string]string{"server.url": "u"}})
	require.EqualError(t, err, path+": cannot read the configuration file: "+path+" is larger than 12288 KiB")
}

func TestDirectoryAsFile(t *testing.T) {
	_, err := settings.Load(&daemon{}, settings.Options{File: t.TempDir()})
	require.ErrorContains(t, err, "cannot read the configuration file: ")
	require.NotContains(t, err.Error(), "missing", "what an unreadable file would have set is not known")
}

func TestProblemsAreSortedAndBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString("renewal: {small: x}\n")
	for i := range 60 {
		fmt.Fprintf(&text, "unknown_%d: 1\n", i)
	}
	_, report, err := loadText(t, text.String(), "CERTCTL_T_VERBOSE=maybe", "CERTCTL_T_NAME=")
	var e *settings.Error
	require.ErrorAs(t, err, &e)
	assert.Len(t, e.Problems, 50)
	assert.Equal(t, 14, e.Omitted)
	lines := strings.Split(messages(t, report, err), "\n")
	assert.Equal(t, `t.yaml:1:18: renewal.small: cannot use "x"; expected a whole number from -128 to 127`, lines[0])
	assert.Equal(t, "t.yaml:50:1: unknown_48: unknown key", lines[49])
	assert.Equal(t, "and 14 more problems", lines[50])

	_, report, err = loadText(t, "zzz: 1\n", "CERTCTL_T_VERBOSE=maybe", "CERTCTL_T_LISTEN=x")
	assert.Equal(t, `t.yaml:1:1: zzz: unknown key
environment CERTCTL_T_LISTEN: cannot use "x": ParseAddr("x"): unable to parse IP; expected an IP address
environment CERTCTL_T_VERBOSE: cannot use "maybe"; expected true or false
server.url: missing; expected text; set server.url in the configuration file or CERTCTL_T_URL in the environment`, messages(t, report, err))
}

func TestLargeFileIsReadInReasonableTime(t *testing.T) {
	var text strings.Builder
	text.WriteString("server: {url: u}\npeers:\n")
	for range 20_000 {
		text.WriteString("  - 10.0.0.1\n")
	}
	d, _, err := loadText(t, text.String())
	require.NoError(t, err)
	assert.Len(t, d.Peers, 20_000)
}

func TestNilDestination(t *testing.T) {
	_, err := settings.Load((*daemon)(nil), settings.Options{})
	require.EqualError(t, err, "settings: need a pointer to a struct, got a nil *settings_test.daemon")
	_, err = settings.Load(nil, settings.Options{})
	require.EqualError(t, err, "settings: need a pointer to a struct, got <nil>")
}

func TestSourceString(t *testing.T) {
	assert.Equal(t, "default file environment flag", fmt.Sprint(settings.SourceDefault, settings.SourceFile, settings.SourceEnvironment, settings.SourceFlag))
}

// writeSecret puts a secret beside the given configuration file.
func writeSecret(t *testing.T, config, name, text string) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(config), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}
