package file

import (
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy/command"
)

func TestNewNamesTheField(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	good := Paths{FullChain: in("fullchain.pem"), Key: in("key.pem")}
	for want, config := range map[string]Config{
		"files: set at least one of certificate":                 {Paths: Paths{Key: in("key.pem")}},
		"key: \"key.pem\" must be an absolute path":              {Paths: Paths{Certificate: in("a"), Key: "key.pem"}},
		"is the path of key too":                                 {Paths: Paths{Certificate: in("a"), Key: in("x/../a")}},
		"files: \"mirror\" must be":                              {Paths: good, Layout: "mirror"},
		"check: argv: must begin":                                {Paths: good, Check: &command.Config{}},
		"reload: timeout: -1s":                                   {Paths: good, Reload: &command.Config{Argv: []string{"true"}, Timeout: -time.Second}},
		"verify.command: argv: must begin":                       {Paths: good, VerifyCommand: &command.Config{}},
		"verify: address: \"localhost\" must be host:port":       {Paths: good, Probe: &Probe{Address: "localhost"}},
		"verify: timeout 0s, patience -1s: must not be negative": {Paths: good, Probe: &Probe{Address: "localhost:443", Patience: -time.Second}},
		"files: \"directory\" needs all files in one directory,": {Paths: Paths{FullChain: in("a/x"), Key: in("b/x")}, Layout: LayoutDirectory},
		"files: \"directory\" cannot replace /":                  {Paths: Paths{FullChain: "/x"}, Layout: LayoutDirectory},
	} {
		if runtime.GOOS == "windows" && config.Layout == LayoutDirectory {
			want = "files: \"directory\" needs symbolic links"
		}
		_, err := New(config)
		assert.ErrorContains(t, err, want)
	}
}

func TestNewReportsAllProblemsAtOnce(t *testing.T) {
	_, err := New(Config{Layout: "mirror", Probe: &Probe{}})
	require.Error(t, err)
	for _, field := range []string{"files: set", "files: \"mirror\"", "verify:"} {
		assert.ErrorContains(t, err, field)
	}
}

func TestTimeLimitCoversWhatIsConfigured(t *testing.T) {
	paths := Paths{Combined: filepath.Join(t.TempDir(), "combined.pem")}
	target := newTarget(t, Config{Paths: paths})
	assert.Equal(t, time.Minute, target.TimeLimit())
	target = newTarget(t, Config{
		Paths:  paths,
		Check:  &command.Config{Argv: []string{"check"}, Timeout: 10 * time.Minute},
		Reload: &command.Config{Argv: []string{"reload"}, Timeout: 30 * time.Minute},
		Probe:  &Probe{Address: "127.0.0.1:443", Patience: 10 * time.Minute},
	})
	assert.Greater(t, target.TimeLimit(), (10+2*30+2*10)*time.Minute)
}
