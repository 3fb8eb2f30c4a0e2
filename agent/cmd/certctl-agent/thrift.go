package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

const (
	// collectAt is how much garbage may gather, in percent of what is in use,
	// before the collector runs: half of Go's default. Below that an idle agent
	// gains nothing, since Go lets a mebibyte gather in any case.
	collectAt = 50
	// maxProcessors is how many processors run Go code at a time. An agent
	// waits for CAs, disks and other programs; what it computes, keys and
	// digests, is no more than these can do. The runtime has caches and threads
	// for each: an idle agent held 1.5 MiB more with 32 of them than with two.
	maxProcessors = 4
)

// beThrifty makes the runtime hold little memory, at the cost of time: an agent
// idles for weeks beside somebody's service. Whoever sets GOGC or GOMAXPROCS is
// obeyed.
//
// There is no memory limit: one that 10,000 certificates come near would have the
// collector run all the time. Nor is memory returned to the system by force after
// the start, since the runtime returns it by itself, and most of what was gained
// is in use again at the next collection.
func beThrifty() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	// To set it ends that the runtime follows the host's own limits, so that
	// it is not set where they allow no more.
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) > maxProcessors {
		runtime.GOMAXPROCS(maxProcessors)
	}
}
