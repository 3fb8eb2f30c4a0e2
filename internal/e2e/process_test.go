//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/backoff"
)

// tailSize is how much of a program's output is shown when a test fails.
const tailSize = 6000

// await asks check until it returns nil, and fails the test with its last error
// when the limit has passed.
func await(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		if backoff.Wait(ctx, 100*time.Millisecond) != nil {
			require.NoErrorf(t, err, "not within %v: %s", limit, what)
		}
	}
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) { _ = backoff.Wait(ctx, d) }

// environment is this process's without anything that a certctl program reads.
func environment(home string, more ...string) []string {
	env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + filepath.Join(home, "config")}
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		switch {
		case strings.HasPrefix(name, "CERTCTL_"), name == "HOME", name == "XDG_CONFIG_HOME", name == "NOTIFY_SOCKET":
		default:
			env = append(env, entry)
		}
	}
	return append(env, more...)
}

// daemon is a program that is started, stopped and killed, possibly many times.
// Its output gathers in one buffer. Only one goroutine may start and end it.
type daemon struct {
	t    testing.TB
	name string
	path string
	args []string
	env  []string
	// launch, if it is set, starts the program elsewhere than here.
	launch func(*exec.Cmd) error

	output output
	cmd    *exec.Cmd
	done   chan struct{}
}

// output keeps the end of what a program wrote, from all its runs.
type output struct {
	mu    sync.Mutex
	text  []byte
	total int
	// line is given each line; guarded by mu.
	line func([]byte)
	rest []byte // of the last line
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.line != nil {
		o.rest = append(o.rest, p...)
		for {
			line, rest, ended := bytes.Cut(o.rest, []byte("\n"))
			if !ended {
				break
			}
			o.line(line)
			o.rest = bytes.Clone(rest)
		}
	}
	o.text = append(o.text, p...)
	o.total += len(p)
	if len(o.text) > 10*tailSize {
		o.text = bytes.Clone(o.text[len(o.text)-5*tailSize:])
	}
	return len(p), nil
}

func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text[max(0, len(o.text)-tailSize):])
}

// size is how much the program has written, in octets.
func (o *output) size() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.total
}

func newDaemon(t testing.TB, name, program string, env []string, args ...string) *daemon {
	d := &daemon{t: t, name: name, path: filepath.Join(binDir, program), args: args, env: env}
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("the end of what %s wrote:\n%s", name, d.output.tail())
		}
	})
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	require.False(d.t, d.running(), "%s runs already", d.name)
	cmd := exec.Command(d.path, d.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = d.env, &d.output, &d.output
	cmd.SysProcAttr = attributes()
	cmd.WaitDelay = 5 * time.Second // a command that the agent left behind may hold its output
	launch := d.launch
	if launch == nil {
		launch = (*exec.Cmd).Start
	}
	require.NoError(d.t, launch(cmd))
	done := make(chan struct{})
	d.cmd, d.done = cmd, done
	go func() {
		defer close(done)
		_ = cmd.Wait() // the status is read from cmd.ProcessState
	}()
}

// attributes tie a child to the life of this process, and keep a Ctrl-C from
// it, so that the test ends it in order.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func (d *daemon) running() bool {
	if d.done == nil {
		return false
	}
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// kill ends the program as a power cut would, and returns when it is gone.
func (d *daemon) kill() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Kill() // it may have ended by itself
	<-d.done
}

// signal sends a signal that does not end the program.
func (d *daemon) signal(signal os.Signal) {
	d.t.Helper()
	require.NoError(d.t, d.cmd.Process.Signal(signal))
}

// stop asks the program to end, and expects that it does so in order.
func (d *daemon) stop() {
	d.t.Helper()
	_, status := d.end(syscall.SIGTERM)
	require.Zero(d.t, status, "exit status of %s", d.name)
}

// end sends a signal that ends the program, and returns how long that took and
// the exit status.
func (d *daemon) end(signal os.Signal) (took time.Duration, status int) {
	d.t.Helper()
	require.True(d.t, d.running(), "%s has ended already", d.name)
	began := time.Now()
	require.NoError(d.t, d.cmd.Process.Signal(signal))
	select {
	case <-d.done:
	case <-time.After(60 * time.Second):
		d.kill()
		require.FailNowf(d.t, "it does not end", "%s still ran a minute after the signal", d.name)
	}
	return time.Since(began), d.cmd.ProcessState.ExitCode()
}

// awaitReady waits until ready returns nil, and fails when the program ends
// before.
func (d *daemon) awaitReady(limit time.Duration, ready func() error) {
	d.t.Helper()
	await(d.t, limit, d.name+" is ready", func() error {
		if !d.running() {
			require.FailNowf(d.t, "it ended", "%s ended before it was ready:\n%s", d.name, d.output.tail())
		}
		return ready()
	})
}

// result is what a program that ran to its end has left.
type result struct {
	stdout, stderr string
	status         int
}

// call runs a program to its end.
func call(t testing.TB, env []string, program string, args ...string) result {
	t.Helper()
	return run(t, command(env, filepath.Join(binDir, program), args...))
}

func command(env []string, path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.SysProcAttr = env, attributes()
	return cmd
}

// run runs a prepared command to its end, or for some minutes.
func run(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Start())
	overdue := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	defer overdue.Stop()
	err := cmd.Wait()
	if _, exited := errors.AsType[*exec.ExitError](err); !exited {
		require.NoError(t, err)
	}
	return result{stdout: stdout.String(), stderr: stderr.String(), status: cmd.ProcessState.ExitCode()}
}
