package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/certctl/certctl/shared/durable"
)

// maxLinks is how many symbolic links are followed for one file, as many as the
// Linux kernel follows.
const maxLinks = 40

// locateDir returns the directory's path without symbolic links, having created
// it if configured and checked who can change it.
func (t *Target) locateDir(dir string) (string, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if !t.createDirectories {
			return "", fmt.Errorf("the directory %s does not exist: create it, or set create_directories: true for this deployment", dir)
		}
		if !t.trustAny {
			// Before, or somebody's link would decide where directories are made.
			if err := checkTrusted(existing(dir)); err != nil {
				return "", err
			}
		}
		if err := t.around(stepMkdir, dir, func() error { return durable.MkdirAll(dir, 0o755) }); err != nil {
			return "", err
		}
	}
	if !t.trustAny {
		if err := checkTrusted(dir); err != nil {
			return "", err
		}
	}
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("looking at the directory: %w", err)
	}
	return resolved, nil
}

// existing is the part of a directory's path that is there.
func existing(dir string) string {
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// locateFile follows symbolic links to where the file is, or would be, so that
// the links stay and the file at their end is replaced.
func (t *Target) locateFile(path string) (string, error) {
	for range maxLinks {
		dir, err := t.locateDir(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, filepath.Base(path))
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink == 0 {
			return path, nil
		}
		if err != nil {
			return "", fmt.Errorf("looking at the file that is there: %w", err)
		}
		if t.trustAny || !linkTrusted(info) {
			return "", fmt.Errorf("%s is a symbolic link that another user may have made or may change: configure the path that it leads to", path)
		}
		target, err := os.Readlink(path)
		if err != nil {
			return "", fmt.Errorf("following a symbolic link: %w", err)
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return "", fmt.Errorf("%s: symbolic links lead in a circle; configure the path of the file itself", path)
}
