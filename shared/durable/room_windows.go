package durable

import (
	"errors"

	"golang.org/x/sys/windows"
)

// IsFull reports whether err says that the disk, or the user's part of it, has no room left. A write that failed so may
// work once somebody made room.
func IsFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

// IsReadOnly reports whether err says that the medium is write-protected.
func IsReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }
