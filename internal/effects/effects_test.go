package effects

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/settings"
)

type nestedSettings struct {
	Pace struct {
		Every time.Duration `yaml:"every" env:"CERTCTL_SYNC_INTERVAL" default:"5s" doc:"d"`
		Names []string      `yaml:"names" doc:"d"`
	} `yaml:"pace" doc:"d"`
	Key   settings.Secret `yaml:"key" env:"CERTCTL_CA_SEAL_KEY" doc:"d"`
	Count int             `yaml:"count" default:"1" doc:"d"`
	Hosts []struct {
		Name string `yaml:"name" default:"" doc:"d"`
	} `yaml:"hosts" doc:"d"`
}

type part struct {
	every time.Duration
	names []string
	slots chan int
	by    map[string]*part
	any   any
	key   settings.Secret
}

func TestEffectsAreSeen(t *testing.T) {
	Program{
		Settings: &nestedSettings{}, Other: "hosts: [{name: a}]\n",
		Assemble: func(t *testing.T, file string) any {
			var s nestedSettings
			_, err := settings.Load(&s, settings.Options{File: file, FileRequired: true, Env: os.Environ()})
			require.NoError(t, err)
			return &part{every: s.Pace.Every, names: s.Pace.Names, slots: make(chan int, s.Count), any: len(s.Hosts), key: s.Key}
		},
		Effects: []Effect{
			{Setting: "pace.every", Value: "7s", At: "every", Default: "5s", Want: "7s"},
			{Setting: "pace.names", Value: "a,b", At: "names", Want: "[a b]"},
			{Setting: "key", Value: "secret", At: "key.text", Want: "secret"},
			{Setting: "count", Value: "3", At: "slots", Default: "", Want: "3"},
			{Setting: "hosts[].name", At: "any", Want: "1"},
		},
	}.Check(t)
}

// A setting that nobody reads, or that one of the ways to set it does not reach, is
// found, and so is one that no entry is about.
func TestSettingsWithoutAnEffectAreFound(t *testing.T) {
	e := Effect{Setting: "a.b", Default: "1"}
	for name, test := range map[string]struct {
		variable           string
		was, file, environ outcome
		want               []string
	}{
		"all is well":           {"X", outcome{"1", "2"}, outcome{"2", "2"}, outcome{"2", "2"}, nil},
		"nothing changes":       {"", outcome{"1", "2"}, outcome{"1", "2"}, outcome{}, []string{`a.b: set in the file, "1" is seen, and "2" was expected`}},
		"it was so before":      {"", outcome{"2", "2"}, outcome{"2", "2"}, outcome{}, []string{`a.b: "2" is seen without it too`, `a.b: "2" is seen by default, and "1" was expected`}},
		"the variable does not": {"X", outcome{"1", "2"}, outcome{"2", "2"}, outcome{"1", "2"}, []string{`a.b: set by X, "1" is seen, and "2" was expected`}},
	} {
		assert.Equal(t, test.want, e.problems(test.variable, test.was, test.file, test.environ), name)
	}
	described, err := settings.Describe(&nestedSettings{})
	require.NoError(t, err)
	byPath := map[string]settings.Setting{}
	for _, s := range described {
		byPath[s.Path] = s
	}
	p := Program{Elsewhere: map[string]string{"hosts[].": ""}, Effects: []Effect{
		{Setting: "key", Value: "x", At: "x"}, {Setting: "gone", At: "x"}, {Setting: "pace.every", At: "x"}, {Setting: "count", Value: "1"},
	}}
	assert.Equal(t, []string{
		"gone: there is no such setting", "pace.every: it has a variable, and the table no value for it", "count: 1 is its default",
		"pace.names: no test shows what it does: add it to the table of effects",
	}, p.uncovered(byPath))
}

func TestRead(t *testing.T) {
	inner := &part{every: time.Minute, names: []string{"x"}}
	whole := &part{slots: make(chan int, 4), by: map[string]*part{"a": inner, "b": nil}, any: inner}
	for path, want := range map[string]string{
		"slots": "4", "by[a].every": "1m0s", "by[a].names[0]": "x", "by[a].names[1]": Absent, "by[b].every": Absent, "by[c].every": Absent,
		"any.names": "[x]", "any:type": "effects.part", "by[b]:type": Absent, "by[a]:set": "true", "by[b]:set": "false", "any.by": "{}", "other": Absent,
	} {
		got, err := Read(whole, path)
		require.NoError(t, err, path)
		assert.Equal(t, want, got, path)
	}
	for path, want := range map[string]string{
		"every.x": "every.x: time.Duration has no x", "any.names[x]": "any.names[x]: [x] is no place in a list", "any..x": `any..x: "..x" is no step of a path`,
	} {
		_, err := Read(whole, path)
		assert.EqualError(t, err, want)
	}
}

func TestNested(t *testing.T) {
	assert.Equal(t, "a:\n  b: 1\n  c:\n    d: 2\n    e: 3\n  f: 4\ng: 5\n", nested(map[string]string{"a.b": "1", "a.c.d": "2", "a.c.e": "3", "a.f": "4", "g": "5"}))
}
