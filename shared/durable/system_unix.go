//go:build unix

package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// SyncDir makes the names in a directory durable: a file that was created, renamed or removed there stays so after a
// power failure.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return errors.Join(wrapSync(dir, Sync(f)), f.Close())
}

func wrapSync(dir string, err error) error {
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

func replace(oldpath, newpath string) error { return os.Rename(oldpath, newpath) }

func ownerIDs(info fs.FileInfo) (uid, gid int) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Keep, Keep
	}
	return int(st.Uid), int(st.Gid)
}

// setOwnership sets the owner first: giving a file away clears mode bits.
func setOwnership(f *os.File, own Ownership) error {
	if own.UID != Keep || own.GID != Keep {
		if err := f.Chown(own.UID, own.GID); err != nil {
			return fmt.Errorf("owner %d, group %d: %w; run as root or choose a group that the program is a member of", own.UID, own.GID, err)
		}
	}
	return f.Chmod(own.Mode)
}
