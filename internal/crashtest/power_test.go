//go:build unix

package crashtest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/certctl/certctl/shared/durable"
)

// platter is what is on a disk for certain, which is all that a power failure
// leaves: each content as it was when a sync of its file began that succeeded,
// and each name as at such a sync of its directory. What a step says of itself
// changes nothing here; the syncs that were really made do.
type platter struct {
	t    *testing.T
	root string

	mu    sync.Mutex
	files map[uint64][]byte // by inode
	dirs  map[uint64]names  // by inode
	last  map[uint64]names  // as every program saw them at the last crash point
	// pins keep the inodes of all that was seen from being used again.
	pins map[uint64]*os.File
}

// names are those in a directory.
type names map[string]entry

// entry is what a name leads to; the zero one is nothing.
type entry struct {
	inode uint64
	mode  fs.FileMode
	link  string
}

// newPlatter has on it what is there now. It listens until the test's end.
func newPlatter(t *testing.T, root string) *platter {
	p := &platter{t: t, root: root, files: map[uint64][]byte{}, dirs: map[uint64]names{}, pins: map[uint64]*os.File{}}
	t.Cleanup(func() {
		for _, pin := range p.pins {
			_ = pin.Close()
		}
	})
	p.last = p.everyDirectory(func(path string) { p.look(path)() })
	t.Cleanup(durable.WatchSyncs(root, func(path string) func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		confirm := p.look(path)
		return func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			confirm()
		}
	}))
	return p
}

// everyDirectory is what all directories hold. each, if set, gets every file.
func (p *platter) everyDirectory(each func(path string)) map[uint64]names {
	all := map[uint64]names{}
	err := filepath.WalkDir(p.root, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if each != nil && (e.IsDir() || e.Type().IsRegular()) {
			each(path)
		}
		if e.IsDir() {
			all[p.entry(path).inode] = p.names(path)
		}
		return nil
	})
	if err != nil {
		p.t.Errorf("look at the disk: %v", err)
	}
	return all
}

// entry is what is at path, links not followed.
func (p *platter) entry(path string) entry {
	info, err := os.Lstat(path)
	if err != nil {
		return entry{}
	}
	e := entry{inode: info.Sys().(*syscall.Stat_t).Ino, mode: info.Mode()}
	if e.mode&fs.ModeSymlink != 0 {
		e.link, _ = os.Readlink(path)
		return e
	}
	if p.pins[e.inode] == nil && (e.mode.IsDir() || e.mode.IsRegular()) {
		if pin, err := os.Open(path); err == nil {
			p.pins[e.inode] = pin
		}
	}
	return e
}

func (p *platter) names(dir string) names {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	all := names{}
	for _, e := range list {
		if found := p.entry(filepath.Join(dir, e.Name())); found.inode != 0 {
			all[e.Name()] = found
		}
	}
	return all
}

// look sees what is at path now, and returns what puts that onto the platter.
func (p *platter) look(path string) (confirm func()) {
	switch e := p.entry(path); {
	case e.mode.IsDir():
		found := p.names(path)
		return func() { p.dirs[e.inode] = found }
	case e.mode.IsRegular():
		found, err := os.ReadFile(path)
		if err != nil {
			p.t.Errorf("look at a file that is synced: %v", err)
		}
		return func() { p.files[e.inode] = found }
	}
	p.t.Errorf("%s is synced, and is neither a file nor a directory", path)
	return func() {}
}

