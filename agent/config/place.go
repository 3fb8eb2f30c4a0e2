package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// places are the forms in which paths are compared: the path as it is written,
// with the symbolic links above it followed, and followed to its end. A directory
// of a deployment is a link itself, which is replaced, so that all of them stand
// for it. What cannot be followed has only the forms before that.
func places(path string) []string {
	plain := filepath.Clean(path)
	forms := []string{plain}
	if !filepath.IsAbs(plain) {
		return forms
	}
	if parent, err := Resolve(filepath.Dir(plain)); err == nil {
		forms = append(forms, filepath.Join(parent, filepath.Base(plain)))
	}
	if leads, err := Resolve(plain); err == nil {
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

// Below reports whether path is in dir, at any depth.
func Below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != "." && filepath.IsLocal(rel)
}
