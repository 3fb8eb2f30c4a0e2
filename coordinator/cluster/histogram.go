package cluster

import (
	"slices"
	"sync"
	"time"
)

// bounds are the upper bounds of the buckets of every histogram: from a cached
// write to a disk that hangs.
var bounds = []time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second,
}

// Histogram is how long something took, each time since the start.
type Histogram struct {
	Count  uint64
	Sum    time.Duration
	Bounds []time.Duration // upper bounds, rising
	// Counts are cumulative: how often it took at most the bound of the same
	// place.
	Counts []uint64
}

type histogram struct {
	mu     sync.Mutex
	count  uint64
	sum    time.Duration
	counts [16]uint64 // per bucket, not cumulative; the last is for what is beyond all bounds
}

func (h *histogram) add(took time.Duration) {
	bucket, _ := slices.BinarySearch(bounds, took)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	h.sum += took
	h.counts[bucket]++
}

func (h *histogram) read() Histogram {
	h.mu.Lock()
	defer h.mu.Unlock()
	read := Histogram{Count: h.count, Sum: h.sum, Bounds: slices.Clone(bounds), Counts: make([]uint64, len(bounds))}
	total := uint64(0)
	for i := range bounds {
		total += h.counts[i]
		read.Counts[i] = total
	}
	return read
}
