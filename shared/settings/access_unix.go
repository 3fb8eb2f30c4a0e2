//go:build !windows

package settings

import (
	"fmt"
	"os"
	"syscall"
)

// checkWriters refuses a file or directory that others may change. In a directory with the sticky bit nobody replaces
// what is somebody else's. A group of the process's own is no others, for directories: many hosts give each user one
// and let it write whatever is made.
func checkWriters(path string, info os.FileInfo, dir bool) error {
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	me := os.Geteuid()
	if uid := int(owner.Uid); uid != 0 && uid != me {
		return &AccessError{Path: path,
			Problem: fmt.Sprintf("belongs to user id %d, who could have this program, which runs as user id %d, do anything", uid, me),
			Mend:    fmt.Sprintf("run \"chown 0 %s\", or run this program as its owner", path)}
	}
	others := info.Mode().Perm() & 0o022
	if dir && int(owner.Gid) == os.Getegid() {
		others &^= 0o020
	}
	if others == 0 || dir && info.Mode()&os.ModeSticky != 0 {
		return nil
	}
	return &AccessError{Path: path,
		Problem: fmt.Sprintf("may be written by others (mode %04o), who could have this program do anything", info.Mode().Perm()),
		Mend:    fmt.Sprintf("run \"chmod go-w %s\", and look at what was written", path)}
}

// checkReaders refuses a secret's file that others may use. Its group may read it if root gave it to that group.
func checkReaders(path string, info os.FileInfo) error {
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return nil
	}
	mode := info.Mode().Perm()
	if mode&0o077 == 0 || mode&0o037 == 0 && owner.Uid == 0 {
		return nil
	}
	mend := fmt.Sprintf("run \"chmod 0600 %s\"", path)
	if me := os.Geteuid(); int(owner.Uid) != me {
		mend = fmt.Sprintf("run \"chown %d %s\" and \"chmod 0600 %s\"", me, path, path)
	}
	return &AccessError{Path: path, Problem: fmt.Sprintf("is open to other users (mode %04o)", mode),
		Mend: mend + ", and replace the secret if somebody may have read it"}
}