// follow keeps account of a step, and checks what it promises.
func (p *platter) follow(step durable.Step, path string, done bool) {
	if !done {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if syncsItself(step) {
		p.look(path)()
	}
	if promise := promises[step]; promise != nil {
		if err := promise(p, path); err != nil {
			p.t.Errorf("%q is over, and a power failure would undo it: %v", step, err)
		}
	}
}

// syncsItself reports whether a step is one of bbolt, which makes its own syncs.
// That it does is checked where it is opened (TestTheStateFileIsSynced).
func syncsItself(step durable.Step) bool {
	return commits(step) || step == "store: make state file" || step == "store: change schema"
}

// promises say what is on the disk for certain when a step is over.
var promises = map[durable.Step]func(p *platter, path string) error{
	"keys: sync":           (*platter).holdsContent,
	"keys: sync directory": (*platter).holds, // is told of the key
	"keys: discard":        (*platter).holds,
	"keys: remove":         (*platter).holds,

	"store: name state file":           (*platter).holds,
	"store: keep copy of older schema": (*platter).holds,
	// That there is room is known when the disk has taken it.
	"store: check room": (*platter).holdsContent,

	"renewal: create scratch directory":        (*platter).holds,
	"renewal: remove unused scratch directory": (*platter).holds,

	"deploy/file: sync":                      (*platter).holdsContent,
	"deploy/file: sync directory":            (*platter).holdsNames,
	"deploy/file: create snapshot directory": (*platter).holds,
	"deploy/file: write snapshot":            (*platter).holds,
	"deploy/file: open transaction": func(p *platter, path string) error {
		return p.holds(filepath.Join(path, "record.json"))
	},
	"deploy/file: remove snapshot":         (*platter).holds,
	"deploy/file: remove old directory":    (*platter).holds,
	"deploy/file: sync closed transaction": (*platter).holdsNames,
	"deploy/file: create directory": func(p *platter, path string) error {
		if strings.Contains(filepath.Base(path), ".certctl-") {
			return nil // has a name of its own, which is synced with what comes into it
		}
		return p.holds(path)
	},
}

// holds checks that a path leads to what every program sees there, or to nothing
// where there is nothing.
func (p *platter) holds(path string) error {
	rel, err := filepath.Rel(p.root, path)
	if err != nil {
		return err
	}
	at := p.root
	for name := range strings.SplitSeq(rel, string(filepath.Separator)) {
		dir, parent := p.entry(at).inode, at
		at = filepath.Join(at, name)
		seen, has := p.entry(at), p.dirs[dir][name]
		if seen != has {
			return fmt.Errorf("%s is %+v for who looks, and %+v on the disk", at, seen, has)
		}
		if seen.link != "" {
			at = filepath.Join(parent, seen.link) // those here are relative
			if err := p.holds(at); err != nil {
				return err
			}
		}
	}
	if e := p.entry(at); e.inode == 0 || !e.mode.IsRegular() {
		return nil
	}
	return p.holdsContent(at)
}

// holdsAll is holds for several paths, under the lock.
func (p *platter) holdsAll(paths ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var problems []error
	for _, path := range paths {
		if path != "" {
			problems = append(problems, p.holds(path))
		}
	}
	return errors.Join(problems...)
}

// unconfirmed lists what every program sees and a power failure would undo, by
// paths from the root: names, and contents.
type unconfirmed struct{ names, contents []string }

func (p *platter) unconfirmed() (list unconfirmed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := func(path string) {
		e := p.entry(path)
		rel := strings.TrimPrefix(path, p.root)
		if e.mode.IsRegular() {
			if p.holdsContent(path) != nil {
				list.contents = append(list.contents, rel)
			}
			return
		}
		all := maps.Clone(p.dirs[e.inode])
		if all == nil {
			all = names{}
		}
		now := p.names(path)
		maps.Copy(all, now)
		for name := range all {
			if now[name] != p.dirs[e.inode][name] {
				list.names = append(list.names, filepath.Join(rel, name))
			}
		}
	}
	p.everyDirectory(seen)
	return list
}

// doubt takes off the platter what was not confirmed on the one that this is a
// copy of: a crash of the agent confirms nothing.
func (p *platter) doubt(list unconfirmed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rel := range list.names {
		path := filepath.Join(p.root, rel)
		dir := p.dirs[p.entry(filepath.Dir(path)).inode]
		if dir == nil {
			continue
		}
		if now := p.entry(path); now.inode != 0 {
			delete(dir, filepath.Base(path))
		} else {
			dir[filepath.Base(path)] = entry{inode: math.MaxUint64} // what was there before
		}
	}
	for _, rel := range list.contents {
		delete(p.files, p.entry(filepath.Join(p.root, rel)).inode)
	}
}

func (p *platter) holdsContent(path string) error {
	seen, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	has, synced := p.files[p.entry(path).inode]
	if !synced || !bytes.Equal(seen, has) {
		return fmt.Errorf("the content of %s was not synced", path)
	}
	return nil
}

func (p *platter) holdsNames(dir string) error {
	if seen, has := p.names(dir), p.dirs[p.entry(dir).inode]; !maps.Equal(seen, has) {
		return fmt.Errorf("the directory %s has %v for who looks, and %v on the disk", dir, seen, has)
	}
	return nil
}

// latest are the names that have changed since the last crash point and are not
// confirmed, by directory.
func (p *platter) latest() map[uint64]names {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.everyDirectory(nil)
	changed := map[uint64]names{}
	for dir, seen := range now {
		all := maps.Clone(p.last[dir])
		if all == nil {
			all = names{}
		}
		maps.Copy(all, seen)
		for name := range all {
			if seen[name] == p.last[dir][name] || seen[name] == p.dirs[dir][name] {
				continue
			}
			if changed[dir] == nil {
				changed[dir] = names{}
			}
			changed[dir][name] = seen[name]
		}
	}
	p.last = now
	return changed
}

// write makes in to what a power failure leaves. Of the names that are not
// confirmed it leaves those in kept.
func (p *platter) write(to string, kept map[uint64]names) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writeDir(p.entry(p.root).inode, to, to, kept)
}

