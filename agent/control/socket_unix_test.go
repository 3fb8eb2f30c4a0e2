//go:build unix

package control

import (
	"net"
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
)

// forever are goroutines that do not end; no library has any here.
var forever []goleak.Option

// badPath is what is said of a path that cannot be one.
const badPath = "absolute"

func socketPath(t *testing.T) string {
	t.Helper()
	// Not t.TempDir, whose path holds the test's name: sockets have short paths.
	dir, err := os.MkdirTemp("", "control")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	return filepath.Join(dir, "control.sock")
}

func TestSocketThatNobodyServes(t *testing.T) {
	path := socketPath(t)
	stale(t, path)
	_, err := Dial(t.Context(), path)
	require.ErrorIs(t, err, ErrNotRunning)

	_, err = Dial(t.Context(), "relative.sock")
	assert.ErrorContains(t, err, "absolute path")
	_, err = Dial(t.Context(), "/"+strings.Repeat("x", 120))
	assert.ErrorContains(t, err, "choose a shorter one")
}

// stale leaves a socket behind that nobody listens on.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
}

func TestSocketOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		// Without root there is no other user to be; a directory that nobody
		// may enter stands for one.
		path := socketPath(t)
		require.NoError(t, os.Chmod(filepath.Dir(path), 0))
		defer func() { require.NoError(t, os.Chmod(filepath.Dir(path), 0o700)) }()
		_, err := Dial(t.Context(), path)
		require.ErrorIs(t, err, ErrPermission)
		return
	}
	c := &Client{path: "/run/x.sock"}
	err := c.unreachable(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)})
	require.ErrorIs(t, err, ErrPermission)
	assert.ErrorContains(t, err, "run the command as root")
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := socketPath(t)
	stale(t, path)
	stale(t, path+makingSuffix)
	stop := serve(t, path, &agent{status: sample(time.Now())}, quiet)
	client, err := Dial(t.Context(), path)
	require.NoError(t, err)
	client.Close()
	stop()
	_, err = os.Lstat(path)
	assert.ErrorIs(t, err, os.ErrNotExist, "it is removed at the end")
}

func TestOthersAreLeftAlone(t *testing.T) {
	path := socketPath(t)
	stop := serve(t, path, &agent{}, quiet)
	second, err := New(Config{Path: path, Backend: &agent{}, Log: quiet})
	require.NoError(t, err)
	assert.ErrorContains(t, second.Run(t.Context()), "somebody listens there already")

	// A socket that has taken the name is not removed.
	require.NoError(t, os.Remove(path))
	stale(t, path)
	stop()
	_, err = os.Lstat(path)
	require.NoError(t, err)

	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	assert.ErrorContains(t, second.Run(t.Context()), "file of another kind")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "precious", string(text))
}

func TestSocketIsPrivate(t *testing.T) {
	path := socketPath(t)
	serve(t, path, &agent{}, quiet)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestGroup(t *testing.T) {
	path := socketPath(t)
	server, err := New(Config{Path: path, Group: strconv.Itoa(os.Getegid()), Backend: &agent{}, Log: quiet})
	require.NoError(t, err)
	run(t, server, path)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o660), info.Mode().Perm())

	server, err = New(Config{Path: socketPath(t), Group: "no-such-group", Backend: &agent{}, Log: quiet})
	require.NoError(t, err)
	assert.ErrorContains(t, server.Run(t.Context()), "change control.group")
}
