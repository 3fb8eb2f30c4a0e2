package connector

import (
	"context"
	"sync"
	"time"
)

// Cached is a value that an authority tells and that is good for a while, such as a
// token. It is asked for by one goroutine at a time; the others wait for the answer,
// as long as their contexts let them. NewCached makes one.
type Cached[T any] struct {
	now    func() time.Time
	asking chan struct{}

	mu    sync.Mutex // of the fields below
	value T
	until time.Time
}

// NewCached makes one that holds nothing yet; now is the clock.
func NewCached[T any](now func() time.Time) *Cached[T] {
	return &Cached[T]{now: now, asking: make(chan struct{}, 1)}
}

// Fresh is the value, if there is one that is good.
func (c *Cached[T]) Fresh() (value T, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.now().Before(c.until) {
		return value, false
	}
	return c.value, true
}

// Get is the value, which ask is asked for if there is none that is good.
func (c *Cached[T]) Get(ctx context.Context, ask func(context.Context) (T, time.Duration, error)) (T, error) {
	if value, ok := c.Fresh(); ok {
		return value, nil
	}
	select {
	case c.asking <- struct{}{}:
	case <-ctx.Done():
		var none T
		return none, &Error{Class: ClassRetry, NotPlaced: true, Err: ctx.Err()}
	}
	defer func() { <-c.asking }()
	if value, ok := c.Fresh(); ok {
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

// Drop forgets the value if it is the one that is meant; nil means any.
func (c *Cached[T]) Drop(meant func(T) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if meant == nil || meant(c.value) {
		c.until = time.Time{}
	}
}
