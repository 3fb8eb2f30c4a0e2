package service

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// openTerminal is a terminal without a window.
func openTerminal(t *testing.T) (window, terminal *os.File) {
	t.Helper()
	window, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this machine has no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { window.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(window.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(window.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { terminal.Close() })
	return window, terminal
}

// A signal is a request to reload also on a terminal. When the terminal itself
// hangs up, the daemon that was started from it ends, in order.
func TestProcessEndsWithItsTerminal(t *testing.T) {
	window, terminal := openTerminal(t)
	d := prepareTestDaemon(t, "obedient")
	d.Stdin = terminal
	d.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	d.start(t)
	d.says(t, "ready")
	require.NoError(t, d.Process.Signal(syscall.SIGHUP))
	d.says(t, "reload")
	require.NoError(t, terminal.Close())
	require.NoError(t, window.Close())
	d.says(t, "stop: ended by signal: hangup")
	assert.Equal(t, 7, d.ends(t))
}
