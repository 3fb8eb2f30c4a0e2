//go:build unix

package durable

import (
	"errors"
	"syscall"
)

// IsFull reports whether err says that the disk, or the user's part of it, has no room left. A write that failed so may
// work once somebody made room.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// IsReadOnly reports whether err says that the file system is mounted read-only.
func IsReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }
