package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// commandLine is a daemon's command line over a fake service manager.
func commandLine(t *testing.T) (run func(args ...string) (string, error), p *fakePlatform) {
	control, p := fakeControl(t, definition())
	run = func(args ...string) (string, error) {
		v := &verbs{
			def:     func() (Definition, error) { return definition(), nil },
			control: func(def Definition) (*Control, error) { control.def = def; return control, nil },
		}
		root := &cobra.Command{Use: "certctl-test", SilenceErrors: true, SilenceUsage: true}
		root.PersistentFlags().StringArray("set", nil, "")
		root.AddCommand(v.all()...)
		root.SetArgs(args)
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&out)
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	return run, p
}

func TestCommandsFromInstallToUninstall(t *testing.T) {
	run, _ := commandLine(t)
	steps := []struct{ verb, want string }{
		{"install", "certctl-test is installed: /unit\nit starts at the next boot; start it now with \"certctl-test start\"\n"},
		{"start", "certctl-test runs: active (running), pid 42\n  starts at boot: true\n  defined by:     /unit\n"},
		{"stop", "certctl-test does not run: inactive (dead)\n  starts at boot: true\n  defined by:     /unit\n"},
		{"restart", "certctl-test runs: active (running), pid 42\n  starts at boot: true\n  defined by:     /unit\n"},
		{"uninstall", "certctl-test is no service any more; its configuration and state are still there\n"},
	}
	for _, step := range steps {
		out, err := run(step.verb)
		require.NoError(t, err, step.verb)
		assert.Equal(t, step.want, out)
	}
}

func TestInstallNow(t *testing.T) {
	run, p := commandLine(t)
	out, err := run("install", "--now")
	require.NoError(t, err)
	assert.Contains(t, out, "certctl-test runs: active (running), pid 42")
	out, err = run("install", "--force")
	require.NoError(t, err)
	assert.Contains(t, out, `it runs with its old definition until "certctl-test restart"`)
	_, err = run("install", "--force", "--now")
	require.NoError(t, err)
	assert.Equal(t, []string{"install", "start", "install", "install", "stop", "start"}, p.calls)

	p.fails["start"] = errors.New("port in use")
	_, err = run("install", "--force", "--now")
	assert.ErrorIs(t, err, p.fails["start"])
}

func TestInstallRefusesSettingsThatTheServiceWouldNotGet(t *testing.T) {
	run, p := commandLine(t)
	_, err := run("install", "--set", "log.level=debug")
	assert.ErrorContains(t, err, "configuration file")
	assert.Empty(t, p.calls)
}

func TestServiceStatus(t *testing.T) {
	run, p := commandLine(t)
	out, err := run("service", "status")
	require.ErrorIs(t, err, ErrNotInstalled)
	assert.Equal(t, "certctl-test: not installed\n", out)

	p.now = State{Name: "certctl-test", Installed: true, Word: "activating (auto-restart)", Says: "failed: port in use", ExitStatus: 1, Restarts: 3, Source: "/unit"}
	out, err = run("service", "status")
	require.ErrorContains(t, err, "does not run")
	assert.Equal(t, "certctl-test does not run: activating (auto-restart), restarted 3 times, exit status 1\n"+
		"  says:           failed: port in use\n  starts at boot: false\n  defined by:     /unit\n", out)

	p.now = State{Name: "certctl-test", Installed: true, Running: true, StartsAtBoot: true, Word: "active (running)", PID: 42, Source: "/unit"}
	out, err = run("service", "status", "--output", "json")
	require.NoError(t, err)
	var got State
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	assert.Equal(t, p.now, got)

	_, err = run("service", "status", "--output", "xml")
	assert.ErrorContains(t, err, "expected table, json, yaml or csv")
	p.fails["state"] = errors.New("no answer")
	_, err = run("service", "status")
	assert.ErrorIs(t, err, p.fails["state"])
}

func TestCommandsTellWhyThereIsNoDefinition(t *testing.T) {
	cause := errors.New("no working directory")
	for _, cmd := range Commands(func() (Definition, error) { return Definition{}, cause }) {
		if cmd.RunE != nil {
			cmd.SetContext(t.Context())
			assert.ErrorIs(t, cmd.RunE(cmd, nil), cause, cmd.Name())
		}
	}
}

func TestCommandsHaveExamples(t *testing.T) {
	for _, cmd := range Commands(func() (Definition, error) { return definition(), nil }) {
		if cmd.RunE == nil {
			cmd = cmd.Commands()[0]
		}
		assert.Regexp(t, `^  certctl-test \w`, cmd.Example, cmd.Name())
	}
}
