//go:build unix

package durable

import (
	"errors"
	"os"
	"syscall"
)

// lockFile uses flock, not fcntl: an fcntl lock is lost as soon as the process closes any descriptor of the file, and
// does not exclude a second holder in the same process.
func lockFile(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errHeld
		default:
			return err
		}
	}
}