func (p *platter) writeDir(dir uint64, to, root string, kept map[uint64]names) error {
	all := names{}
	maps.Copy(all, p.dirs[dir])
	maps.Copy(all, kept[dir])
	for name, e := range all {
		target := filepath.Join(to, name)
		switch {
		case e.inode == 0 || name == "state.db.lock": // was removed; dies with the process
			continue
		case e.mode.IsDir():
			if err := errors.Join(os.Mkdir(target, e.mode.Perm()), os.Chmod(target, e.mode.Perm()), p.writeDir(e.inode, target, root, kept)); err != nil {
				return err
			}
			continue
		case e.mode&fs.ModeSymlink != 0:
			if err := os.Symlink(e.link, target); err != nil {
				return err
			}
			continue
		}
		data := p.files[e.inode] // of one that was never synced, nothing
		if name == "record.json" {
			data = bytes.ReplaceAll(data, []byte(p.root), []byte(root))
		}
		if err := os.WriteFile(target, data, e.mode.Perm()); err != nil {
			return err
		}
		info, err := p.pins[e.inode].Stat()
		if err == nil {
			err = keepTime(target, info)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// powerFails are the worlds that a power failure may leave at this moment: all
// that was not confirmed is gone, or all but the newest names, since nothing makes
// a disk write in order what was asked of it. The programs have started again with
// what is on the disk.
func (w *world) powerFails(label string) (left []*world) {
	latest := w.platter.latest()
	after := func(label string, kept map[uint64]names) {
		c := w.cloneWith(label, func(_, to string) error { return w.platter.write(to, kept) })
		for _, p := range c.places {
			var err error
			if p.loaded, err = p.read(); err != nil {
				w.bench.mismatches.Add(1)
				w.t.Errorf("%s: %s does not start: %v", c.label, p.id, err)
			}
		}
		w.bench.power.Add(1)
		left = append(left, c)
	}
	after("power failure "+label, nil)
	if len(latest) > 0 {
		after("power failure, the newest names are kept, "+label, latest)
	}
	return left
}
