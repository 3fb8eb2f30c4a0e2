package file

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/certctl/certctl/shared/durable"
)

// Steps of a deployment that can fail, or be the last before a crash.
const (
	stepCreate      durable.Step = "deploy/file: create temporary file"
	stepAccess      durable.Step = "deploy/file: set owner and mode"
	stepWrite       durable.Step = "deploy/file: write"
	stepSync        durable.Step = "deploy/file: sync"
	stepRename      durable.Step = "deploy/file: rename"
	stepRemove      durable.Step = "deploy/file: remove"
	stepSyncDir     durable.Step = "deploy/file: sync directory"
	stepMkdir       durable.Step = "deploy/file: create directory"
	stepLink        durable.Step = "deploy/file: create symbolic link"
	stepSnapshotDir durable.Step = "deploy/file: create snapshot directory"
	stepSnapshot    durable.Step = "deploy/file: write snapshot"
	stepOpen        durable.Step = "deploy/file: open transaction"
	stepSave        durable.Step = "deploy/file: save state"
	stepCheck       durable.Step = "deploy/file: check"
	stepReload      durable.Step = "deploy/file: reload"
	stepVerify      durable.Step = "deploy/file: verify"
	stepClose       durable.Step = "deploy/file: close transaction"
	stepCloseSync   durable.Step = "deploy/file: sync closed transaction"
	stepSaveEnd     durable.Step = "deploy/file: save end"
	stepForget      durable.Step = "deploy/file: remove snapshot"
	stepRemoveOld   durable.Step = "deploy/file: remove old directory"
	stepLeftover    durable.Step = "deploy/file: remove leftover"
)

// around does a step on a file or directory.
func (t *Target) around(s durable.Step, path string, do func() error) error {
	return around(t.hook, s, path, do)
}

func around(hook durable.Hook, s durable.Step, path string, do func() error) error {
	if err := hook.Around(s, path, do); err != nil {
		return fmt.Errorf("%s: %s: %w", path, strings.TrimPrefix(string(s), "deploy/file: "), err)
	}
	return nil
}

// tempFor is where the new content of path is written first. The name depends
// on nothing but path, so that what a crash left is found again; its length does
// not grow with that of path, which may be as long as a name can be; and it fits
// the pattern by which the other leftovers of certctl are recognised.
func tempFor(path string) string {
	sum := sha256.Sum256([]byte(filepath.Base(path)))
	return filepath.Join(filepath.Dir(path), ".certctl-"+hex.EncodeToString(sum[:8])+".tmp")
}

// create writes a new file and returns once its content, though not yet its
// name, is on disk. Owner and mode are set while the file is still empty. What
// is at path already, a leftover, is replaced.
func (t *Target) create(path string, k kind, content []byte, want attributes) (err error) {
	if err := t.removeLeftover(path); err != nil {
		return err
	}
	var f *os.File
	if err := t.around(stepCreate, path, func() (err error) {
		// O_EXCL: a file or link that somebody else puts there is never used.
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	}); err != nil {
		if f != nil {
			f.Close()
		}
		return err
	}
	defer func() {
		// A write error may show at closing only.
		if closeErr := f.Close(); closeErr != nil && err == nil {
			err = fmt.Errorf("closing %s: %w", path, closeErr)
		}
	}()
	if err := t.around(stepAccess, path, func() error { return t.access.set(f, want, k) }); err != nil {
		return err
	}
	if err := t.around(stepWrite, path, func() error { _, err := f.Write(content); return err }); err != nil {
		return err
	}
	return t.around(stepSync, path, func() error { return durable.Sync(f) })
}

func (t *Target) rename(from, to string) error {
	return t.around(stepRename, to, func() error { return os.Rename(from, to) })
}

func (t *Target) syncDir(dir string) error {
	return t.around(stepSyncDir, dir, func() error { return durable.SyncDir(dir) })
}

func (t *Target) remove(path string) error {
	return t.around(stepRemove, path, func() error { return removeIfThere(path) })
}

// removeLeftover removes what an attempt that did not end left at path. Where there is nothing, nothing is done.
func (t *Target) removeLeftover(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return t.around(stepLeftover, path, func() error { return removeIfThere(path) })
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncAll syncs each directory once.
func (t *Target) syncAll(dirs []string) error {
	seen := map[string]bool{}
	for _, dir := range dirs {
		if seen[dir] {
			continue
		}
		seen[dir] = true
		if err := t.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}
