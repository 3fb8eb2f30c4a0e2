package cluster

import (
	"errors"
	"sync"
)

// Forwarded counts what became of the proposals that this node sent to the
// leader, each attempt by itself.
type Forwarded struct {
	Stored     uint64
	Unknown    uint64 // the leader did not answer, or did not know itself
	NotLeader  uint64 // the other node did not lead any more
	Overloaded uint64
	Refused    uint64 // for another reason
}

type forwardCounts struct {
	mu     sync.Mutex
	counts Forwarded
}

func (c *forwardCounts) count(err error) {
	var (
		unknown    *UnknownOutcomeError
		overloaded *OverloadedError
	)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.counts.Stored++
	case errors.As(err, &unknown):
		c.counts.Unknown++
	case errors.As(err, &overloaded):
		c.counts.Overloaded++
	case errors.Is(err, ErrNotLeader):
		c.counts.NotLeader++
	default:
		c.counts.Refused++
	}
}

func (c *forwardCounts) read() Forwarded {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}
