//go:build !linux

package testnginx

import "syscall"

func processAttributes() *syscall.SysProcAttr { return nil }
