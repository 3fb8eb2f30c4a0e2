package globalsign

import (
	"context"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
)

// cached is a value that the authority tells and that is good for a while. It is
// asked for by one goroutine at a time; the others wait for the answer, as long as
// their contexts let them.
type cached[T any] struct {
	now    func() time.Time
	asking chan struct{}

	mu    sync.Mutex // of the fields below
	value T
	until time.Time
}

func newCached[T any](now func() time.Time) *cached[T] {
	return &cached[T]{now: now, asking: make(chan struct{}, 1)}
}

// fresh is the value, if there is one that is good.
func (c *cached[T]) fresh() (value T, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.now().Before(c.until) {
		return value, false
	}
	return c.value, true
}

// get is the value, which ask is asked for if there is none that is good.
func (c *cached[T]) get(ctx context.Context, ask func(context.Context) (T, time.Duration, error)) (T, error) {
	if value, ok := c.fresh(); ok {
		return value, nil
	}
	select {
	case c.asking <- struct{}{}:
	case <-ctx.Done():
		var none T
		return none, &connector.Error{Class: connector.ClassRetry, NotPlaced: true, Err: ctx.Err()}
	}
	defer func() { <-c.asking }()
	if value, ok := c.fresh(); ok {
		return value, nil
	}
	value, lasts, err := ask(ctx)
	if err == nil {
		c.mu.Lock()
		c.value, c.until = value, c.now().Add(lasts)
		c.mu.Unlock()
	}
	return value, err
}

// drop forgets the value if it is the one that is meant; nil means any.
func (c *cached[T]) drop(meant func(T) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if meant == nil || meant(c.value) {
		c.until = time.Time{}
	}
}
