package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
)

// FileLock is an exclusive lock on a file, held until Unlock or the end of the process, however that comes.
type FileLock struct {
	path string
	once sync.Once
	file *os.File
	err  error
}

// LockedError says that another holder has the lock.
type LockedError struct {
	// Path is the lock file.
	Path string
	// PID is the holder's process id as it wrote it into the file, or 0 if it cannot be read.
	PID int
}

// Error implements error.
func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("lock %s: held by another process; stop it, or use another directory", e.Path)
	}
	return fmt.Sprintf("lock %s: held by process %d; stop it, or use another directory", e.Path, e.PID)
}

// errHeld is what lockFile returns if somebody else holds the lock.
var errHeld = errors.New("lock is held")

// Lock takes the exclusive lock on path without waiting; the file is created if needed and holds the process id for
// people to read. If the lock is held, by another process or by this one, the error is a *LockedError. The file is
// never removed: a removed lock file lets two processes lock two files of one name.
func Lock(path string) (*FileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := lockFile(f); err != nil {
		held := &LockedError{Path: path, PID: readPID(f)}
		closeErr := f.Close()
		if errors.Is(err, errHeld) {
			return nil, held
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), closeErr)
	}
	if err := writePID(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: write process id: %w", path, err), f.Close())
	}
	return &FileLock{path: path, file: f}, nil
}

// Path returns the lock file's path.
func (l *FileLock) Path() string { return l.path }

// Unlock releases the lock. Further calls, from any goroutine, do nothing and return the same result.
func (l *FileLock) Unlock() error {
	l.once.Do(func() {
		// Closing is what releases the lock; there is no moment at which it is released and still ours.
		if err := l.file.Close(); err != nil {
			l.err = fmt.Errorf("unlock %s: %w", l.path, err)
		}
	})
	return l.err
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// readPID returns 0 for anything that is not a process id: the file may be foreign, or its holder about to write it.
func readPID(f *os.File) int {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}
