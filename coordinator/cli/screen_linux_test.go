package cli

import (
	"bytes"
	"context"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/certctl/certctl/coordinator/api/apitest"
)

// page is what a terminal of some lines shows of what was written to it.
func page(written string, height, width int) []string {
	lines := make([]string, height)
	row := 0
	for rest := written; rest != ""; {
		switch {
		case strings.HasPrefix(rest, toTop):
			row, rest = 0, rest[len(toTop):]
		case strings.HasPrefix(rest, clearLine):
			rest = rest[len(clearLine):]
		case strings.HasPrefix(rest, clearRest):
			clear(lines[row:])
			rest = rest[len(clearRest):]
		case strings.HasPrefix(rest, "\r"):
			rest = rest[1:]
		case strings.HasPrefix(rest, "\n"):
			row, rest = min(row+1, height-1), rest[1:]
		default:
			end := strings.IndexAny(rest, "\x1b\r\n")
			if end < 0 {
				end = len(rest)
			}
			lines[row], rest = rest[:end], rest[end:]
		}
	}
	return lines
}

// On a terminal the list is always the newest, in the same place, and no longer or wider
// than there is room.
func TestAWatchOnATerminal(t *testing.T) {
	c := apitest.Start(t)
	logIn(t, c)
	c.Agent("web1", "web1.example.com", nil)
	keys, tty := terminal(t)
	t.Setenv("TERM", "xterm")
	require.NoError(t, unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 7, Col: 40}))
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()

	var mu sync.Mutex
	var written bytes.Buffer
	go func() {
		part := make([]byte, 4096)
		for {
			n, err := keys.Read(part)
			mu.Lock()
			written.Write(part[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	shows := func(patterns ...string) {
		t.Helper()
		var now []string
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			now = page(written.String(), 7, 40)
			for i, pattern := range patterns {
				if !regexp.MustCompile(pattern).MatchString(now[i]) {
					return false
				}
			}
			return true
		}, time.Minute, 20*time.Millisecond, "%q", now)
		for _, line := range now {
			assert.LessOrEqual(t, len(line), 40)
		}
	}
	ended := make(chan error, 1)
	go func() {
		root := (&program{shortest: time.Millisecond}).root()
		root.SetArgs([]string{"agents", "list", "--watch", "--interval", "50ms"})
		root.SetOut(tty)
		root.SetErr(io.Discard)
		ended <- root.ExecuteContext(ctx)
	}()
	shows(`^as of \d\d:\d\d:\d\d, looking every 50ms`, `^$`, `^ID    HOST`, `^web1  web1\.example\.com  connected`, `^$`)
	c.Agent("db1", "db1.example.com", nil)
	shows(`^as of `, `^$`, `^ID    HOST`, `^db1   db1\.example\.com`, `^web1  web1`, `^$`)
	c.Agent("db2", "db2.example.com", nil)
	c.Agent("db3", "db3.example.com", nil)
	shows(`^as of `, `^$`, `^ID    HOST`, `^db1   db1\.example\.com`, `^db2   db2`, `^and 2 lines more$`, `^$`)
	interrupt()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(time.Minute):
		t.Fatal("the watch does not end")
	}
}
