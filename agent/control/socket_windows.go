package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

const pipePrefix = `\\.\pipe\`

func checkPath(path string) error {
	if name, ok := strings.CutPrefix(strings.ToLower(path), pipePrefix); !ok || name == "" || strings.Contains(name, `\`) {
		return fmt.Errorf(`control socket %q: expected the name of a pipe, such as \\.\pipe\certctl-agent; change control.socket`, path)
	}
	return nil
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	return winio.DialPipeContext(ctx, path)
}

func nobodyListens(err error) bool {
	return errors.Is(err, windows.ERROR_FILE_NOT_FOUND)
}

// listen opens the pipe for SYSTEM, the administrators and the user that this
// process runs as. The first instance of a pipe is made exclusively, so that a
// program which took the name before us makes this fail rather than share it.
func listen(_ context.Context, path, group string) (net.Listener, error) {
	if group != "" {
		return nil, fmt.Errorf("control socket %s: a group is for Unix sockets; leave control.group empty on Windows", path)
	}
	me, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("control socket %s: find out this process's user: %w", path, err)
	}
	// SDDL: a protected DACL; GA is full access, SY is SYSTEM, BA are the
	// built-in administrators, NU is whoever comes over the network.
	access := fmt.Sprintf("D:P(D;;GA;;;NU)(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;%s)", me.User.Sid)
	l, err := winio.ListenPipe(path, &winio.PipeConfig{SecurityDescriptor: access})
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return nil, fmt.Errorf("control socket %s: %w; somebody has this pipe already: stop the other agent, or give this one another control.socket", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return l, nil
}
