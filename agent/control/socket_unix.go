//go:build unix

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// maxPath is the shortest sun_path of the systems that we run on, less the
// terminating zero (Linux has 108, macOS and BSD 104) and less the suffix of
// the name that a socket has while it is made.
const maxPath = 103 - len(makingSuffix)

const makingSuffix = ".new"

func checkPath(path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("control socket %q: expected an absolute path; change control.socket", path)
	case len(path) > maxPath:
		return fmt.Errorf("control socket %s: the path has %d bytes, and Unix sockets allow %d here; choose a shorter one for control.socket", path, len(path), maxPath)
	}
	return nil
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", path)
}

func nobodyListens(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOTDIR)
}

// listen makes the socket under another name, gives it its group and mode, and
// then renames it: at no moment can somebody connect who may not.
func listen(ctx context.Context, path, group string) (net.Listener, error) {
	gid, err := groupID(group)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket %s: %w; create its directory, or change control.socket", path, err)
	}
	if err := makeWay(ctx, path); err != nil {
		return nil, err
	}
	making := path + makingSuffix
	if err := makeWay(ctx, making); err != nil {
		return nil, err
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unix", making)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w; change control.socket to a place that the agent may write", path, err)
	}
	socket, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("control socket %s: the system opened a %T", path, l), l.Close())
	}
	socket.SetUnlinkOnClose(false)
	opened, err := open(making, path, gid)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("control socket %s: %w", path, err), l.Close(), ignoreMissing(os.Remove(making)))
	}
	return &unixSocket{UnixListener: socket, path: path, file: opened}, nil
}

func open(making, path string, gid int) (fs.FileInfo, error) {
	mode := fs.FileMode(0o600)
	if gid >= 0 {
		mode = 0o660
		if err := os.Chown(making, -1, gid); err != nil {
			return nil, fmt.Errorf("%w; set control.group to one that the agent may give away", err)
		}
	}
	if err := os.Chmod(making, mode); err != nil {
		return nil, err
	}
	info, err := os.Lstat(making)
	if err != nil {
		return nil, err
	}
	return info, os.Rename(making, path)
}

// makeWay removes a socket that nobody listens on.
func makeWay(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("control socket: %w", err)
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("control socket %s: there is a file of another kind (%s) at this path; move it away, or change control.socket", path, info.Mode().Type())
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := dial(ctx, path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("control socket %s: somebody listens there already; stop the other agent, or give this one another control.socket", path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !nobodyListens(err):
		return fmt.Errorf("control socket %s: cannot tell whether somebody listens there: %w", path, err)
	}
	return ignoreMissing(os.Remove(path))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// groupID is -1 for no group.
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if n, err := strconv.Atoi(group); err == nil && n >= 0 {
		return n, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("group %q: %w; create it, or change control.group", group, err)
	}
	return strconv.Atoi(g.Gid)
}

// unixSocket removes its file when it is closed, unless another one has taken
// its name.
type unixSocket struct {
	*net.UnixListener
	path string
	file fs.FileInfo
	once sync.Once
	err  error
}

// Close implements net.Listener.
func (s *unixSocket) Close() error {
	s.once.Do(func() {
		if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.file) {
			s.err = ignoreMissing(os.Remove(s.path))
		}
		s.err = errors.Join(s.err, s.UnixListener.Close())
	})
	return s.err
}
