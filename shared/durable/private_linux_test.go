package durable

import (
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// withFileSizeLimit runs f while no file of this process can grow beyond limit octets. Tests of this package do not run
// in parallel, so nobody else is hit.
func withFileSizeLimit(t *testing.T, limit uint64, f func()) {
	t.Helper()
	var before syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: before.Max}))
	defer func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before)) }()
	f()
}

func TestUnwritablePrivateDir(t *testing.T) {
	// A full disk, for root too: no file of this process may grow beyond zero octets.
	dir := filepath.Join(t.TempDir(), "state")
	require.NoError(t, EnsurePrivateDir(dir))
	path := filepath.Join(dir, "f")
	require.NoError(t, WriteFile(path, []byte("old"), 0o600))

	withFileSizeLimit(t, 0, func() {
		err := CheckPrivateDir(dir)
		var refused *PrivateDirError
		if assert.ErrorAs(t, err, &refused) {
			assert.Equal(t, "cannot be written", refused.Problem)
			assert.ErrorIs(t, err, syscall.EFBIG)
		}
		assert.ErrorIs(t, WriteFile(path, []byte("new"), 0o600), syscall.EFBIG)
	})
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "old", string(got))
	assert.Equal(t, []string{"f"}, dirNames(t, dir))
}
