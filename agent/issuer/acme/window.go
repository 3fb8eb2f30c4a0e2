package acme

import (
	"context"
	"sync"
	"time"

	"github.com/certctl/certctl/shared/backoff"
)

// window lets at most len(times) events happen in any span of its length. A
// token bucket of that size and rate would let twice as many through after a
// quiet time.
type window struct {
	span time.Duration

	mu    sync.Mutex
	times []time.Time // when the last events were allowed, a ring
	next  int         // the oldest of them
}

func newWindow(limit int, span time.Duration) *window {
	return &window{span: span, times: make([]time.Time, limit)}
}

// wait returns when the event may happen, or ctx's error. Events are allowed in
// the order of the calls; one that is given up keeps its place.
func (w *window) wait(ctx context.Context) error {
	w.mu.Lock()
	now := time.Now()
	at := now
	if oldest := w.times[w.next]; !oldest.IsZero() && oldest.Add(w.span).After(now) {
		at = oldest.Add(w.span)
	}
	w.times[w.next] = at
	w.next = (w.next + 1) % len(w.times)
	w.mu.Unlock()
	return backoff.Wait(ctx, at.Sub(now))
}
