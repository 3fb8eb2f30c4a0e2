package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakePlatform is a service manager with one service. It refuses calls that no
// service manager would be asked to do.
type fakePlatform struct {
	t           *testing.T
	now         State
	commandLine []string
	absent      error
	forbidden   error
	fails       map[string]error
	calls       []string
}

func (p *fakePlatform) call(name string) error {
	p.calls = append(p.calls, name)
	assert.NoError(p.t, errors.Join(p.absent, p.forbidden), "%s by somebody who may not", name)
	return p.fails[name]
}

func (p *fakePlatform) present() error   { return p.absent }
func (p *fakePlatform) permitted() error { return p.forbidden }
func (p *fakePlatform) state(context.Context) (State, error) {
	return p.now, p.fails["state"]
}

func (p *fakePlatform) install(_ context.Context, commandLine []string, replace bool) error {
	if err := p.call("install"); err != nil {
		return err
	}
	assert.Equal(p.t, p.now.Installed, replace)
	p.commandLine = commandLine
	p.now.Installed, p.now.StartsAtBoot, p.now.Source, p.now.Name = true, true, "/unit", "certctl-test"
	return nil
}

func (p *fakePlatform) uninstall(context.Context) error {
	if err := p.call("uninstall"); err != nil {
		return err
	}
	assert.True(p.t, p.now.Installed)
	assert.False(p.t, p.now.Running, "its process would be nobody's")
	p.now = State{}
	return nil
}

func (p *fakePlatform) start(context.Context) error {
	if err := p.call("start"); err != nil {
		return err
	}
	p.now.Running, p.now.Word, p.now.PID = true, "active (running)", 42
	return nil
}

func (p *fakePlatform) stop(context.Context) error {
	if err := p.call("stop"); err != nil {
		return err
	}
	p.now.Running, p.now.Word, p.now.PID = false, "inactive (dead)", 0
	return nil
}

func (p *fakePlatform) restart(ctx context.Context) error {
	return errors.Join(p.stop(ctx), p.start(ctx))
}

func fakeControl(t *testing.T, def Definition) (*Control, *fakePlatform) {
	p := &fakePlatform{t: t, fails: map[string]error{}, now: State{Name: def.Name}}
	return &Control{def: def, platform: p, executable: func() (string, error) { return "/usr/local/bin/certctl-test", nil }}, p
}

func TestInstallHandsTheConfigurationOn(t *testing.T) {
	dir := scratch(t)
	t.Chdir(dir)
	require.NoError(t, os.WriteFile("test.yaml", nil, 0o600))
	def := definition()
	def.ConfigFile = "test.yaml"
	c, p := fakeControl(t, def)
	state, err := c.Install(t.Context(), false)
	require.NoError(t, err)
	assert.True(t, state.Installed)
	assert.False(t, state.Running, "install starts nothing")
	here, err := os.Getwd()
	require.NoError(t, err)
	assert.Equal(t, []string{"/usr/local/bin/certctl-test", "run", "--config", filepath.Join(here, "test.yaml")}, p.commandLine)
	assert.Equal(t, []string{"run"}, def.Arguments, "the definition is not changed")
}

func TestInstallRefusesWhatCouldNotRun(t *testing.T) {
	for name, change := range map[string]func(*Control){
		"there is no configuration file": func(c *Control) { c.def.ConfigFile = filepath.Join(scratch(t), "nowhere") },
		"not a regular file":             func(c *Control) { c.def.ConfigFile = scratch(t) },
		"path of this executable":        func(c *Control) { c.executable = func() (string, error) { return "", errors.New("gone") } },
	} {
		c, p := fakeControl(t, definition())
		change(c)
		_, err := c.Install(t.Context(), true)
		assert.ErrorContains(t, err, name)
		assert.Empty(t, p.calls)
	}
}

func TestInstallAgainNeedsForce(t *testing.T) {
	c, p := fakeControl(t, definition())
	_, err := c.Install(t.Context(), false)
	require.NoError(t, err)
	_, err = c.Start(t.Context())
	require.NoError(t, err)

	_, err = c.Install(t.Context(), false)
	require.ErrorIs(t, err, ErrInstalled)
	assert.ErrorContains(t, err, "certctl-test is installed already (/unit): to write its definition anew use --force")

	state, err := c.Install(t.Context(), true)
	require.NoError(t, err)
	assert.True(t, state.Running, "what runs goes on")
	assert.Equal(t, []string{"install", "start", "install"}, p.calls)
}

