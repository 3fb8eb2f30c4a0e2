package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// places are the forms in which paths are compared: the path as it is written,
// with the symbolic links above it followed, and followed to its end. A directory
// of a deployment is a link itself, which is replaced, so that all of them stand
// for it. What cannot be followed has only the forms before that.
func (l *lookup) places(path string) []string {
	plain := filepath.Clean(path)
	forms := []string{plain}
	if !filepath.IsAbs(plain) {
		return forms
	}
	if parent, err := l.directory(filepath.Dir(plain)); err == nil {
		forms = append(forms, filepath.Join(parent, filepath.Base(plain)))
	}
	if leads, err := l.resolve(plain); err == nil {
		forms = append(forms, leads)
	}
	for i, form := range forms {
		forms[i] = foldCase(form)
	}
	slices.Sort(forms)
	return slices.Compact(forms)
}

// Resolve follows the symbolic links of as much of a path as exists. A link that
// leads to nothing is an error: what is written through it comes into being there.
func Resolve(path string) (string, error) {
	rest := ""
	for at := filepath.Clean(path); ; at = filepath.Dir(at) {
		_, err := os.Lstat(at)
		if err == nil {
			leadsTo, err := filepath.EvalSymlinks(at)
			if err != nil {
				return "", err
			}
			return filepath.Join(leadsTo, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if at == filepath.Dir(at) {
			return filepath.Join(at, rest), nil
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}

// lookup resolves many paths at one time, and each directory once: hosts have many
// certificates in few directories. It is for one run through a configuration and
// is not kept, since links change. Its zero value is ready.
type lookup struct{ dirs map[string]resolved }

type resolved struct {
	leads string
	err   error
}

// directory is Resolve, remembered.
func (l *lookup) directory(dir string) (string, error) {
	found, known := l.dirs[dir]
	if !known {
		found.leads, found.err = Resolve(dir)
		if l.dirs == nil {
			l.dirs = make(map[string]resolved)
		}
		l.dirs[dir] = found
	}
	return found.leads, found.err
}

// resolve is Resolve. Of a path whose last step is there and no link, or is not
// there, all that has to be followed is its directory. Windows has several names
// for what is there, which Resolve makes one.
func (l *lookup) resolve(path string) (string, error) {
	plain := filepath.Clean(path)
	dir := filepath.Dir(plain)
	if dir == plain || !filepath.IsAbs(plain) {
		return Resolve(plain)
	}
	info, err := os.Lstat(plain)
	switch {
	case err == nil && (runtime.GOOS == "windows" || info.Mode()&fs.ModeSymlink != 0):
		return Resolve(plain)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	leads, err := l.directory(dir)
	if err != nil {
		return "", err
	}
	return filepath.Join(leads, filepath.Base(plain)), nil
}

// Below reports whether path is in dir, at any depth.
func Below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != "." && filepath.IsLocal(rel)
}
