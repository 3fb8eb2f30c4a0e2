//go:build unix

package command

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

var inherited = []string{"PATH", "HOME", "TMPDIR", "TZ"}

func rootDir() string { return "/" }

// group is the process group of a command, by which its children are reached.
type group struct{ cmd *exec.Cmd }

func newGroup(cmd *exec.Cmd) (*group, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return &group{cmd: cmd}, nil
}

func (g *group) started() error { return nil }

func (g *group) terminate() error {
	if err := syscall.Kill(-g.cmd.Process.Pid, syscall.SIGTERM); errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	} else if err != nil {
		return err
	}
	return nil
}

// kill may find nobody left, which is what it is for.
func (g *group) kill() { _ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL) }

func (g *group) close() {}
