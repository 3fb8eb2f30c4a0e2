package durable

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// SyncDir does nothing on Windows, which has no call to flush a directory: a rename is flushed as it is made
// (MOVEFILE_WRITE_THROUGH), and NTFS keeps its other directory changes in a journal, in order.
func SyncDir(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// replace is os.Rename plus the wait until the move is on disk.
func replace(oldpath, newpath string) error {
	from, err := windows.UTF16PtrFromString(oldpath)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: oldpath, New: newpath, Err: err}
	}
	to, err := windows.UTF16PtrFromString(newpath)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: oldpath, New: newpath, Err: err}
	}
	if err := windows.MoveFileEx(from, to, windows.MOVEFILE_REPLACE_EXISTING|windows.MOVEFILE_WRITE_THROUGH); err != nil {
		return &os.LinkError{Op: "rename", Old: oldpath, New: newpath, Err: err}
	}
	return nil
}

func ownerIDs(fs.FileInfo) (uid, gid int) { return Keep, Keep }

func setOwnership(f *os.File, own Ownership) error {
	if own.UID != Keep || own.GID != Keep {
		return fmt.Errorf("owner %d, group %d: Windows has no numeric owners; leave them out", own.UID, own.GID)
	}
	if own.Mode&0o077 == 0 {
		return RestrictToAdministrators(f.Name())
	}
	return nil
}
