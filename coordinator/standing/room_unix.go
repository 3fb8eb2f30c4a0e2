//go:build unix

package standing

import (
	"fmt"
	"syscall"
)

// room is how much of the file system of a directory can be written yet, and how
// much there is.
func room(dir string) (free, total uint64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, fmt.Errorf("look for room in %s: %w", dir, err)
	}
	size := uint64(s.Bsize)                                      //nolint:gosec,unconvert // positive; its type depends on the system
	return uint64(s.Bavail) * size, uint64(s.Blocks) * size, nil //nolint:gosec,unconvert // as above
}
