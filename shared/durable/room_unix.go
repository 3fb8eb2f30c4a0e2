//go:build unix

package durable

import (
	"errors"
	"fmt"
	"syscall"
)

// IsFull reports whether err says that the disk, or the user's part of it, has no room left. A write that failed so may
// work once somebody made room.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// IsReadOnly reports whether err says that the file system is mounted read-only.
func IsReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }

// Room is how many octets can be written yet to the file system of a directory, and
// how many it has in all.
func Room(dir string) (free, total uint64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, fmt.Errorf("look for room in %s: %w", dir, err)
	}
	size := uint64(s.Bsize)                                      //nolint:gosec // positive; its type depends on the system
	return uint64(s.Bavail) * size, uint64(s.Blocks) * size, nil //nolint:gosec,unconvert // as above
}
