// Package command runs the programs that an operator configured around a
// deployment: a check, a reload, a verification.
//
// A command is a list of arguments that is executed as it stands, never a line
// for a shell. It gets a small environment instead of the agent's own, no
// input, a time limit after which it and its children are ended, and its output
// is kept up to a bound.
package command

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// DefaultTimeout is the time limit of a command that sets none.
const DefaultTimeout = 30 * time.Second

// grace is how long a command that was told to end may take to do so before it
// is killed, and how long after its end a child of it may hold the output open.
const grace = 2 * time.Second

// Config is one command.
type Config struct {
	// Argv is the program and its arguments. The program is an absolute path or
	// a plain name that is looked up in PATH when the command runs.
	Argv []string
	// Timeout is the time limit; 0 is DefaultTimeout.
	Timeout time.Duration
	// Env is added to the environment.
	Env map[string]string
	// Dir is the working directory, absolute; empty is the root of the file system.
	Dir string
}

// Command is a checked Config. It may be run from several goroutines at a time.
type Command struct {
	argv    []string
	timeout time.Duration
	env     map[string]string
	dir     string
}

// New checks the configuration and reports every field that makes no sense. It
// does not look for the program, which may be installed later.
func New(config Config) (*Command, error) {
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	switch {
	case len(config.Argv) == 0 || config.Argv[0] == "":
		problem("argv: must begin with a program, as in [\"systemctl\", \"reload\", \"nginx\"]")
	case len(config.Argv) == 1 && strings.ContainsAny(config.Argv[0], " \t") && !filepath.IsAbs(config.Argv[0]):
		problem("argv: %q is one word with spaces in it; no shell splits it, so write each argument as an item of its own", config.Argv[0])
	case !filepath.IsAbs(config.Argv[0]) && strings.ContainsAny(config.Argv[0], `/\`):
		problem("argv: program %q must be an absolute path or a plain name", config.Argv[0])
	}
	for i, argument := range config.Argv {
		if strings.ContainsRune(argument, 0) {
			problem("argv: item %d contains a NUL character", i)
		}
	}
	if config.Timeout < 0 {
		problem("timeout: %v must not be negative", config.Timeout)
	}
	if config.Dir != "" && !filepath.IsAbs(config.Dir) {
		problem("dir: %q must be an absolute path", config.Dir)
	}
	for _, name := range slices.Sorted(maps.Keys(config.Env)) {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(config.Env[name], 0) {
			problem("env: %q is not a name that a variable can have, or its value contains a NUL character", name)
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	c := &Command{argv: slices.Clone(config.Argv), timeout: config.Timeout, env: maps.Clone(config.Env), dir: config.Dir}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	if c.dir == "" {
		c.dir = rootDir()
	}
	return c, nil
}

// String is the command for people to read; it is not quoted for any shell.
func (c *Command) String() string { return strings.Join(c.argv, " ") }

// Timeout is the command's time limit.
func (c *Command) Timeout() time.Duration { return c.timeout }

// Error is a command that did not succeed.
type Error struct {
	Command  string // as Command.String gives it
	Output   string // what it printed, as Run returns it
	ExitCode int    // -1 if it did not start or was ended by a signal
	TimedOut bool   // its own time limit ended it
	Err      error
}

func (e *Error) Error() string { return fmt.Sprintf("command %q: %v", e.Command, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Run runs the command and returns what it printed to its output and error
// streams together, at most about 4 KiB of it (the beginning and the end). env
// is added to the environment and wins over the configured one; it must hold
// nothing secret. An error is always an *Error, and wraps ctx's error if that
// ended the command.
//
// When the time limit passes or ctx ends, the command and its children are told
// to end, and killed two seconds later. A child that goes on after the command
// itself succeeded, as a daemon does, is left alone.
func (c *Command) Run(ctx context.Context, env map[string]string) (string, error) {
	limited, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeLimit)
	defer cancel()
	var output buffer
	cmd := exec.CommandContext(limited, c.argv[0], c.argv[1:]...)
	cmd.Dir = c.dir
	cmd.Env = environment(os.LookupEnv, c.env, env)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = grace
	group, err := newGroup(cmd)
	if err != nil {
		return "", &Error{Command: c.String(), ExitCode: -1, Err: err}
	}
	defer group.close()
	cmd.Cancel = group.terminate

	if err = cmd.Start(); err == nil {
		err = errors.Join(group.started(), cmd.Wait())
	}
	if err != nil && limited.Err() != nil && cmd.Process != nil {
		group.kill() // what the grace has left
	}
	// The program itself has ended well; a child that it left behind just holds
	// the output open.
	if err == nil || errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success() && limited.Err() == nil {
		return output.String(), nil
	}
	failed := &Error{Command: c.String(), Output: output.String(), ExitCode: -1, Err: err}
	if cmd.ProcessState != nil {
		failed.ExitCode = cmd.ProcessState.ExitCode()
	}
	switch cause := context.Cause(limited); {
	case ctx.Err() != nil:
		failed.Err = fmt.Errorf("ended before it was done: %w", ctx.Err())
	case errors.Is(cause, errTimeLimit):
		failed.TimedOut = true
		failed.Err = fmt.Errorf("not done after %v, its time limit, and ended: %w", c.timeout, context.DeadlineExceeded)
	}
	return failed.Output, failed
}

var errTimeLimit = errors.New("time limit of the command")

// environment is what every command gets: where programs are found, where
// temporary files go, and plain English messages. The agent's own variables,
// among them its settings and secrets, stay out.
func environment(lookup func(string) (string, bool), layers ...map[string]string) []string {
	merged := map[string]string{"LC_ALL": "C.UTF-8", "PATH": defaultPath}
	for _, name := range inherited {
		if value, ok := lookup(name); ok && value != "" {
			merged[name] = value
		}
	}
	for _, layer := range layers {
		maps.Copy(merged, layer)
	}
	list := make([]string, 0, len(merged))
	for name, value := range merged {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

// Find reports a program that is not there, or not yet. A plain name is looked up
// in PATH and in the directories that services find programs in, since whoever
// checks a configuration may have a shorter PATH.
func Find(name string) error {
	_, err := exec.LookPath(name)
	if err == nil || filepath.Base(name) != name {
		return err
	}
	for _, dir := range filepath.SplitList(defaultPath) {
		if _, notHere := exec.LookPath(filepath.Join(dir, name)); notHere == nil {
			return nil
		}
	}
	return err
}
