//go:build !windows

package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(daemonVariable); name != "" {
		os.Exit(runTestDaemon(name))
	}
	// Under nohup(1) a hangup is ignored, and programs inherit that. What is
	// caught here they get as it is by default.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	goleak.VerifyTestMain(m)
}

// daemonVariable makes this test binary a daemon, for tests of real processes.
const daemonVariable = "SERVICE_TEST_DAEMON"

// runTestDaemon is the main function of the daemons of these tests. Each says
// on standard output what a test waits for.
func runTestDaemon(name string) int {
	return Run(context.Background(), definition(), func(ctx context.Context, life Lifecycle) int {
		switch name {
		case "obedient":
			reload := life.Reload()
			life.Status("looking\naround")
			life.Ready()
			fmt.Println("ready")
			for {
				select {
				case <-reload:
					fmt.Println("reload")
				case <-ctx.Done():
					fmt.Println("stop:", context.Cause(ctx))
					return 7
				}
			}
		case "reloading":
			reload := life.Reload()
			life.Ready()
			fmt.Println("ready")
			<-reload
			done := life.Reloading()
			done("configured anew")
			<-ctx.Done()
			return 0
		case "stubborn":
			fmt.Println("ready")
			<-ctx.Done()
			fmt.Println("stopping")
			select {}
		case "without reload":
			fmt.Println("ready")
			<-ctx.Done()
			fmt.Println("stop:", context.Cause(ctx))
			return 0
		case "failing":
			life.Failed(errors.New("state.db is damaged"))
			return 3
		}
		return 99
	})
}

// testDaemon is such a process.
type testDaemon struct {
	*exec.Cmd
	lines *bufio.Scanner
	rest  func() string // what it wrote to standard error
}

func startTestDaemon(t *testing.T, name string, env ...string) *testDaemon {
	t.Helper()
	d := prepareTestDaemon(t, name, env...)
	d.start(t)
	return d
}

func (d *testDaemon) start(t *testing.T) {
	t.Helper()
	require.NoError(t, d.Start())
}

func prepareTestDaemon(t *testing.T, name string, env ...string) *testDaemon {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), append(env, daemonVariable+"="+name)...)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	stderr, err := os.CreateTemp(t.TempDir(), "stderr")
	require.NoError(t, err)
	t.Cleanup(func() { stderr.Close() })
	cmd.Stderr = stderr
	return &testDaemon{Cmd: cmd, lines: bufio.NewScanner(stdout), rest: func() string {
		text, err := os.ReadFile(stderr.Name())
		require.NoError(t, err)
		return string(text)
	}}
}

func (d *testDaemon) says(t *testing.T, want string) {
	t.Helper()
	require.True(t, d.lines.Scan(), "it ended before it said %q", want)
	assert.Equal(t, want, d.lines.Text())
}

// ends returns how the process ended.
func (d *testDaemon) ends(t *testing.T) int {
	t.Helper()
	for d.lines.Scan() {
	}
	var exit *exec.ExitError
	if err := d.Wait(); err != nil {
		require.ErrorAs(t, err, &exit)
	}
	return d.ProcessState.ExitCode()
}

func TestProcessObeysSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			d := startTestDaemon(t, "obedient")
			d.says(t, "ready")
			require.NoError(t, d.Process.Signal(syscall.SIGHUP))
			d.says(t, "reload")
			require.NoError(t, d.Process.Signal(sig))
			d.says(t, "stop: ended by signal: "+sig.String())
			assert.Equal(t, 7, d.ends(t), "the status of main is that of the process")
			assert.Empty(t, d.rest())
		})
	}
}

func TestProcessEndsAtTheSecondSignal(t *testing.T) {
	d := startTestDaemon(t, "stubborn")
	d.says(t, "ready")
	require.NoError(t, d.Process.Signal(syscall.SIGTERM))
	d.says(t, "stopping")
	require.NoError(t, d.Process.Signal(syscall.SIGHUP), "a hangup is no second signal")
	<-time.After(sameStop + 100*time.Millisecond)
	require.NoError(t, d.Process.Signal(syscall.SIGINT), "it still runs")
	assert.Equal(t, 128+int(syscall.SIGINT), d.ends(t))
	assert.Contains(t, d.rest(), "certctl-test: interrupt again: ending at once")
}

