package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/certctl/certctl/shared/durable"
)

// maxFileSize bounds what is read of a file that is to be replaced. Anything
// larger is no certificate or key, so the path in the configuration is wrong.
const maxFileSize = 1 << 20

// attributes are what a file has beside its content.
type attributes struct {
	Mode fs.FileMode `json:"mode"`
	UID  int         `json:"uid"` // durable.Keep on Windows
	GID  int         `json:"gid"`
	// Extended holds the SELinux label and the access control list, by name.
	Extended map[string][]byte `json:"extended,omitempty"`
}

// same compares what an operator can configure. Labels and lists are carried
// from file to file and never set to anything else.
func (a attributes) same(b attributes) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID
}

// observed is a file as it was found.
type observed struct {
	exists  bool
	content []byte
	attributes
}

// observe reads a file that is not followed if it is a symbolic link. A file
// that is not there is no error.
func observe(path string) (observed, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return observed{}, nil
	case err != nil:
		return observed{}, fmt.Errorf("looking at the file that is there: %w", err)
	case !info.Mode().IsRegular():
		return observed{}, fmt.Errorf("%s is a %s, not a regular file", path, describe(info.Mode()))
	}
	f, opened, err := openRegular(path)
	if err != nil {
		return observed{}, fmt.Errorf("reading the file that is there: %w", err)
	}
	defer f.Close()
	// Else a link put there at the right moment would have any file read.
	if !os.SameFile(info, opened) {
		return observed{}, fmt.Errorf("%s was replaced by somebody else just now; try again", path)
	}
	content, err := readAll(f)
	if err != nil {
		return observed{}, err
	}
	attrs, err := attributesOf(f, opened)
	if err != nil {
		return observed{}, err
	}
	return observed{exists: true, content: content, attributes: attrs}, nil
}

// openRegular opens a file for reading, and nothing else: a named pipe would
// keep whoever opens it until somebody writes to it, which may be never.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openAtOnce, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is a %s, not a regular file", path, describe(info.Mode()))
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// readAll reads a file up to the bound.
func readAll(f *os.File) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading the file that is there: %w", err)
	}
	if len(content) > maxFileSize {
		return nil, fmt.Errorf("%s is larger than %d octets and thus no certificate or key; check the path", f.Name(), maxFileSize)
	}
	return content, nil
}

func describe(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSymlink != 0:
		return "symbolic link"
	default:
		return "special file"
	}
}

// holds reports whether the file is there with this content and these attributes.
func (o observed) holds(content []byte, want attributes) bool {
	return o.exists && o.same(want) && bytes.Equal(o.content, content)
}

// mendFor tells an operator what to do about an error of the file system.
func mendFor(err error) string {
	switch {
	case errors.Is(err, syscall.EDQUOT):
		return "raise the disk quota of the agent's user, or free some space"
	case durable.IsFull(err):
		return "free some space on that file system"
	case durable.IsReadOnly(err):
		// A unit with ProtectSystem= shows it where nothing is mounted read-only.
		return "mount that file system writable, or choose another path; where systemd runs the agent, " +
			"its unit must allow the path too (ReadWritePaths=, ProtectHome=)"
	case errors.Is(err, syscall.EIO):
		return "the disk reports errors: look at the kernel's log"
	case errors.Is(err, fs.ErrPermission):
		return "run the agent as root, or give its user write access to the directory"
	}
	return ""
}

// join puts sentences in a row.
func join(sentences ...string) string {
	return strings.Join(slices.DeleteFunc(sentences, func(s string) bool { return s == "" }), "; ")
}
