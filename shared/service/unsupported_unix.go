//go:build !windows

package service

import (
	"fmt"
	"strings"
)

// byHand is what to do on a host whose service manager is not supported.
func byHand(def Definition) string {
	return fmt.Sprintf("let what runs programs here run %q", def.Name+" "+strings.Join(def.Arguments, " "))
}
