//go:build unix

package renewal

import "syscall"

var noSpace error = syscall.ENOSPC
