package file

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/certctl/certctl/shared/durable"
)

// step is one thing that a deployment does and that can fail, or be the last
// before a crash.
type step string

const (
	stepCreate    step = "create temporary file"
	stepAccess    step = "set owner and mode"
	stepWrite     step = "write"
	stepSync      step = "sync"
	stepRename    step = "rename"
	stepRemove    step = "remove"
	stepSyncDir   step = "sync directory"
	stepMkdir     step = "create directory"
	stepLink      step = "create symbolic link"
	stepSnapshot  step = "write snapshot"
	stepOpen      step = "open transaction"
	stepSave      step = "save state"
	stepCheck     step = "check"
	stepReload    step = "reload"
	stepVerify    step = "verify"
	stepClose     step = "close transaction"
	stepSaveEnd   step = "save end"
	stepForget    step = "remove snapshot"
	stepRemoveOld step = "remove old directory"
)

// fault is the seam for tests: it is called before and after each step, and its
// error makes the step fail there.
type fault func(s step, path string, done bool) error

func noFault(step, string, bool) error { return nil }

// around does a step on a file or directory.
func (f fault) around(s step, path string, do func() error) error {
	if err := f.plain(s, path, do); err != nil {
		return fmt.Errorf("%s: %s: %w", path, s, err)
	}
	return nil
}

// plain does a step whose errors need no further words.
func (f fault) plain(s step, subject string, do func() error) error {
	if err := f(s, subject, false); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return f(s, subject, true)
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
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing a leftover: %w", err)
	}
	var f *os.File
	if err := t.fault.around(stepCreate, path, func() (err error) {
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
	if err := t.fault.around(stepAccess, path, func() error { return t.access.set(f, want, k) }); err != nil {
		return err
	}
	if err := t.fault.around(stepWrite, path, func() error { _, err := f.Write(content); return err }); err != nil {
		return err
	}
	return t.fault.around(stepSync, path, f.Sync)
}

func (t *Target) rename(from, to string) error {
	return t.fault.around(stepRename, to, func() error { return os.Rename(from, to) })
}

func (t *Target) syncDir(dir string) error {
	return t.fault.around(stepSyncDir, dir, func() error { return durable.SyncDir(dir) })
}

func (t *Target) remove(path string) error {
	return t.fault.around(stepRemove, path, func() error { return removeIfThere(path) })
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
