package testnginx

import "syscall"

// processAttributes make nginx end when a test binary dies without having
// stopped it, and keep a Ctrl-C for its starter, who stops it in order.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
