package settings_test

import (
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/settings"
)

// asSomebodyElse runs f on a thread that opens files with the rights of a user
// who owns none, so that modes count for root too.
func asSomebodyElse(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		if os.Geteuid() == 0 {
			_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0) // it answers with the previous id, never with an error
		}
		f()
	}()
	<-done
}

func TestFileThatMayNotBeRead(t *testing.T) {
	path := write(t, "server: {url: u}\n")
	require.NoError(t, os.Chmod(path, 0))
	var err error
	asSomebodyElse(t, func() { _, err = settings.Load(&daemon{}, settings.Options{File: path}) })
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "let the user that this program runs as read it")
	require.NotContains(t, err.Error(), "missing", "what an unreadable file would have set is not known")
}
