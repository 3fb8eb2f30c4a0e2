package settings_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Kubernetes mounts secrets as a file system in memory that is read-only, with files that everybody may read.
func TestSecretFileMountedInMemory(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) // #nosec G302 -- others reach it
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=1777")
	if errors.Is(err, syscall.EPERM) {
		t.Skip("mounting needs root and a mount namespace of its own")
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	secret := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(secret, []byte("secret\n"), 0o600))
	remount := func(flags uintptr) {
		t.Helper()
		require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, ""))
	}
	for _, mode := range []os.FileMode{0o444, 0o644} {
		remount(0)
		require.NoError(t, os.Chmod(secret, mode))
		require.ErrorContains(t, secretIn(t, secret), "is open to other users", "such as /dev/shm")
		remount(syscall.MS_RDONLY)
		require.NoError(t, secretIn(t, secret))
	}
	remount(0)
	require.NoError(t, os.Chmod(secret, 0o666))
	remount(syscall.MS_RDONLY)
	require.ErrorContains(t, secretIn(t, secret), "is open to other users")
}

// Docker and Podman mount each secret at /run/secrets.
func TestSecretFileOfAContainer(t *testing.T) {
	const dir = "/run/secrets"
	if _, err := os.Stat(dir); err == nil || os.Mkdir(dir, 0o755) != nil { // #nosec G301 -- as runtimes do
		t.Skip("needs root, and a system without " + dir)
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	secret := filepath.Join(dir, "certctl-test")
	require.NoError(t, os.WriteFile(secret, []byte("secret\n"), 0o600))
	require.NoError(t, os.Chmod(secret, 0o444)) // #nosec G302
	require.NoError(t, secretIn(t, secret))
	require.NoError(t, secretIn(t, "/var/run/secrets/certctl-test"))
	require.NoError(t, os.Chmod(secret, 0o666)) // #nosec G302
	require.ErrorContains(t, secretIn(t, secret), "is open to other users")
}
