// Package runner runs the long-lived parts of a program together.
//
// Every such part is a function that works until its context is done and then
// returns. [Run] starts them, ends all of them when one fails, and returns only
// when the last one has: nothing that it started is left behind.
package runner

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// A Task is one part of a program.
type Task struct {
	// Name says in errors which part failed.
	Name string
	// Run works until ctx is done and then returns nil or ctx's error, having
	// waited for whatever it started. A task that is finished earlier returns
	// nil; that ends nothing else.
	Run func(ctx context.Context) error
}

// Run starts every task on a goroutine of its own and waits for all of them.
//
// The first task that fails ends the others: their context is cancelled with
// that failure as its [context.Cause]. A panic is a failure like any other and
// becomes a [*PanicError]; so is [runtime.Goexit].
//
// Run returns nil if no task failed, which includes the ordinary stop by ctx.
// Otherwise it returns the first failure, joined by what failed in other tasks
// while they were stopping; every failure carries its task's name. Once ctx is
// done, an error that wraps its error or its cause is how a task says that it
// has stopped, and is no failure.
//
// A task without a name or a function is refused before anything is started.
func Run(ctx context.Context, tasks ...Task) error {
	for i, task := range tasks {
		if task.Name == "" || task.Run == nil {
			return fmt.Errorf("runner: task %d (%q) needs both a name and a function", i, task.Name)
		}
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	var (
		wg       sync.WaitGroup
		mu       sync.Mutex // guards failures
		failures []error
	)
	end := func(task Task, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil || isStop(ctx, err) {
			return
		}
		err = fmt.Errorf("task %s: %w", task.Name, err)
		failures = append(failures, err)
		cancel(err) // under mu, so that the cause is the failure that is listed first
	}
	for _, task := range tasks {
		wg.Go(func() {
			err := errGoexit // unless the task returns or panics
			defer func() {
				if value := recover(); value != nil {
					err = &PanicError{Value: value, Stack: debug.Stack()}
				}
				end(task, err)
			}()
			err = task.Run(ctx)
		})
	}
	wg.Wait()

	if len(failures) == 1 {
		return failures[0] // not a list of one: the caller sees the chain itself
	}
	return errors.Join(failures...)
}

// isStop reports whether err only says that ctx is done. The same error from a
// context of the task's own, say a time limit, is a failure while ctx lives.
func isStop(ctx context.Context, err error) bool {
	if ctx.Err() == nil {
		return false
	}
	return errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))
}

// A PanicError is a panic that a task did not recover from.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // of the goroutine that panicked
}

// Error includes the stack: an error that ends the program is often logged as
// one text, and without the stack nobody could find the place.
func (e *PanicError) Error() string {
	return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack)
}

// Unwrap returns the value that was passed to panic if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// errGoexit is what a task fails with if it ends its goroutine under Run.
var errGoexit = errors.New("ended by runtime.Goexit instead of returning")
