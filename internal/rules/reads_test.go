package rules

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every setting is read by some code beyond the checks of settings.
func TestEverySettingIsRead(t *testing.T) {
	dependOnSources(t)
	unread, err := Unread(t.Context(), "../..", settingsOf...)
	require.NoError(t, err)
	for _, offence := range unread {
		t.Error(offence)
	}
}

// What only checks read, or what is only written, is not read; what is read through a
// function of the settings is, if somebody calls that.
func TestUnreadSettingsAreFound(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
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
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o750))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	unread, err := Unread(t.Context(), dir, "example.com/m/config")
	require.NoError(t, err)
	want := func(path, field string) string {
		return "example.com/m/config: no code reads " + path + " (example.com/m/config." + field + ")"
	}
	assert.Equal(t, []string{
		want("idle", "Settings.Idle"), want("written", "Settings.Written"), want("checked", "Settings.Checked"), want("uncalled", "Settings.Uncalled"),
		want("one.lost", "Inline.Lost"), want("many[].lost", "Inline.Lost"), want("named.<name>.name", "Other.Name"),
	}, unread)

	_, err = Unread(t.Context(), dir, "example.com/m/gone")
	assert.Error(t, err)
	_, err = Unread(t.Context(), dir, "example.com/m/run")
	assert.EqualError(t, err, "example.com/m/run declares no Settings")
}
