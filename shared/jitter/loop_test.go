package jitter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestLoopRunsAtEachTickUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		calls := 0
		Loop(ctx, time.Minute, DefaultSchedulerJitter, nil, func(got context.Context) {
			assert.Equal(t, ctx, got)
			calls++
		})
		assert.GreaterOrEqual(t, calls, 54)
		assert.LessOrEqual(t, calls, 66)
		assert.ErrorIs(t, ctx.Err(), context.DeadlineExceeded, "Loop returned before the end")
	})
}

func TestLoopRunsWhenWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		wake := make(chan struct{}, 1)
		wake <- struct{}{}
		began := time.Now()
		calls := 0
		Loop(ctx, time.Hour, 0, wake, func(context.Context) {
			calls++
			switch calls {
			case 1:
				assert.Zero(t, time.Since(began), "a stored wake must not wait for the tick")
				wake <- struct{}{}
			case 3:
				assert.Equal(t, time.Hour, time.Since(began), "a wake must not shift the tick")
				cancel()
			}
		})
		assert.Equal(t, 3, calls)
	})
}

func TestLoopWithAClosedWakeIsNoHotLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute+time.Second)
		defer cancel()
		wake := make(chan struct{})
		close(wake)
		calls := 0
		Loop(ctx, time.Minute, 0, wake, func(context.Context) { calls++ })
		assert.Equal(t, 10, calls)
	})
}

func TestLoopLeavesOutTheBeatsThatASlowCallMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		var starts []time.Duration
		Loop(ctx, time.Minute, 0, nil, func(context.Context) {
			starts = append(starts, time.Since(began))
			if len(starts) == 3 {
				cancel()
				return
			}
			<-time.After(150 * time.Second) // over two beats
		})
		// Called at 1 min until 3.5 min: the beats at 2 and 3 are gone, the one at 4 is kept.
		assert.Equal(t, []time.Duration{1 * time.Minute, 4 * time.Minute, 7 * time.Minute}, starts)
	})
}

func TestLoopDoesNotCallAfterTheEnd(t *testing.T) {
	// Both channels are ready, so that each select picks at random: 64 rounds
	// would hardly all pick the end first by luck.
	for range 64 {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			wake := make(chan struct{}, 1)
			wake <- struct{}{}
			Loop(ctx, time.Hour, 0, wake, func(context.Context) { t.Error("called after the end") })
		})
	}
}

func TestLoopStopsItsTicker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ticker := NewJitteredTicker(time.Second, 0)
		ctx, cancel := context.WithCancel(t.Context())
		ticker.loop(ctx, nil, func(context.Context) { cancel() })
		assert.True(t, ticker.stopped)
	})
}

func TestLoopLetsPanicsThroughAndStopsItsTicker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ticker := NewJitteredTicker(time.Second, 0)
		assert.PanicsWithValue(t, "boom", func() {
			ticker.loop(t.Context(), nil, func(context.Context) { panic("boom") })
		})
		assert.True(t, ticker.stopped)
	})
	assert.Panics(t, func() { Loop(t.Context(), 0, 0, nil, func(context.Context) {}) })
}
