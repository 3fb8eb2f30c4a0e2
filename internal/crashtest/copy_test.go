//go:build unix

package crashtest

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// clone copies what survives a crash at this moment.
func (w *world) clone(label string) *world { return w.cloneWith(label, copyTree) }

// cloneWith copies the world, and its disk by the function given.
func (w *world) cloneWith(label string, disk func(from, to string) error) *world {
	c := &world{
		t: w.t, bench: w.bench, root: w.bench.disk(w.t), at: time.Now(), label: label,
		ca: w.ca.clone(), settings: w.settings, before: w.before,
	}
	if w.standIn != nil {
		c.standIn = w.standIn.clone()
	}
	if w.centre != nil {
		c.centre = w.centre.clone(w.t)
	}
	for _, p := range w.places {
		c.places = append(c.places, &place{id: p.id, kept: p.kept.copy(), program: p.at(w.root, c.root)})
	}
	if err := disk(w.root, c.root); err != nil {
		w.t.Errorf("%s: copy: %v", label, err)
	}
	return c
}

// copyTree copies a disk. The paths in the records of open deployments are those
// of the copy. Times are kept: the age of a key file decides about it.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || rel == "." {
			return err
		}
		target := filepath.Join(to, rel)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch mode := info.Mode(); {
		case mode.IsDir():
			if err := os.Mkdir(target, mode.Perm()); err != nil {
				return err
			}
			return os.Chmod(target, mode.Perm())
		case mode&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		case entry.Name() == "state.db.lock":
			return nil // it dies with the process
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if entry.Name() == "record.json" {
			data = bytes.ReplaceAll(data, []byte(from), []byte(to))
		}
		if err := os.WriteFile(target, data, info.Mode().Perm()); err != nil {
			return err
		}
		return keepTime(target, info)
	})
}

// keepTime gives a copy the time of the file that it is of. That of a file which
// another part of the agent is just writing is still a real one, which lies behind
// every virtual one: no age could be told by it.
func keepTime(path string, info fs.FileInfo) error {
	at := info.ModTime()
	if now := time.Now(); at.After(now) {
		at = now
	}
	return os.Chtimes(path, at, at)
}
