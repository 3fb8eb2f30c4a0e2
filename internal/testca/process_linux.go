package testca

import (
	"os/exec"
	"syscall"
)

// bindToParent has the kernel kill the child when its parent dies, so that a
// test that is itself killed leaves nothing behind.
func bindToParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
