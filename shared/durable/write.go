package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tempPattern names the files that a write leaves behind if the machine stops in its middle. RemoveStaleTemp finds
// them by it. The destination's name is not part of it, since name plus suffix could be longer than a name may be.
const tempPattern = ".certctl-*.tmp"

// Keep stands for "leave the owner or group as the system sets it" in Ownership.
const Keep = -1

// Ownership says whom a file belongs to and who may use it.
type Ownership struct {
	// UID and GID are numeric ids; Keep leaves the one of the writing process. On Windows only Keep is possible.
	UID, GID int
	// Mode holds the permission bits, set exactly, whatever the umask; 0 is refused. On Windows a mode that gives group
	// and others nothing (as 0600) restricts the file as RestrictToAdministrators does; any other leaves the access that
	// the directory passes on.
	Mode fs.FileMode
}

// OwnershipOf returns the ownership of an existing file, so that its replacement can have the same. On Windows both ids
// are Keep.
func OwnershipOf(path string) (Ownership, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Ownership{}, fmt.Errorf("read ownership: %w", err)
	}
	uid, gid := ownerIDs(info)
	return Ownership{UID: uid, GID: gid, Mode: info.Mode().Perm()}, nil
}

// WriteFile makes path hold exactly data, with the permission bits perm (set exactly, whatever the umask). It returns
// nil only once content and name are on disk. After an error path holds either the whole old content or the whole new
// one, and nothing is left beside it. A symbolic link at path is replaced, not followed.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return WriteFileOwned(path, data, Ownership{UID: Keep, GID: Keep, Mode: perm})
}

// WriteFileOwned is WriteFile with an owner and a group. The file never shows under its name with another owner or mode
// than the one asked for.
func WriteFileOwned(path string, data []byte, own Ownership) error {
	return writeFile(path, data, own, nil)
}

// Steps of a write.
const (
	stepCreate    Step = "durable: create temporary file"
	stepOwnership Step = "durable: set owner and mode"
	stepWrite     Step = "durable: write"
	stepSync      Step = "durable: sync"
	stepClose     Step = "durable: close"
	stepRename    Step = "durable: rename"
	stepSyncDir   Step = "durable: sync directory"
)

// writeSteps is the order of a write. Owner and mode come before the content, so that no octet of a key is ever readable
// by more than the file will allow in the end.
var writeSteps = []Step{stepCreate, stepOwnership, stepWrite, stepSync, stepClose, stepRename, stepSyncDir}

func writeFile(path string, data []byte, own Ownership, hook Hook) error {
	if own.Mode.Perm() == 0 || own.Mode != own.Mode.Perm() {
		return fmt.Errorf("write %s: mode %#o: want permission bits such as 0600", path, uint32(own.Mode))
	}
	dir := filepath.Dir(path)
	var temp *os.File
	renamed := false
	steps := map[Step]func() error{
		stepCreate: func() (err error) {
			temp, err = os.CreateTemp(dir, tempPattern) // O_EXCL, mode 0600
			return err
		},
		stepOwnership: func() error { return setOwnership(temp, own) },
		stepWrite:     func() error { _, err := temp.Write(data); return err },
		stepSync:      func() error { return Sync(temp) },
		stepClose:     func() error { return temp.Close() },
		stepRename: func() error {
			err := replace(temp.Name(), path)
			renamed = err == nil
			return err
		},
		stepSyncDir: func() error { return SyncDir(dir) },
	}
	for _, s := range writeSteps {
		err := hook.Around(s, path, steps[s])
		if err == nil {
			continue
		}
		err = fmt.Errorf("write %s: %s: %w", path, strings.TrimPrefix(string(s), "durable: "), err)
		if temp != nil && !renamed {
			err = errors.Join(err, discard(temp))
		}
		return err
	}
	return nil
}

// discard closes and removes a temporary file. That it is closed already is no error.
func discard(temp *os.File) error {
	if err := temp.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close temporary file: %w", err)
	}
	if err := os.Remove(temp.Name()); err != nil {
		return fmt.Errorf("remove temporary file: %w", err)
	}
	return nil
}
