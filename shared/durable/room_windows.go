package durable

import (
	"errors"
	"fmt"

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

// Room is how many octets can be written yet to the volume of a directory, and how many it has in all.
func Room(dir string) (free, total uint64, err error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err == nil {
		err = windows.GetDiskFreeSpaceEx(path, &free, &total, nil)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("look for room in %s: %w", dir, err)
	}
	return free, total, nil
}
