package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/windows"

	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/jitter"
)

const (
	// logLimit is the size in bytes at which the log of a service becomes the
	// previous log; with that one it takes at most about twice as much.
	logLimit = 16 << 20
	// logLook is how often the size is looked at.
	logLook = 10 * time.Minute
)

// logFile is where the standard output and the standard error of a service go:
// Windows gives services neither.
type logFile struct {
	path string
	file *os.File
}

// logPath is the log of a service: NAME.log in the directory certctl\logs of
// ProgramData.
func logPath(name string) (string, error) {
	data, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, windows.KF_FLAG_DEFAULT)
	if err != nil {
		return "", fmt.Errorf("directory of programs' data: %w", err)
	}
	return filepath.Join(data, "certctl", "logs", name+".log"), nil
}

// openLog opens the log in a directory that is for SYSTEM and administrators.
func openLog(path string) (*logFile, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	if err := durable.EnsurePrivateDir(dir); err != nil {
		return nil, err
	}
	// Each write goes to the end, wherever that is after the file was cut.
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &logFile{path: path, file: file}, nil
}

// takeOutput makes the log the output of this process, also of a panic.
func (l *logFile) takeOutput() error {
	handle := windows.Handle(l.file.Fd())
	if err := errors.Join(
		windows.SetStdHandle(windows.STD_OUTPUT_HANDLE, handle),
		windows.SetStdHandle(windows.STD_ERROR_HANDLE, handle),
	); err != nil {
		return err
	}
	os.Stdout, os.Stderr = l.file, l.file
	return nil
}

// keepSmall looks after the log's size until ctx is done.
func (l *logFile) keepSmall(ctx context.Context) {
	jitter.Loop(ctx, logLook, jitter.DefaultSchedulerJitter, nil, func(context.Context) {
		if err := l.cut(logLimit); err != nil {
			fmt.Fprintf(l.file, "the log could not be cut: %v\n", err)
		}
	})
}

// cut moves what the log holds, if that is more than limit bytes, to the
// previous log, and empties the log. The file stays the same one, since the
// process writes to it all the time; a line that is written just between copy
// and cut is lost.
func (l *logFile) cut(limit int64) error {
	info, err := l.file.Stat()
	if err != nil || info.Size() <= limit {
		return err
	}
	from, err := os.Open(l.path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(l.path+".1", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	return os.Truncate(l.path, 0)
}
