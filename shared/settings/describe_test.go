package settings_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/certctl/certctl/shared/settings"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDescribe(t *testing.T) {
	list, err := settings.Describe(&daemon{})
	require.NoError(t, err)
	byPath := make(map[string]settings.Setting)
	var paths []string
	for _, s := range list {
		byPath[s.Path] = s
		paths = append(paths, s.Path)
	}
	assert.Equal(t, []string{
		"state_dir", "log_level", "verbose", "listen", "name", "tags", "peers", "labels",
		"renewal.concurrency", "renewal.tick_interval", "renewal.ratio", "renewal.small", "renewal.count", "renewal.wide",
		"server.url", "server.token", "acme.directory", "acme.timeout", "acme.hmac",
		"certificates[].names", "certificates[].key", "certificates[].hooks[].argv", "certificates[].password",
		"issuers.<name>.url", "issuers.<name>.ttl", "proxy",
	}, paths)
	assert.Equal(t, settings.Setting{
		Path: "renewal.concurrency", Env: "CERTCTL_T_CONCURRENCY", Type: "whole number", Default: "25", HasDefault: true,
		Range: "1 to 1000", Doc: "Renewals at once.",
	}, byPath["renewal.concurrency"])
	assert.Equal(t, settings.Setting{
		Path: "server.token", Env: "CERTCTL_T_TOKEN", EnvFile: "CERTCTL_T_TOKEN_FILE", Type: "secret", Range: "at least 4 characters",
		Doc: "Enrolment token.", Secret: true,
	}, byPath["server.token"])
	assert.Equal(t, `C:\ProgramData\t`, byPath["state_dir"].DefaultWindows)
	assert.Equal(t, []string{"debug", "info", "warn", "error"}, byPath["log_level"].OneOf)
	assert.Equal(t, "list of IP address", byPath["peers"].Type)
}

// The page and the example are kept as files so that a reader sees what users see. To write them again, run the test
// with UPDATE_GOLDEN=1.
func TestGeneratedPages(t *testing.T) {
	sections, err := settings.Sections(&daemon{}, "Daemon", "All of it.")
	require.NoError(t, err)
	page := settings.Markdown("Configuration", "Every setting.", sections...)
	example, err := settings.Example(&daemon{})
	require.NoError(t, err)
	d, _, err := loadText(t, fullYAML)
	require.NoError(t, err)
	effective, err := settings.Effective(&d)
	require.NoError(t, err)
	for name, generated := range map[string][]byte{"page.md": page, "example.yaml": example, "effective.yaml": effective} {
		path := filepath.Join("testdata", name)
		if os.Getenv("UPDATE_GOLDEN") != "" {
			require.NoError(t, os.WriteFile(path, generated, 0o644))
		}
		assert.NoError(t, settings.Check(path, generated))
	}
}

func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	require.ErrorIs(t, settings.Check(path, []byte("a")), os.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte("a\r\nb\r\n"), 0o600))
	require.NoError(t, settings.Check(path, []byte("a\nb\n")))
	require.EqualError(t, settings.Check(path, []byte("a\nc\n")), path+`:2: has "b", but the settings say "c"; generate the page again`)
	require.EqualError(t, settings.Check(path, []byte("a\nb\nc\n")), path+`:3: "c" is missing; generate the page again`)
	require.EqualError(t, settings.Check(path, []byte("a\n")), path+`:2: "b" is not in the settings any more; generate the page again`)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.EqualError(t, settings.Check(path, nil), "the generated page is empty")
}

func TestExampleIsValidWhenUncommented(t *testing.T) {
	example, err := settings.Example(&daemon{})
	require.NoError(t, err)
	for line := range strings.Lines(string(example)) {
		assert.Regexp(t, `^(#.*)?\n$`, line, "a fresh file sets nothing")
	}
	active := regexp.MustCompile(`(?m)^#`).ReplaceAllString(string(example), "")
	d, report, err := loadText(t, active)
	require.NoError(t, err, active)

	var plain daemon
	_, err = settings.Load(&plain, settings.Options{Flags: map[string]string{"server.url": "https://coordinator.example.com"}})
	require.NoError(t, err)
	assert.Equal(t, plain.Renewal, d.Renewal)
	assert.Equal(t, plain.Tags, d.Tags)
	assert.Equal(t, "web1", d.Name)
	assert.Equal(t, []string{"web1.example.com"}, d.Certs[0].Names)
	assert.Equal(t, "https://acme.example.com/dir", d.Acme.Directory)
	list, err := settings.Describe(&daemon{})
	require.NoError(t, err)
	assert.Len(t, report.Values(), len(list), "it shows every setting once")
	for _, v := range report.Values() {
		assert.Equal(t, settings.SourceFile, v.Origin.Source, v.Path)
	}
}

func TestEffectiveOfDefaults(t *testing.T) {
	var d daemon
	_, err := settings.Load(&d, settings.Options{Flags: map[string]string{"server.url": "u", "server.token": "hunter2"}})
	require.NoError(t, err)
	effective, err := settings.Effective(&d)
	require.NoError(t, err)
	assert.NotContains(t, string(effective), "hunter2")
	assert.Contains(t, string(effective), "  token: \"[redacted]\"\n")
	assert.Contains(t, string(effective), "# acme: off\n")
	assert.Contains(t, string(effective), "# name: not set\n")

	_, err = settings.Effective((*daemon)(nil))
	require.EqualError(t, err, "settings: need a pointer to a struct, got a nil *settings_test.daemon")
}

func TestEffectiveOfSectionsWithNothingSet(t *testing.T) {
	type inner struct {
		Token settings.Secret `yaml:"token" doc:"d"`
	}
	type outer struct {
		Optional *inner           `yaml:"optional" doc:"d"`
		List     []inner          `yaml:"list" doc:"d"`
		Named    map[string]inner `yaml:"named" doc:"d"`
		Plain    inner            `yaml:"plain" doc:"d"`
	}
	in := outer{Optional: &inner{}, List: []inner{{}}, Named: map[string]inner{"a b": {}}}
	effective, err := settings.Effective(&in)
	require.NoError(t, err)
	assert.Equal(t, "optional: {}\nlist:\n  - {}\nnamed:\n  \"a b\": {}\nplain: {}\n", string(effective))
	var out outer
	_, err = settings.Load(&out, settings.Options{File: write(t, string(effective))})
	require.NoError(t, err)
	assert.Equal(t, in, out)
}
