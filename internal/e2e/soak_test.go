//go:build linux

package e2e

import "os"

// soaking reports whether there is time: "make soak" sets the variable.
func soaking() bool { return os.Getenv("CERTCTL_SOAK") != "" }

// times is how often a fault is injected: usually, and in a soak.
func times(usually, soak int) int {
	if soaking() {
		return soak
	}
	return usually
}
