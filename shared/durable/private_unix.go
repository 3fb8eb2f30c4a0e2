//go:build unix

package durable

import (
	"fmt"
	"io/fs"
	"os"
)

// RestrictToAdministrators leaves a file or directory to its owner and the administrators. On Unix root needs no
// permission, so it takes every access from group and others; on Windows it sets a DACL.
func RestrictToAdministrators(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("restrict access: %w", err)
	}
	if err := os.Chmod(path, info.Mode().Perm()&^0o077); err != nil {
		return fmt.Errorf("restrict access: %w", err)
	}
	return nil
}

func createPrivateDir(path string) error { return MkdirAll(path, 0o700) }

func checkAccess(path string, info fs.FileInfo) error {
	me := os.Geteuid()
	if uid, _ := ownerIDs(info); uid != me {
		return &PrivateDirError{Path: path,
			Problem: fmt.Sprintf("belongs to user id %d, but this program runs as user id %d", uid, me),
			Mend:    fmt.Sprintf("run \"chown -R %d %s\", or start the program as its owner", me, path)}
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return &PrivateDirError{Path: path,
			Problem: fmt.Sprintf("is open to other users (mode %04o)", mode),
			Mend:    fmt.Sprintf("run \"chmod 0700 %s\"", path)}
	}
	return nil
}
