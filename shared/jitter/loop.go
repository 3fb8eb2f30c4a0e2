package jitter

import (
	"context"
	"time"
)

// Loop calls fn at every tick of a [JitteredTicker] and whenever something is
// received on wake, until ctx is done; then it returns. fn runs on the caller's
// goroutine, one call at a time, never after ctx is done, and gets ctx; its
// panics are the caller's.
//
// The first call comes after the first gap. Who wants one at once puts a value
// in a buffered wake first. wake may be nil, and closing it only ends waking.
//
// A beat that falls due while fn runs is left out and not made up, so calls by
// the clock are never closer together than interval·(1−jitterPct), and a wake
// does not shift them. An interval that is not positive panics.
func Loop(ctx context.Context, interval time.Duration, jitterPct float64, wake <-chan struct{}, fn func(context.Context)) {
	NewJitteredTicker(interval, jitterPct).loop(ctx, wake, fn)
}

// loop is Loop on a ticker of its own, which it stops in the end.
func (t *JitteredTicker) loop(ctx context.Context, wake <-chan struct{}, fn func(context.Context)) {
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case _, open := <-wake:
			if !open {
				wake = nil // a closed channel is always ready: a hot loop
				continue
			}
		}
		// Select picks at random when a tick and the end arrive together.
		if ctx.Err() != nil {
			return
		}
		fn(ctx)
		t.skip()
	}
}

// skip drops a tick that nobody has received yet.
func (t *JitteredTicker) skip() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.takeBack()
}
