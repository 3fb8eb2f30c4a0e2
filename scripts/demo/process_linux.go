package main

import "syscall"

// apart keeps Ctrl-C, which is for the demonstration alone, from a program, and
// ends the program with the demonstration even if that is killed.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
