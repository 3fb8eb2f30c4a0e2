package runner

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func TestFirstFailureEndsTheRestAndAllAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("disk is gone")
		began := time.Now()
		var cause error
		err := Run(t.Context(),
			Task{"store", func(context.Context) error {
				<-time.After(time.Second)
				return broken
			}},
			Task{"listener", func(ctx context.Context) error {
				<-ctx.Done()
				cause = context.Cause(ctx)
				<-time.After(time.Minute) // drains
				return ctx.Err()
			}},
		)
		assert.ErrorIs(t, err, broken)
		assert.EqualError(t, err, "task store: disk is gone")
		assert.Equal(t, err, cause, "the others learn why they end")
		assert.Equal(t, 61*time.Second, time.Since(began), "Run must wait for the slow one")
	})
}

func TestStopByTheParentIsNoFailure(t *testing.T) {
	shutdown := errors.New("shut down by the operator")
	tests := map[string]func(ctx context.Context) error{
		"nil":                   untilDone,
		"the context's error":   func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"the cause":             func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) },
		"wrapped context error": func(ctx context.Context) error { <-ctx.Done(); return errors.Join(ctx.Err()) },
		"finished before it":    func(context.Context) error { return nil },
	}
	for name, run := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(shutdown) })
				assert.NoError(t, Run(ctx, Task{"a", run}, Task{"b", untilDone}))
			})
		})
	}
}

func TestTaskThatIsFinishedEndsNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		err := Run(ctx,
			Task{"migration", func(context.Context) error { return nil }},
			Task{"loop", untilDone})
		assert.NoError(t, err)
		assert.Equal(t, time.Hour, time.Since(began))
	})
}

func TestContextErrorOfAnotherContextIsAFailure(t *testing.T) {
	for _, own := range []error{context.DeadlineExceeded, context.Canceled} {
		err := Run(t.Context(), Task{"dial", func(context.Context) error { return own }})
		assert.ErrorIs(t, err, own)
		assert.ErrorContains(t, err, "task dial")
	}
}

func TestFailuresWhileStoppingAreReportedToo(t *testing.T) {
	first, second := errors.New("first"), errors.New("flush failed")
	err := Run(t.Context(),
		Task{"a", func(context.Context) error { return first }},
		Task{"b", func(ctx context.Context) error { <-ctx.Done(); return second }},
		Task{"c", func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }},
	)
	assert.EqualError(t, err, "task a: first\ntask b: flush failed")
	assert.ErrorIs(t, err, first)
	assert.ErrorIs(t, err, second)
}

func TestPanicBecomesAnErrorWithItsStack(t *testing.T) {
	bug := errors.New("index out of range")
	ended := false
	err := Run(t.Context(),
		Task{"renewal", func(context.Context) error { panicInTask(bug); return nil }},
		Task{"sync", func(ctx context.Context) error { <-ctx.Done(); ended = true; return nil }},
	)
	var panicked *PanicError
	require.ErrorAs(t, err, &panicked)
	assert.Equal(t, bug, panicked.Value)
	assert.ErrorIs(t, err, bug)
	assert.Contains(t, string(panicked.Stack), "panicInTask")
	assert.ErrorContains(t, err, "task renewal: panic: index out of range\n")
	assert.ErrorContains(t, err, "panicInTask", "the text alone must lead to the place")
	assert.True(t, ended)
}

func panicInTask(value any) { panic(value) }

func TestPanicWithAnotherValue(t *testing.T) {
	err := Run(t.Context(), Task{"a", func(context.Context) error { panic("plain text") }})
	var panicked *PanicError
	require.ErrorAs(t, err, &panicked)
	assert.Equal(t, "plain text", panicked.Value)
	assert.NoError(t, panicked.Unwrap())
}

func TestGoexitIsAFailure(t *testing.T) {
	err := Run(t.Context(),
		Task{"a", func(context.Context) error { runtime.Goexit(); return nil }},
		Task{"b", untilDone})
	assert.ErrorIs(t, err, errGoexit)
	assert.ErrorContains(t, err, "task a")
}

func TestTaskWithoutNameOrFunctionStartsNothing(t *testing.T) {
	var started atomic.Bool
	good := Task{"good", func(context.Context) error { started.Store(true); return nil }}
	assert.EqualError(t, Run(t.Context(), good, Task{Name: "bad"}), `runner: task 1 ("bad") needs both a name and a function`)
	assert.Error(t, Run(t.Context(), good, Task{Run: untilDone}))
	assert.False(t, started.Load())
}

func TestNoTasks(t *testing.T) {
	assert.NoError(t, Run(t.Context()))
}
