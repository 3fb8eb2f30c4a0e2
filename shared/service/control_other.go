//go:build !linux && !windows

package service

import (
	"fmt"
	"runtime"
)

func newPlatform(def Definition) (platform, error) {
	return nil, fmt.Errorf("%s cannot be installed as a service on %s: only systemd and Windows are supported: %s",
		def.Name, runtime.GOOS, byHand(def))
}
