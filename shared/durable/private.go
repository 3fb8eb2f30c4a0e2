package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// PrivateDirError says why a directory cannot hold private state and how to mend it.
type PrivateDirError struct {
	// Path is the directory.
	Path string
	// Problem is what was found.
	Problem string
	// Mend is what the operator should do, a command where there is one.
	Mend string
	// Err is the cause, if the system reported one.
	Err error
}

// Error implements error.
func (e *PrivateDirError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("directory %s %s: %v; %s", e.Path, e.Problem, e.Err, e.Mend)
	}
	return fmt.Sprintf("directory %s %s; %s", e.Path, e.Problem, e.Mend)
}

// Unwrap returns the cause.
func (e *PrivateDirError) Unwrap() error { return e.Err }

// EnsurePrivateDir creates path, if it is missing, as a directory that only this process's user (on Windows also
// SYSTEM and Administrators) may enter, and then returns what CheckPrivateDir says. It does not mend a directory that
// is there: what others could reach may already be read or changed, and a person should know.
func EnsurePrivateDir(path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := createPrivateDir(path); err != nil {
			return &PrivateDirError{Path: path, Problem: "cannot be created", Err: err,
				Mend: "create it for the user that this program runs as"}
		}
	}
	return CheckPrivateDir(path)
}

// CheckPrivateDir returns nil if path is an existing directory that belongs to this process's user, that nobody else
// may enter (on Windows, nobody but that user, SYSTEM and Administrators), and in which a file can really be written
// and synced. Every error is a *PrivateDirError. A symbolic link to such a directory is as good.
func CheckPrivateDir(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &PrivateDirError{Path: path, Problem: "does not exist", Err: err, Mend: "create it, or check the configured path"}
	case err != nil:
		return &PrivateDirError{Path: path, Problem: "cannot be looked at", Err: err, Mend: "give this program's user access to it"}
	case !info.IsDir():
		return &PrivateDirError{Path: path, Problem: "is not a directory", Mend: "move that file away, or check the configured path"}
	}
	if err := checkAccess(path, info); err != nil {
		return err
	}
	if err := probe(path); err != nil {
		return &PrivateDirError{Path: path, Problem: "cannot be written", Err: err,
			Mend: "check that its file system is not full and not mounted read-only"}
	}
	return nil
}

// probe writes, syncs and removes a small file: permission bits alone say nothing about a full or read-only disk.
func probe(dir string) error {
	f, err := os.CreateTemp(dir, tempPattern)
	if err != nil {
		return err
	}
	_, err = f.WriteString("certctl tests whether it can write here\n")
	if err == nil {
		err = Sync(f)
	}
	return errors.Join(err, discard(f))
}
