package settings

import (
	"fmt"
	"os"
	"path/filepath"
)

// AccessError says that others on this host have more access to a file than its use bears.
type AccessError struct {
	// Path is the file, or the directory of it or of a symbolic link on the way to it.
	Path string
	// Problem is what was found, and Mend what to do about it.
	Problem, Mend string
}

// Error implements error.
func (e *AccessError) Error() string { return fmt.Sprintf("%s %s; %s", e.Path, e.Problem, e.Mend) }

// maxLinks bounds the symbolic links on the way to a file, as Linux does.
const maxLinks = 40

// checkUnchangeable refuses a file that others than root and this process's user may change or replace. What is no
// regular file, such as a pipe, has no name for them to do that by.
func checkUnchangeable(path string, info os.FileInfo) error {
	if !info.Mode().IsRegular() {
		return nil
	}
	if err := checkWriters(path, info, false); err != nil {
		return err
	}
	for range maxLinks {
		dir := filepath.Dir(path)
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("cannot tell who may replace it: %w", err)
		}
		if err := checkWriters(dir, info, true); err != nil {
			return err
		}
		link, err := os.Lstat(path)
		if err != nil {
			return fmt.Errorf("cannot tell where it leads: %w", err)
		}
		if link.Mode()&os.ModeSymlink == 0 {
			return nil
		}
		leadsTo, err := os.Readlink(path)
		if err != nil {
			return fmt.Errorf("cannot tell where it leads: %w", err)
		}
		if !filepath.IsAbs(leadsTo) {
			leadsTo = filepath.Join(dir, leadsTo)
		}
		path = leadsTo
	}
	return nil
}
