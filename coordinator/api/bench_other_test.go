//go:build !linux

package api_test

import "time"

// processorTime is not measured here.
func processorTime() time.Duration { return 0 }
