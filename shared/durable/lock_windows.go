package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockFile locks one octet far behind the end of the file: a lock on Windows also stops others from reading what it
// covers, and the process id at the start is for them.
func lockFile(f *os.File) error {
	at := windows.Overlapped{OffsetHigh: 0x7fffffff}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return errHeld
	}
	return err
}
