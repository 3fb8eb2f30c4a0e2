package rules

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// module is what the code of this one reads.
var module = sync.OnceValues(func() (*Reads, error) { return readIn(context.Background(), "../..", settingsOf...) })

func readIn(ctx context.Context, dir string, roots ...string) (*Reads, error) {
	packages, err := Compile(ctx, dir)
	if err != nil {
		return nil, err
	}
	return Read(packages, roots...)
}

// Every setting is read by some code beyond the checks of settings.
func TestEverySettingIsRead(t *testing.T) {
	dependOnSources(t)
	code, err := module()
	require.NoError(t, err)
	unread, err := code.UnreadSettings()
	require.NoError(t, err)
	for _, offence := range unread {
		t.Error(offence)
	}
}

// What only checks read, or what is only written, is not read; what is read through a
// function of the settings is, if somebody calls that.
func TestUnreadSettingsAreFound(t *testing.T) {
	dir := tree(t, map[string]string{
		"go.mod": "module example.com/m\n\ngo 1.26\n",
		"config/config.go": `package config

type Settings struct {
	Used    string ` + "`yaml:\"used\"`" + `
	Idle    string ` + "`yaml:\"idle\"`" + `
	Written string ` + "`yaml:\"written\"`" + `
	Checked string ` + "`yaml:\"checked\"`" + `
	Through string ` + "`yaml:\"through\"`" + `
	Uncalled string ` + "`yaml:\"uncalled\"`" + `
	One     *Section ` + "`yaml:\"one\"`" + `
	Many    []Section ` + "`yaml:\"many\"`" + `
	Named   map[string]Other ` + "`yaml:\"named\"`" + `
}

type Section struct {
	Shared string ` + "`yaml:\"shared\"`" + `
	Inline ` + "`yaml:\",inline\"`" + `
}

type Inline struct {
	Deep string ` + "`yaml:\"deep\"`" + `
	Lost string ` + "`yaml:\"lost\"`" + `
}

type Other struct {
	Name string ` + "`yaml:\"name\"`" + `
	note string
}

func (s *Settings) Validate() bool { return s.Checked != "" && s.Idle == "" }

func (s *Settings) Something() string { return s.something() }

func (s *Settings) something() string { return s.Through }

func (s *Settings) Nothing() string { return s.Uncalled }
`,
		"run/run.go": `package run

import "example.com/m/config"

func Run(s *config.Settings) string {
	s.Written = "x"
	text := s.Used + s.Something() + s.One.Deep
	for _, m := range s.Many {
		text += m.Shared
	}
	return text
}
`,
	})
	code, err := readIn(t.Context(), dir, "example.com/m/config")
	require.NoError(t, err)
	unread, err := code.UnreadSettings()
	require.NoError(t, err)
	want := func(path, field string) string {
		return "example.com/m/config: no code reads " + path + " (example.com/m/config." + field + ")"
	}
	assert.Equal(t, []string{
		want("idle", "Settings.Idle"), want("written", "Settings.Written"), want("checked", "Settings.Checked"), want("uncalled", "Settings.Uncalled"),
		want("one.lost", "Inline.Lost"), want("many[].lost", "Inline.Lost"), want("named.<name>.name", "Other.Name"),
	}, unread)

	for root, want := range map[string]string{"gone": "was not compiled", "run": "example.com/m/run declares no Settings"} {
		code, err := readIn(t.Context(), dir, "example.com/m/"+root)
		require.NoError(t, err)
		_, err = code.UnreadSettings()
		assert.ErrorContains(t, err, want)
	}
}

// consents are fields that have nothing to do but to be there: without them a
// configuration is refused.
var consents = []string{"agent/issuer/acme.Config.TermsAgreed is used by nobody"}

// What settings are passed on into is used too.
func TestEveryConfigIsUsed(t *testing.T) {
	dependOnSources(t)
	code, err := module()
	require.NoError(t, err)
	assert.Equal(t, consents, code.UnusedConfig())
}

func TestUnusedConfigIsFound(t *testing.T) {
	dir := tree(t, map[string]string{
		"go.mod": "module example.com/m\n\ngo 1.26\n",
		"part/part.go": `package part

type Config struct {
	Used, Passed, Judged, Written, Nowhere string
	note string
}

type Part struct{ config Config }

func (c *Config) validate() bool { return c.Judged == "" && c.Nowhere == "" }

func New(c Config) *Part {
	c.validate()
	c.Written = "x"
	return &Part{c}
}

func (p *Part) Run() string { return p.config.Used }
`,
		"whole/whole.go": `package whole

import "example.com/m/part"

func Run() string {
	c := part.Config{Used: "a", Passed: "b", Nowhere: "c"}
	return part.New(c).Run() + c.Passed
}
`,
	})
	code, err := readIn(t.Context(), dir)
	require.NoError(t, err)
	assert.Equal(t, []string{
		"example.com/m/part.Config.Judged is used by nobody", "example.com/m/part.Config.Nowhere is used by nobody", "example.com/m/part.Config.Written is used by nobody",
	}, code.UnusedConfig())
}

// tree is a directory with files.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o750))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}
