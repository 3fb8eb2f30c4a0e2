package agentapi

import (
	"errors"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/certctl/certctl/coordinator/pass"
	"github.com/certctl/certctl/shared/wire"
)

// Counts are what became of the agents' requests at this node since it started.
type Counts struct {
	// Syncs that this node answered as the leader: with a change that was stored,
	// and with nothing new.
	Accepted, Unchanged uint64
	// Refused are the syncs that it did not answer, by code.
	Refused map[wire.Code]uint64
	// Passed are the requests, of any kind, that were for the leader to answer.
	Passed pass.Counts
}

// counters is the zero value at the start.
type counters struct {
	accepted, unchanged atomic.Uint64

	mu      sync.Mutex
	refused map[wire.Code]uint64
}

func (c *counters) answer(changed bool) {
	if changed {
		c.accepted.Add(1)
	} else {
		c.unchanged.Add(1)
	}
}

func (c *counters) refuse(code wire.Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = map[wire.Code]uint64{}
	}
	c.refused[code]++
}

// Counts are the counts now.
func (s *Service) Counts() Counts {
	c := Counts{Accepted: s.counters.accepted.Load(), Unchanged: s.counters.unchanged.Load()}
	s.counters.mu.Lock()
	c.Refused = maps.Clone(s.counters.refused)
	s.counters.mu.Unlock()
	if s.passer != nil {
		c.Passed = s.passer.Counts()
	}
	return c
}

func codeOf(err error) wire.Code {
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		return p.Code
	}
	return ""
}
