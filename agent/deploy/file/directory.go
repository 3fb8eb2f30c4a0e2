package file

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/certctl/certctl/shared/durable"
)

// directoryLayout is LayoutDirectory: link is a symbolic link to a directory
// that holds this target's files and nothing else, and whose name says that
// certctl made it.
type directoryLayout struct {
	t    *Target
	link string
}

// linkPlan is what LayoutDirectory will do.
type linkPlan struct {
	exists bool   // the link is there
	where  string // the link, with the links above it followed
	old    string // what it says now
	fresh  string // name of the new directory, beside the link
}

func newDirectoryLayout(t *Target) (layout, error) {
	if runtime.GOOS == "windows" {
		return nil, fmt.Errorf("%q needs symbolic links that programs follow: use %q on Windows", LayoutDirectory, LayoutFiles)
	}
	l := &directoryLayout{t: t}
	for _, spec := range t.files {
		dir := filepath.Dir(spec.path)
		if l.link != "" && l.link != dir {
			return nil, fmt.Errorf("%q needs all files in one directory, not in %s and %s", LayoutDirectory, l.link, dir)
		}
		l.link = dir
	}
	if l.link == filepath.Dir(l.link) {
		return nil, fmt.Errorf("%q cannot replace %s by a symbolic link: give the files a directory of their own", LayoutDirectory, l.link)
	}
	return l, nil
}

func (l *directoryLayout) prefix() string { return "." + filepath.Base(l.link) + ".certctl-" }

func (l *directoryLayout) locate(p *plan) error {
	parent, err := l.t.locateDir(filepath.Dir(l.link))
	if err != nil {
		return err
	}
	p.link = &linkPlan{where: filepath.Join(parent, filepath.Base(l.link)), fresh: l.prefix() + randomID()}
	for _, spec := range l.t.files {
		p.items = append(p.items, item{fileSpec: spec, where: filepath.Join(p.link.where, filepath.Base(spec.path))})
	}
	info, err := os.Lstat(p.link.where)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking at the link that is there: %w", err)
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		return fmt.Errorf("%s is a %s, but this layout needs a symbolic link there: move it away, and certctl makes the link", p.link.where, describe(info.Mode()))
	}
	if !linkTrusted(info) {
		return fmt.Errorf("%s is a symbolic link that belongs to another user: remove it, and certctl makes its own", p.link.where)
	}
	p.link.exists = true
	if p.link.old, err = os.Readlink(p.link.where); err != nil {
		return fmt.Errorf("reading the link that is there: %w", err)
	}
	return l.checkContents(p)
}

// checkContents refuses to replace a directory with files that certctl would
// leave behind. A link that leads nowhere holds none.
func (l *directoryLayout) checkContents(p *plan) error {
	entries, err := os.ReadDir(p.link.where)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the directory that is there: %w", err)
	}
	for _, entry := range entries {
		if !slices.ContainsFunc(p.items, func(i item) bool { return filepath.Base(i.path) == entry.Name() }) {
			return fmt.Errorf("%s holds %q, which is not a file of this target and would disappear: move it elsewhere", p.link.where, entry.Name())
		}
	}
	return nil
}

func (l *directoryLayout) stage(p *plan) error {
	dir := filepath.Join(filepath.Dir(p.link.where), p.link.fresh)
	if err := l.t.around(stepMkdir, dir, func() error {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		return os.Chmod(dir, 0o755) // whatever the umask; keys have modes of their own
	}); err != nil {
		return err
	}
	for _, i := range p.items {
		if err := l.t.create(filepath.Join(dir, filepath.Base(i.path)), i.kind, i.content, i.want); err != nil {
			return err
		}
	}
	if err := l.t.syncDir(dir); err != nil {
		return err
	}
	return l.t.syncDir(filepath.Dir(dir))
}

func (l *directoryLayout) swap(p *plan) error {
	if !p.inPlace() {
		return l.t.pointLink(p.link.where, p.link.fresh)
	}
	// A call that crashed may have done so without having come to the sync.
	return l.t.syncDir(filepath.Dir(p.link.where))
}

// pointLink makes link say target, in one step.
func (t *Target) pointLink(link, target string) error {
	temp := tempFor(link)
	if err := t.removeLeftover(temp); err != nil {
		return err
	}
	if err := t.around(stepLink, temp, func() error { return os.Symlink(target, temp) }); err != nil {
		return err
	}
	if err := t.rename(temp, link); err != nil {
		return err
	}
	return t.syncDir(filepath.Dir(link))
}

// sweep removes the directories that certctl made and no longer needs; their
// names tell them from those that an operator made.
func (l *directoryLayout) sweep(r *record) error {
	parent, err := filepath.EvalSymlinks(filepath.Dir(l.link))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for old directories: %w", err)
	}
	if !l.t.trustAny && !trusted(parent) {
		return nil // nothing was ever made there, and locate says why not
	}
	link := filepath.Join(parent, filepath.Base(l.link))
	needed := map[string]bool{}
	if target, err := os.Readlink(link); err == nil {
		needed[filepath.Base(target)] = true
	} else if !errors.Is(err, fs.ErrNotExist) && isLink(link) {
		return fmt.Errorf("looking for old directories: %w", err)
	}
	if r != nil && r.Link != nil {
		needed[filepath.Base(r.Link.Target)] = true
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return fmt.Errorf("looking for old directories: %w", err)
	}
	problems := []error{l.t.removeLeftover(tempFor(link))}
	for _, entry := range entries {
		name := entry.Name()
		if !entry.IsDir() || !strings.HasPrefix(name, l.prefix()) || needed[name] {
			continue
		}
		problems = append(problems, l.t.around(stepRemoveOld, filepath.Join(parent, name), func() error {
			return durable.RemoveAll(filepath.Join(parent, name)) // it may hold a key
		}))
	}
	return errors.Join(problems...)
}

func trusted(dir string) bool { return checkTrusted(dir) == nil }

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// randomID names transactions and directories; both are made one at a time.
func randomID() string { return strings.ToLower(rand.Text()[:16]) }
