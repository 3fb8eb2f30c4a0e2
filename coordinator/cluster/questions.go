package cluster

import (
	"context"
	"sync"
)

// questions are the calls of Raft that wait for an answer. Raft leaves those
// unanswered that reach it while it ends, so it is ended only when none is
// under way and none can begin.
type questions struct {
	mu    sync.Mutex
	ended bool // guarded by mu; set before the last Wait
	open  sync.WaitGroup
}

// ask calls fn, which asks Raft, and returns its error, or ctx's when that is
// done earlier; fn then goes on by itself. It returns ErrStopped after end.
func (q *questions) ask(ctx context.Context, fn func() error) error {
	q.mu.Lock()
	if q.ended {
		q.mu.Unlock()
		return ErrStopped
	}
	answer := make(chan error, 1)
	q.open.Go(func() { answer <- fn() })
	q.mu.Unlock()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin runs fn on its own, as a question that several wait for. It reports
// false after end, and does nothing then.
func (q *questions) begin(fn func()) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.ended {
		q.open.Go(fn)
	}
	return !q.ended
}

// end refuses further questions and waits for those under way, or until lost is
// closed: nobody answers them then. Most end when Raft is shut down. The future
// of a question that Raft had taken and not yet read has no other end, and what
// waits for it stays behind in a process that stops.
func (q *questions) end(lost <-chan struct{}) {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	answered := make(chan struct{})
	go func() {
		q.open.Wait()
		close(answered)
	}()
	select {
	case <-answered:
	case <-lost:
	}
}
