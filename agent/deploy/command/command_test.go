//go:build unix

package command

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func shell(t *testing.T, script string, timeout time.Duration) *Command {
	t.Helper()
	c, err := New(Config{Argv: []string{"/bin/sh", "-c", script}, Timeout: timeout})
	require.NoError(t, err)
	return c
}

func TestNewRefuses(t *testing.T) {
	for field, config := range map[string]Config{
		"argv: must begin":             {},
		"argv: \"nginx -t\" is one":    {Argv: []string{"nginx -t"}},
		"argv: program \"bin/reload\"": {Argv: []string{"bin/reload"}},
		"argv: item 1":                 {Argv: []string{"true", "a\x00b"}},
		"timeout: -1s":                 {Argv: []string{"true"}, Timeout: -time.Second},
		"dir: \"here\"":                {Argv: []string{"true"}, Dir: "here"},
		"env: \"A=B\"":                 {Argv: []string{"true"}, Env: map[string]string{"A=B": ""}},
	} {
		_, err := New(config)
		assert.ErrorContains(t, err, field)
	}
}

func TestOutputAndExitCode(t *testing.T) {
	out, err := shell(t, "echo out; echo err >&2", 0).Run(context.Background(), nil)
	require.NoError(t, err)
	assert.Equal(t, "out\nerr", out)

	_, err = shell(t, "echo no such site; exit 7", 0).Run(context.Background(), nil)
	var failed *Error
	require.ErrorAs(t, err, &failed)
	assert.Equal(t, 7, failed.ExitCode)
	assert.Equal(t, "no such site", failed.Output)
	assert.False(t, failed.TimedOut)
}

func TestArgumentsAreNotSplitOrExpanded(t *testing.T) {
	c, err := New(Config{Argv: []string{"printf", "%s|", "$HOME", "a b; exit 1", "*"}})
	require.NoError(t, err)
	out, err := c.Run(context.Background(), nil)
	require.NoError(t, err)
	assert.Equal(t, "$HOME|a b; exit 1|*|", out)
}

func TestMissingProgram(t *testing.T) {
	c, err := New(Config{Argv: []string{"/nonexistent/reload"}})
	require.NoError(t, err)
	_, err = c.Run(context.Background(), nil)
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.Equal(t, -1, failed.ExitCode)
}

func TestEnvironmentIsSmall(t *testing.T) {
	t.Setenv("CERTCTL_TOKEN", "secret")
	c, err := New(Config{Argv: []string{"env"}, Env: map[string]string{"SITE": "configured", "ROLE": "web"}})
	require.NoError(t, err)
	out, err := c.Run(context.Background(), map[string]string{"SITE": "given"})
	require.NoError(t, err)
	assert.NotContains(t, out, "secret")
	lines := strings.Split(out, "\n")
	assert.Contains(t, lines, "SITE=given")
	assert.Contains(t, lines, "ROLE=web")
	assert.Contains(t, lines, "PATH="+os.Getenv("PATH"))
}

func TestNoInput(t *testing.T) {
	out, err := shell(t, "wc -c", 0).Run(context.Background(), nil)
	require.NoError(t, err)
	assert.Equal(t, "0", strings.TrimSpace(out))
}

// TestTimeLimitEndsTheChildrenToo uses a child that ignores the polite signal.
func TestTimeLimitEndsTheChildrenToo(t *testing.T) {
	t.Parallel()
	pidFile := filepath.Join(t.TempDir(), "pid")
	script := "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ >" + pidFile + "; while :; do sleep 1; done' & echo begun; wait; wait"
	var failed *Error
	// A busy machine may not have come to the child by then.
	for limit := 300 * time.Millisecond; ; limit *= 4 {
		_, err := shell(t, script, limit).Run(context.Background(), nil)
		require.ErrorAs(t, err, &failed)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		if data, _ := os.ReadFile(pidFile); len(data) > 0 || limit > time.Minute {
			break
		}
	}
	assert.True(t, failed.TimedOut)
	assert.Equal(t, "begun", failed.Output)

	data, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !running(pid) }, 60*time.Second, 10*time.Millisecond)
}

// running is false for a zombie, which nobody may have waited for yet.
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return syscall.Kill(pid, 0) == nil
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}

func TestEndOfContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	c := shell(t, "echo ready; exec sleep 60", 0)
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err := c.Run(ctx, nil)
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.ErrorIs(t, err, context.Canceled)
	assert.False(t, failed.TimedOut)
}

func TestDaemonLeftBehindIsNoFailure(t *testing.T) {
	t.Parallel()
	pidFile := filepath.Join(t.TempDir(), "pid")
	_, err := shell(t, "sleep 60 & echo $! >"+pidFile, 0).Run(context.Background(), nil)
	require.NoError(t, err)
	data, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	require.NoError(t, err)
	assert.True(t, running(pid), "the daemon must go on")
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

func TestOutputIsBounded(t *testing.T) {
	out, err := shell(t, "echo first; yes | head -c 1000000; echo last", 0).Run(context.Background(), nil)
	require.NoError(t, err)
	assert.Less(t, len(out), headSize+tailSize+100)
	assert.True(t, strings.HasPrefix(out, "first"))
	assert.True(t, strings.HasSuffix(out, "last"))
	assert.Contains(t, out, "octets left out")
}

// TestBuffer compares the buffer with keeping everything, whatever the sizes of the writes.
func TestBuffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b buffer
		var all []byte
		for range rapid.IntRange(0, 8).Draw(t, "writes") {
			chunk := []byte(strings.Repeat(rapid.StringMatching("[a-z]").Draw(t, "letter"), rapid.IntRange(0, 5000).Draw(t, "size")))
			n, err := b.Write(chunk)
			if err != nil || n != len(chunk) {
				t.Fatalf("write: %d, %v", n, err)
			}
			all = append(all, chunk...)
		}
		got := b.String()
		if len(all) <= headSize+tailSize {
			if got != string(all) {
				t.Fatalf("%d octets were not kept whole", len(all))
			}
			return
		}
		if !strings.HasPrefix(got, string(all[:headSize])) || !strings.HasSuffix(got, string(all[len(all)-tailSize:])) {
			t.Fatal("beginning or end is wrong")
		}
		if want := strconv.Itoa(len(all)-headSize-tailSize) + " octets left out"; !strings.Contains(got, want) {
			t.Fatalf("does not say %q", want)
		}
	})
}

func TestOutputIsValidText(t *testing.T) {
	var b buffer
	_, err := b.Write([]byte("ok \xff\xfe\n"))
	require.NoError(t, err)
	assert.Equal(t, "ok \uFFFD", b.String())
}