func TestVerbsInTheirOrder(t *testing.T) {
	c, p := fakeControl(t, definition())
	ctx := t.Context()
	_, err := c.Install(ctx, false)
	require.NoError(t, err)
	for verb, want := range map[string]bool{"start": true, "restart": true} {
		act := map[string]func(context.Context) (State, error){"start": c.Start, "restart": c.Restart}[verb]
		state, err := act(ctx)
		require.NoError(t, err)
		assert.Equal(t, want, state.Running, verb)
	}
	state, err := c.Stop(ctx)
	require.NoError(t, err)
	assert.False(t, state.Running)
	_, err = c.Start(ctx)
	require.NoError(t, err)
	require.NoError(t, c.Uninstall(ctx))
	assert.Equal(t, []string{"stop", "uninstall"}, p.calls[len(p.calls)-2:])
	assert.ErrorIs(t, c.Uninstall(ctx), ErrNotInstalled)
}

func TestVerbsNeedAService(t *testing.T) {
	c, p := fakeControl(t, definition())
	for name, err := range eachVerb(t.Context(), c) {
		if name != "install" {
			assert.ErrorIs(t, err, ErrNotInstalled, name)
			assert.ErrorContains(t, err, `certctl-test install`, name)
		}
	}
	assert.Equal(t, []string{"install"}, p.calls)
}

func eachVerb(ctx context.Context, c *Control) map[string]error {
	errs := map[string]error{"uninstall": c.Uninstall(ctx)}
	_, errs["start"] = c.Start(ctx)
	_, errs["stop"] = c.Stop(ctx)
	_, errs["restart"] = c.Restart(ctx)
	_, errs["install"] = c.Install(ctx, true) // last: the others need that there is none
	return errs
}

func TestVerbsNeedTheRights(t *testing.T) {
	c, p := fakeControl(t, definition())
	p.forbidden = fmt.Errorf("%w: sudo", ErrNotPermitted)
	for name, err := range eachVerb(t.Context(), c) {
		assert.ErrorIs(t, err, ErrNotPermitted, name)
	}
	assert.Empty(t, p.calls)
	_, err := c.State(t.Context())
	assert.NoError(t, err, "everybody may look")
}

func TestVerbsNeedTheServiceManager(t *testing.T) {
	c, p := fakeControl(t, definition())
	p.absent = errors.New("no service manager here")
	for name, err := range eachVerb(t.Context(), c) {
		assert.ErrorIs(t, err, p.absent, name)
	}
	_, err := c.State(t.Context())
	assert.ErrorIs(t, err, p.absent)
	assert.Empty(t, p.calls)
}

func TestFailuresNameVerbAndService(t *testing.T) {
	for _, verb := range []string{"install", "uninstall", "start", "stop", "restart"} {
		c, p := fakeControl(t, definition())
		if verb != "install" {
			p.now.Installed = true
		}
		cause := errors.New("the service manager is tired")
		p.fails[verb] = cause
		if verb == "restart" {
			p.fails["start"] = cause
		}
		err := map[string]func() error{
			"install":   func() error { _, err := c.Install(t.Context(), false); return err },
			"uninstall": func() error { return c.Uninstall(t.Context()) },
			"start":     func() error { _, err := c.Start(t.Context()); return err },
			"stop":      func() error { _, err := c.Stop(t.Context()); return err },
			"restart":   func() error { _, err := c.Restart(t.Context()); return err },
		}[verb]()
		assert.ErrorIs(t, err, cause)
		assert.ErrorContains(t, err, verb+" certctl-test: ")
	}
	t.Run("what does not stop is not uninstalled", func(t *testing.T) {
		c, p := fakeControl(t, definition())
		p.now.Installed = true
		p.fails["stop"] = errors.New("it hangs")
		assert.ErrorIs(t, c.Uninstall(t.Context()), p.fails["stop"])
		assert.Equal(t, []string{"stop"}, p.calls)
	})
}

func TestNewControlChecksTheDefinition(t *testing.T) {
	for name, change := range map[string]func(*Definition){
		"name":         func(d *Definition) { d.Name = "Certctl Agent" },
		"display name": func(d *Definition) { d.DisplayName = "" },
		"description":  func(d *Definition) { d.Description = "" },
		"arguments":    func(d *Definition) { d.Arguments = nil },
	} {
		def := definition()
		change(&def)
		_, err := NewControl(def)
		assert.ErrorContains(t, err, name)
	}
}
