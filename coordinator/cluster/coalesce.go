package cluster

import (
	"context"
	"sync"
)

// A coalescer answers any number of callers with few questions. A question
// answers those who came before it was asked, and nobody else: while one is
// under way, those who come gather for the next.
type coalescer struct {
	mu      sync.Mutex
	asking  bool
	waiting *round // of the next question; nil if nobody waits
	count   uint64 // of the questions that were asked
}

// round is one question with those who wait for it.
type round struct {
	done  chan struct{}
	index uint64 // valid once done is closed, as is err
	err   error
}

// get returns the answer to a question that begins after the call. ask is called
// on a goroutine of start's, which reports whether there is one, and not with a caller's context: it ends by
// itself, in bounded time.
func (c *coalescer) get(ctx context.Context, start func(func()) bool, ask func() (uint64, error)) (uint64, error) {
	c.mu.Lock()
	if c.waiting == nil {
		c.waiting = &round{done: make(chan struct{})}
	}
	mine := c.waiting
	if !c.asking {
		if !start(func() { c.run(ask) }) {
			c.mu.Unlock()
			return 0, ErrStopped
		}
		c.asking = true
	}
	c.mu.Unlock()
	select {
	case <-mine.done:
		return mine.index, mine.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (c *coalescer) run(ask func() (uint64, error)) {
	for {
		c.mu.Lock()
		current := c.waiting
		c.waiting = nil
		if current == nil {
			c.asking = false
			c.mu.Unlock()
			return
		}
		c.count++
		c.mu.Unlock()
		current.index, current.err = ask()
		close(current.done)
	}
}

// asked is how many questions were asked.
func (c *coalescer) asked() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}
