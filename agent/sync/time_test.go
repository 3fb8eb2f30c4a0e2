package sync

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/shared/wire"
)

// wrongClock gives the host a wall clock that is off by that many nanoseconds.
func (h *host) wrongClock(wrong *atomic.Int64) *clock.Clock {
	began := time.Now()
	c, err := clock.New(clock.Config{
		Wall:    func() time.Time { return time.Now().Add(time.Duration(wrong.Load())) },
		Elapsed: func() time.Duration { return time.Hour + time.Since(began) },
		BootID:  "boot", Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(h.t, err)
	h.clock = c
	return c
}

// A host whose clock is decades off, so that no certificate in use verifies by
// it, reaches its coordinator all the same, learns the time there and says so.
func TestWrongClockReachesTheCoordinator(t *testing.T) {
	for _, by := range []time.Duration{25 * 365 * 24 * time.Hour, -25 * 365 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			h.enrol()
			var wrong atomic.Int64
			wrong.Store(int64(by))
			c := h.wrongClock(&wrong)
			h.start()
			h.pass(time.Minute)
			require.Equal(t, Connected, h.client.State().Standing)
			assert.WithinDuration(t, time.Now(), c.Now(), 2*time.Second)
			assert.WithinDuration(t, time.Now(), h.client.State().LastSuccess, 2*time.Minute)
			h.pass(2 * time.Minute)
			assert.InDelta(t, by.Seconds(), float64(h.agent().Host.ClockSkewSeconds), 2)
			require.NoError(t, h.client.AskTime(t.Context()))
			h.pass(10 * time.Second) // its connection is closed behind it
		})
	}
}

func TestAskTimeNeedsACoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.start()
		require.ErrorContains(t, h.client.AskTime(t.Context()), "no clock")
		h.stop()
		var right atomic.Int64
		h.wrongClock(&right)
		h.start()
		require.ErrorContains(t, h.client.AskTime(t.Context()), "not_enrolled")
		h.enrol()
		h.network.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.Error(t, h.client.AskTime(ctx))
	})
}

// The skew is reported so coarsely that an idle host causes no write.
func TestSkewIsReportedCoarsely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		var wrong atomic.Int64
		wrong.Store(int64(10 * time.Second))
		h.wrongClock(&wrong)
		var told []int64
		h.coord.Body = func(body []byte) {
			var request wire.SyncRequest
			if !assert.NoError(t, json.Unmarshal(body, &request)) {
				return
			}
			if n := request.Host.ClockSkewSeconds; len(told) == 0 || told[len(told)-1] != n {
				told = append(told, n)
			}
		}
		h.start()
		h.pass(10 * time.Minute)
		for range 100 { // a clock that runs 1 s a minute too fast, as few do
			wrong.Add(int64(time.Second))
			h.pass(time.Minute)
		}
		wrong.Store(0)
		h.pass(10 * time.Minute)
		h.stop()
		require.NotEmpty(t, told)
		assert.Zero(t, told[0])
		assert.Zero(t, told[len(told)-1], "it was put right")
		assert.LessOrEqual(t, len(told), 5, "%v", told)
		assert.Greater(t, len(told), 2)
	})
}
