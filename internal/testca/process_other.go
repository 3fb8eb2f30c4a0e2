//go:build !linux

package testca

import "os/exec"

// bindToParent does nothing: only Linux ties a child to its parent's life.
func bindToParent(*exec.Cmd) {}
