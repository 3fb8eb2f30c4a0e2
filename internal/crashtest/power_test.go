//go:build unix

package crashtest

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certctl/certctl/shared/durable"
)

// cache is what the disk was given and has not been made to confirm: a power
// failure may take it back, although every program has seen it.
type cache struct {
	undos []undo
	seen  found // by the step that begins
}

// undo is how a place looked before something that is not confirmed yet.
type undo struct {
	path string
	was  found
}

// found is what is at a path: a file, a link, or nothing.
type found struct {
	content []byte
	mode    fs.FileMode
	link    string
	exists  bool
}

func look(path string) (f found) {
	info, err := os.Lstat(path)
	if err != nil {
		return found{}
	}
	f = found{mode: info.Mode().Perm(), exists: true}
	if info.Mode()&fs.ModeSymlink != 0 {
		f.link, _ = os.Readlink(path)
		return f
	}
	f.content, _ = os.ReadFile(path)
	return f
}

// follow keeps account of a step. What durable.WriteFile and its like do is
// confirmed when they return, and so is a commit.
func (c *cache) follow(step durable.Step, path string, done bool) {
	confirmed := func(match func(undo) bool) { c.undos = slices.DeleteFunc(c.undos, match) }
	switch step {
	case "deploy/file: close transaction":
		path = filepath.Join(path, "record.json")
		fallthrough
	case "deploy/file: rename", "keys: create":
		if !done {
			c.seen = look(path)
			return
		}
		for i, u := range c.undos {
			if _, err := os.Lstat(u.path); errors.Is(err, fs.ErrNotExist) && u.was.exists {
				c.undos[i].path = path // what was not synced was renamed to this
			}
		}
		c.undos = append(c.undos, undo{path, c.seen})
	case "deploy/file: write":
		if done { // there is a name, and nothing behind it
			c.undos = append(c.undos, undo{path, found{mode: 0o600, exists: true}})
		}
	case "deploy/file: sync":
		if done {
			confirmed(func(u undo) bool { return u.path == path })
		}
	case "keys: sync directory": // is told of the key
		if done {
			confirmed(func(u undo) bool { return u.path == path })
		}
	case "deploy/file: sync directory", "deploy/file: sync closed transaction":
		if done {
			confirmed(func(u undo) bool { return filepath.Dir(u.path) == path })
		}
	}
}

// lose takes back on a copy what was not confirmed.
func (c *cache) lose(from, to string) error {
	var problems []error
	for _, u := range slices.Backward(c.undos) {
		at := to + strings.TrimPrefix(u.path, from)
		if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
		switch {
		case !u.was.exists:
		case u.was.link != "":
			problems = append(problems, os.Symlink(u.was.link, at))
		default:
			problems = append(problems, os.WriteFile(at, bytes.ReplaceAll(u.was.content, []byte(from), []byte(to)), u.was.mode))
		}
	}
	return errors.Join(problems...)
}

// powerFails is a copy of the world as a power failure would leave it at this
// moment: what was not confirmed is gone, and the programs have started again
// with what is on the disk.
func (w *world) powerFails(label string) *world {
	c := w.clone("power failure " + label)
	if err := w.cache.lose(w.root, c.root); err != nil {
		w.t.Errorf("%s: %v", label, err)
	}
	for _, p := range c.places {
		var err error
		if p.loaded, err = p.read(); err != nil {
			w.bench.mismatches.Add(1)
			w.t.Errorf("%s: %s does not start: %v", c.label, p.id, err)
		}
	}
	w.bench.power.Add(1)
	return c
}
