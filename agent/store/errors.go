package store

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/certctl/certctl/shared/durable"
)

// Why a state file is refused. A refused file is never changed, moved or
// deleted.
var (
	// ErrLocked says that another process has the file open.
	ErrLocked = errors.New("the state file is in use by another process")
	// ErrForeign says that the file was not made by this package.
	ErrForeign = errors.New("not a state file of certctl-agent")
	// ErrDamaged says that the file was made here but its content is not whole.
	ErrDamaged = errors.New("the state file is damaged")
	// ErrNewerSchema says that a newer version of the agent wrote the file.
	ErrNewerSchema = errors.New("the state file was written by a newer version")
	// ErrReadOnly says that the file or its directory cannot be written.
	ErrReadOnly = errors.New("the state file cannot be written")
)

var (
	// ErrStateUnknown says that a commit failed so late that its content may or
	// may not survive a crash. Every later write gives the same error; the
	// store must be closed and opened again, which reads what is on the disk.
	ErrStateUnknown = errors.New("it is unknown whether the last change was stored")
	// ErrOrderConflict says that an order's id is taken by another request.
	ErrOrderConflict = errors.New("another request has the same order id")
)

// Error is a refusal to open a state file.
type Error struct {
	File string
	// Mend tells an operator what to do.
	Mend string
	// Err wraps one of the sentinels above, or is what the disk said.
	Err error
}

func (e *Error) Error() string {
	return fmt.Sprintf("state file %s: %v; %s", e.File, e.Err, e.Mend)
}

func (e *Error) Unwrap() error { return e.Err }

const (
	mendLocked  = "stop the other certctl-agent, or give this one a state directory of its own"
	mendForeign = "set state_dir to one of the agent's own, or move this file away"
	mendDamaged = "restore it from a backup, or move it away and start again: the agent then begins empty, " +
		"has to be enrolled again, and obtains new certificates while the deployed ones stay in service"
	mendNewer = "install that version of certctl-agent again, or restore the copy of the file that it kept " +
		"beside it before it changed the schema (its name ends in .bak)"
)

func (s *source) locked() error  { return &Error{File: s.path, Mend: mendLocked, Err: ErrLocked} }
func (s *source) foreign() error { return &Error{File: s.path, Mend: mendForeign, Err: ErrForeign} }

func (s *source) damaged(err error) error {
	if errors.Is(err, ErrDamaged) {
		return &Error{File: s.path, Mend: mendDamaged, Err: err}
	}
	return &Error{File: s.path, Mend: mendDamaged, Err: fmt.Errorf("%w: %w", ErrDamaged, err)}
}

// access explains an error of the file system about the file.
func (s *source) access(err error) error {
	if errors.Is(err, syscall.EROFS) {
		return &Error{File: s.path, Mend: "mount the file system writable, or set state_dir to another place",
			Err: fmt.Errorf("%w: %w", ErrReadOnly, err)}
	}
	if errors.Is(err, fs.ErrPermission) {
		return &Error{File: s.path, Mend: "make the user that runs certctl-agent the owner of the state directory and of all files in it",
			Err: fmt.Errorf("%w: %w", ErrReadOnly, err)}
	}
	if durable.IsFull(err) {
		return &Error{File: s.path, Mend: "free some space on its file system",
			Err: fmt.Errorf("%w: %w", ErrReadOnly, err)}
	}
	if errors.Is(err, syscall.EIO) {
		return &Error{File: s.path, Mend: "check the disk", Err: err}
	}
	return fmt.Errorf("state file %s: %w", s.path, err)
}

// damage is a finding within the file; the caller adds the file and the mend.
func damage(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}
