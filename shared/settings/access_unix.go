//go:build !windows

package settings

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// checkReaders refuses a secret's file that others may use. Its group may read it if root gave it to that group. Any mode
// without a right to write will do where somebody has put the file for this program alone, and any mode at all where
// nobody else gets to it.
func checkReaders(path string, info os.FileInfo) error {
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return nil
	}
	mode := info.Mode().Perm()
	if mode&0o077 == 0 || mode&0o037 == 0 && owner.Uid == 0 {
		return nil
	}
	if target, err := leadsTo(path, info); err == nil && (outOfReach(target, mode) || mode&0o022 == 0 && mountedForUs(target)) {
		return nil
	}
	mend := fmt.Sprintf("run \"chmod 0600 %s\"", path)
	if me := os.Geteuid(); int(owner.Uid) != me {
		mend = fmt.Sprintf("run \"chown %d %s\" and \"chmod 0600 %s\"", me, path, path)
	}
	return &AccessError{Path: path, Problem: fmt.Sprintf("is open to other users (mode %04o)", mode),
		Mend: mend + ", and replace the secret if somebody may have read it; or keep it in a directory that only root and this " +
			"program's user may enter, or where a container's runtime or systemd mounts secrets, read-only"}
}

// leadsTo is the name of a file without symbolic links.
func leadsTo(path string, info os.FileInfo) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	now, err := os.Stat(target)
	if err == nil && !os.SameFile(now, info) {
		err = errors.New("it was replaced")
	}
	return target, err
}

// outOfReach reports whether a directory on the way to a file is closed to all but root and this process's user, or is
// root's and open to its group alone, which then must not be able to write the file.
func outOfReach(target string, mode os.FileMode) bool {
	for dir := filepath.Dir(target); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return false
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); ok {
			ours := owner.Uid == 0 || int(owner.Uid) == os.Geteuid()
			enters := info.Mode().Perm() & 0o011
			if ours && enters == 0 || owner.Uid == 0 && enters == 0o010 && mode&0o022 == 0 {
				return true
			}
		}
		if dir == filepath.Dir(dir) {
			return false
		}
	}
}

// secretMounts are where containers' runtimes mount secrets: Docker and Podman each file, Kubernetes the account's token.
// /var/run leads to /run, or is a directory of its own.
var secretMounts = []string{"/run/secrets", "/var/run/secrets"}

// mountedForUs reports whether a file was put where it is for this program to read, by who started it: systemd's
// credentials, the secrets of containers' runtimes, and file systems in memory that cannot be written, as which
// Kubernetes mounts secrets wherever the pod wants them.
func mountedForUs(target string) bool {
	places := secretMounts
	if dir, err := filepath.EvalSymlinks(os.Getenv("CREDENTIALS_DIRECTORY")); err == nil && filepath.IsAbs(dir) && dir != "/" {
		places = append(slices.Clone(places), dir)
	}
	for _, place := range places {
		if strings.HasPrefix(target, place+"/") {
			return true
		}
	}
	return readOnlyMemory(target)
}
