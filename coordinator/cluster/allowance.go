package cluster

import "sync"

// Bounds of the proposals that are under way between nodes, in each direction.
const (
	maxForwarded      = 1024
	maxForwardedBytes = 64 << 20
)

// allowance bounds what is under way, in number and in bytes.
type allowance struct {
	mu    sync.Mutex
	count int
	bytes int
}

// take reports whether there is room, and takes it.
func (a *allowance) take(bytes int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count >= maxForwarded || a.bytes+bytes > maxForwardedBytes {
		return false
	}
	a.count++
	a.bytes += bytes
	return true
}

func (a *allowance) give(bytes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count--
	a.bytes -= bytes
}
