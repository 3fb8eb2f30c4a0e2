package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// MkdirAll creates path and every missing directory above it, with the permission bits perm (set exactly on those that
// it creates), and returns nil only once all that was missing is on disk. A directory that exists is left as it is.
func MkdirAll(path string, perm fs.FileMode) error {
	info, err := os.Stat(path)
	if err == nil {
		if !info.IsDir() {
			return fmt.Errorf("create directory: %w", &fs.PathError{Op: "mkdir", Path: path, Err: syscall.ENOTDIR})
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create directory: %w", err)
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	err = os.Mkdir(path, perm)
	if errors.Is(err, fs.ErrExist) {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			// Somebody else was faster, but may not have come to the sync yet.
			return SyncDir(parent)
		}
	}
	if err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	if err := os.Chmod(path, perm); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	return SyncDir(parent)
}

// Rename moves oldpath to newpath, replacing a file that is there, and returns nil only once the move is on disk. Both
// must lie on one file system. After an error the file is at exactly one of the two paths.
func Rename(oldpath, newpath string) error {
	if err := replace(oldpath, newpath); err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	from, to := filepath.Dir(oldpath), filepath.Dir(newpath)
	if err := SyncDir(to); err != nil {
		return err
	}
	if from == to {
		return nil
	}
	return SyncDir(from)
}

// Remove removes a file or an empty directory and returns nil only once that is on disk. A path that is not there gives
// an error that matches fs.ErrNotExist.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return SyncDir(filepath.Dir(path))
}

// RemoveAll removes a file, or a directory with all that is in it, and returns nil only once that is on disk: keys that
// were removed do not come back. A path that is not there, or whose directory is not, gives no error. After an error a part of it may be gone.
func RemoveAll(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if err := SyncDir(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveStaleTemp removes what writes into dir left behind when the machine stopped in their middle, and returns how
// many files it removed. Call it only while nobody writes into dir, as at start with the lock held.
func RemoveStaleTemp(dir string) (int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("remove stale temporary files: %w", err)
	}
	removed := 0
	for _, entry := range entries {
		match, err := filepath.Match(tempPattern, entry.Name())
		if err != nil {
			return removed, fmt.Errorf("remove stale temporary files: %w", err)
		}
		if !match || !entry.Type().IsRegular() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
			return removed, fmt.Errorf("remove stale temporary files: %w", err)
		}
		removed++
	}
	if removed == 0 {
		return 0, nil
	}
	return removed, SyncDir(dir)
}