// Some tools signal a process and then its group: one stop, not two.
func TestSignalsOfOneMomentAreOneStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals, ended, release := make(chan os.Signal), make(chan int, 1), make(chan struct{})
		p := &process{name: "certctl-test", signals: signals, stderr: io.Discard, exit: func(status int) { ended <- status }, notify: func(string) (bool, error) { return false, nil }}
		done := make(chan int, 1)
		go func() {
			done <- p.run(t.Context(), func(ctx context.Context, _ Lifecycle) int {
				<-ctx.Done()
				<-release
				return 7
			})
		}()
		signals <- syscall.SIGTERM
		<-time.After(sameStop - time.Nanosecond)
		signals <- syscall.SIGTERM
		synctest.Wait()
		assert.Empty(t, ended)
		<-time.After(time.Nanosecond)
		signals <- syscall.SIGINT
		assert.Equal(t, 128+int(syscall.SIGINT), <-ended)
		close(release)
		assert.Equal(t, 7, <-done)
	})
}

func TestProcessThatDoesNotReloadEndsAtHangup(t *testing.T) {
	d := startTestDaemon(t, "without reload")
	d.says(t, "ready")
	require.NoError(t, d.Process.Signal(syscall.SIGHUP))
	d.says(t, "stop: ended by signal: hangup")
	assert.Zero(t, d.ends(t))
}

// listenAsSystemd is the receiving end of NOTIFY_SOCKET.
func listenAsSystemd(t *testing.T) (path string, next func() string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // t.TempDir may be too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return path, func() string {
		t.Helper()
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
		buffer := make([]byte, 4096)
		n, err := conn.Read(buffer)
		require.NoError(t, err)
		return string(buffer[:n])
	}
}

func TestProcessTellsSystemd(t *testing.T) {
	socket, next := listenAsSystemd(t)
	d := startTestDaemon(t, "obedient", "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=100000")
	// Signs of life come at any time between the others, before the first too.
	var told []string
	alive := 0
	hear := func() {
		if text := next(); text == "WATCHDOG=1" {
			alive++
		} else {
			told = append(told, text)
		}
	}
	for len(told) < 2 || alive < 3 {
		hear()
	}
	d.says(t, "ready")
	require.NoError(t, d.Process.Signal(syscall.SIGTERM))
	for len(told) < 3 {
		hear()
	}
	assert.Equal(t, 7, d.ends(t))
	assert.Equal(t, []string{"STATUS=looking around", "READY=1", "STOPPING=1"}, told)
}

// The messages of a reload are those that sd_notify(3) asks of a service, in one
// datagram where they belong together.
func TestProcessTellsSystemdOfAReload(t *testing.T) {
	socket, next := listenAsSystemd(t)
	d := startTestDaemon(t, "reloading", "NOTIFY_SOCKET="+socket)
	assert.Equal(t, "READY=1", next())
	d.says(t, "ready")
	require.NoError(t, d.Process.Signal(syscall.SIGHUP))
	assert.Regexp(t, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*\n$`, next())
	assert.Equal(t, "READY=1", next())
	assert.Equal(t, "STATUS=configured anew", next())
	require.NoError(t, d.Process.Signal(syscall.SIGTERM))
	assert.Equal(t, "STOPPING=1", next())
	assert.Zero(t, d.ends(t))
}

func TestProcessTellsSystemdWhyItFailed(t *testing.T) {
	socket, next := listenAsSystemd(t)
	d := startTestDaemon(t, "failing", "NOTIFY_SOCKET="+socket)
	assert.Equal(t, "STATUS=failed: state.db is damaged", next())
	assert.Equal(t, 3, d.ends(t))
}

func TestProcessWithoutAListenerOfSystemdSaysSoOnceAndGoesOn(t *testing.T) {
	d := startTestDaemon(t, "obedient", "NOTIFY_SOCKET="+filepath.Join(t.TempDir(), "nobody"))
	d.says(t, "ready")
	require.NoError(t, d.Process.Signal(syscall.SIGTERM))
	assert.Equal(t, 7, d.ends(t))
	assert.Contains(t, d.rest(), "certctl-test: systemd was not told")
	assert.Len(t, lines(d.rest()), 1)
}

func TestProcessRefusesAWatchdogThatItCannotRead(t *testing.T) {
	d := startTestDaemon(t, "obedient", "WATCHDOG_USEC=soon")
	assert.Equal(t, 1, d.ends(t))
	assert.Contains(t, d.rest(), "WATCHDOG_USEC")
}

func TestRunRefusesAnIncompleteDefinition(t *testing.T) {
	called := false
	status := Run(t.Context(), Definition{}, func(context.Context, Lifecycle) int { called = true; return 0 })
	assert.Equal(t, 1, status)
	assert.False(t, called)
}

func TestRunLetsAPanicThrough(t *testing.T) {
	p := &process{name: "certctl-test", signals: nil, stderr: io.Discard, exit: func(int) {}, notify: func(string) (bool, error) { return false, nil }}
	assert.PanicsWithValue(t, "boom", func() {
		p.run(t.Context(), func(context.Context, Lifecycle) int { panic("boom") })
	})
}
