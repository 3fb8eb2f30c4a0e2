package service

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Errors of a Control, for errors.Is. Each comes with what to do about it.
var (
	// ErrInstalled is returned by Install when there is such a service.
	ErrInstalled = errors.New("installed already")
	// ErrNotInstalled is returned by every other verb when there is none.
	ErrNotInstalled = errors.New("not installed")
	// ErrNotPermitted is returned to a user who may not control services.
	ErrNotPermitted = errors.New("not permitted")
)

// State is what the service manager says of a service.
type State struct {
	Name string `json:"name"`
	// Installed is whether the service manager knows the service. If not,
	// nothing below means anything.
	Installed    bool `json:"installed"`
	StartsAtBoot bool `json:"starts_at_boot"`
	// Running is whether it has started and was not asked to stop. One that
	// still starts, or waits to be started again, does not run.
	Running bool `json:"running"`
	// Word is the state in the service manager's own words.
	Word string `json:"state"`
	PID  int    `json:"pid,omitempty"`
	// Says is the status line of the daemon itself (Linux only).
	Says string `json:"says,omitempty"`
	// ExitStatus is how the process ended the last time; of one that has not
	// ended yet it is 0.
	ExitStatus int `json:"exit_status"`
	// Restarts is how often the service manager has started it again by itself
	// since it was started (Linux only).
	Restarts int `json:"restarts"`
	// Source is the path of the unit, or on Windows the command line.
	Source string `json:"source,omitempty"`
}

// platform is a service manager for one service. Only permitted and the
// methods that change something need the rights of an administrator.
type platform interface {
	// present reports that this host has the service manager at all.
	present() error
	permitted() error
	state(ctx context.Context) (State, error)
	// install makes the service or, with replace, writes it anew while it
	// perhaps runs. It starts nothing and leaves nothing behind on failure.
	install(ctx context.Context, commandLine []string, replace bool) error
	uninstall(ctx context.Context) error
	// start, stop and restart return when it is done, or cannot be.
	start(ctx context.Context) error
	stop(ctx context.Context) error
	restart(ctx context.Context) error
}

// Control installs and controls one service. It keeps no state of its own and
// is safe for concurrent use as far as the service manager is.
type Control struct {
	def        Definition
	platform   platform
	executable func() (string, error)
}

// NewControl checks def and touches nothing.
func NewControl(def Definition) (*Control, error) {
	if err := def.validate(); err != nil {
		return nil, err
	}
	p, err := newPlatform(def)
	if err != nil {
		return nil, err
	}
	return &Control{def: def, platform: p, executable: os.Executable}, nil
}

// State asks the service manager. That the service is not installed is no
// error here.
func (c *Control) State(ctx context.Context) (State, error) {
	if err := c.platform.present(); err != nil {
		return State{}, err
	}
	return c.platform.state(ctx)
}

// Install makes this executable a service that starts at boot, and does not
// start it. Where it is installed already that is ErrInstalled, unless replace
// is set: then its definition is written anew, and a running process goes on as
// it is until it is restarted.
func (c *Control) Install(ctx context.Context, replace bool) (State, error) {
	if err := c.mayChange(); err != nil {
		return State{}, err
	}
	arguments, err := c.def.commandLine()
	if err != nil {
		return State{}, err
	}
	executable, err := c.executable()
	if err != nil {
		return State{}, fmt.Errorf("path of this executable: %w", err)
	}
	before, err := c.platform.state(ctx)
	if err != nil {
		return State{}, err
	}
	if before.Installed && !replace {
		return before, fmt.Errorf("%s is %w (%s): to write its definition anew use --force", c.def.Name, ErrInstalled, before.Source)
	}
	if err := c.platform.install(ctx, append([]string{executable}, arguments...), before.Installed); err != nil {
		return State{}, fmt.Errorf("install %s: %w", c.def.Name, err)
	}
	return c.platform.state(ctx)
}

// Uninstall stops the service and makes the service manager forget it. The
// daemon's configuration and state stay.
func (c *Control) Uninstall(ctx context.Context) error {
	if _, err := c.installed(ctx); err != nil {
		return err
	}
	// Not only when it runs: one that waits for its next start is stopped too.
	if err := c.platform.stop(ctx); err != nil {
		return fmt.Errorf("uninstall %s: stop: %w", c.def.Name, err)
	}
	if err := c.platform.uninstall(ctx); err != nil {
		return fmt.Errorf("uninstall %s: %w", c.def.Name, err)
	}
	return nil
}

// Start starts the service and returns when it runs; it may run already.
func (c *Control) Start(ctx context.Context) (State, error) {
	return c.do(ctx, "start", c.platform.start)
}

// Stop stops the service and returns when its process has ended.
func (c *Control) Stop(ctx context.Context) (State, error) {
	return c.do(ctx, "stop", c.platform.stop)
}

// Restart stops the service, if it runs, and starts it.
func (c *Control) Restart(ctx context.Context) (State, error) {
	return c.do(ctx, "restart", c.platform.restart)
}

func (c *Control) do(ctx context.Context, verb string, act func(context.Context) error) (State, error) {
	if _, err := c.installed(ctx); err != nil {
		return State{}, err
	}
	if err := act(ctx); err != nil {
		return State{}, fmt.Errorf("%s %s: %w", verb, c.def.Name, err)
	}
	return c.platform.state(ctx)
}

func (c *Control) mayChange() error {
	if err := c.platform.present(); err != nil {
		return err
	}
	return c.platform.permitted()
}

// installed is the state of a service that is there and may be changed.
func (c *Control) installed(ctx context.Context) (State, error) {
	if err := c.mayChange(); err != nil {
		return State{}, err
	}
	state, err := c.platform.state(ctx)
	if err != nil {
		return State{}, err
	}
	if !state.Installed {
		return state, fmt.Errorf("%s is %w: install it with \"%s install\"", c.def.Name, ErrNotInstalled, c.def.Name)
	}
	return state, nil
}
