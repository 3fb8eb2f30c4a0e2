package durable

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The kernel has no sync for what lies in /proc and says so: the error proves
// that the system was asked.
func TestSyncsReachTheSystem(t *testing.T) {
	require.ErrorIs(t, SyncDir("/proc/self"), syscall.EINVAL)
	f, err := os.Open("/proc/self/stat")
	require.NoError(t, err)
	defer f.Close()
	require.ErrorIs(t, Sync(f), syscall.EINVAL)
}
