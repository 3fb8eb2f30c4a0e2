package jitter

import (
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// gaps receives n ticks as soon as each is sent and returns the time between
// them. It must run in a bubble.
func gaps(ticker *JitteredTicker, n int) []time.Duration {
	found := make([]time.Duration, n)
	last := time.Now()
	for i := range found {
		at := <-ticker.C
		found[i] = at.Sub(last)
		last = at
	}
	return found
}

func TestEveryGapIsDrawnAfreshAroundTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 4000
		ticker := NewJitteredTicker(time.Minute, DefaultSchedulerJitter)
		defer ticker.Stop()

		var sum time.Duration
		var low, high int
		seen := make(map[time.Duration]struct{})
		for _, gap := range gaps(ticker, n) {
			require.GreaterOrEqual(t, gap, 54*time.Second)
			require.Less(t, gap, 66*time.Second)
			sum += gap
			seen[gap] = struct{}{}
			if gap < 57*time.Second {
				low++
			}
			if gap >= 63*time.Second {
				high++
			}
		}
		// The gap's standard deviation is 6 s/√3; 0.4 s is 7 of the mean's.
		assert.InDelta(t, time.Minute, sum/n, float64(400*time.Millisecond))
		assert.Greater(t, len(seen), n*9/10, "the same gap came again and again")
		// Uniform: each outer quarter holds a quarter of the draws, ±7 σ.
		assert.InDelta(t, n/4, low, 200)
		assert.InDelta(t, n/4, high, 200)
	})
}

func TestWithoutJitterTheGapIsTheInterval(t *testing.T) {
	for name, jitter := range map[string]float64{"zero": 0, "negative": -0.5, "NaN": math.NaN(), "-Inf": math.Inf(-1)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ticker := NewJitteredTicker(time.Second, jitter)
				defer ticker.Stop()
				assert.Equal(t, []time.Duration{time.Second, time.Second, time.Second}, gaps(ticker, 3))
			})
		})
	}
}

func TestTooMuchJitterIsClamped(t *testing.T) {
	for _, jitter := range []float64{1, 50, math.Inf(1)} {
		synctest.Test(t, func(t *testing.T) {
			ticker := NewJitteredTicker(time.Second, jitter)
			defer ticker.Stop()
			for _, gap := range gaps(ticker, 500) {
				require.GreaterOrEqual(t, gap, 10*time.Millisecond)
				require.Less(t, gap, 1990*time.Millisecond)
			}
		})
	}
}

func TestIntervalThatIsNotPositivePanics(t *testing.T) {
	for _, interval := range []time.Duration{0, -1, math.MinInt64} {
		assert.PanicsWithValue(t,
			"jitter: NewJitteredTicker needs an interval above zero and got "+interval.String(),
			func() { NewJitteredTicker(interval, 0.1) })
	}
	ticker := NewJitteredTicker(time.Hour, 0)
	defer ticker.Stop()
	assert.Panics(t, func() { ticker.Reset(0) })
}

func TestSlowConsumerFindsOneTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ticker := NewJitteredTicker(time.Second, DefaultSchedulerJitter)
		defer ticker.Stop()
		<-time.After(100 * time.Second)
		synctest.Wait()

		stored := <-ticker.C
		assert.Greater(t, time.Since(stored), 97*time.Second, "the stored tick is the first that was not received")
		select {
		case <-ticker.C:
			t.Fatal("a second tick was stored")
		default:
		}
		// And it goes on at its pace.
		woken := time.Now()
		<-ticker.C
		assert.LessOrEqual(t, time.Since(woken), 1100*time.Millisecond)
	})
}

func TestNothingIsReceivedAfterStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ticker := NewJitteredTicker(time.Second, DefaultSchedulerJitter)
		<-time.After(5 * time.Second)
		synctest.Wait()
		require.Len(t, ticker.C, 1)

		ticker.Stop()
		ticker.Stop()
		ticker.Reset(time.Second) // must not bring it back
		<-time.After(time.Hour)
		select {
		case _, open := <-ticker.C:
			t.Fatalf("received after Stop (channel open: %v)", open)
		default:
		}
	})
}

func TestStopFromSeveralGoroutinesWhileItTicks(t *testing.T) {
	// On the real clock: the interval makes callbacks and Stop collide.
	for range 200 {
		ticker := NewJitteredTicker(20*time.Microsecond, maxJitter)
		<-ticker.C
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(ticker.Stop)
			wg.Go(func() { ticker.Reset(10 * time.Microsecond) })
		}
		wg.Wait()
		ticker.Stop()
		require.Empty(t, ticker.C)
	}
}

func TestCallbackThatResetOvertookIsVoid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ticker := NewJitteredTicker(time.Hour, 0)
		defer ticker.Stop()
		overtaken := ticker.armed
		ticker.Reset(time.Minute)
		ticker.tick(overtaken)
		assert.Empty(t, ticker.C, "the old gap's callback ticked")
		assert.Equal(t, []time.Duration{time.Minute, time.Minute}, gaps(ticker, 2))
	})
}

func TestCallbackThatStopOvertookIsVoid(t *testing.T) {
	ticker := NewJitteredTicker(time.Hour, 0)
	ticker.Stop()
	armed := ticker.armed
	ticker.tick(armed)
	assert.Empty(t, ticker.C)
	assert.Equal(t, armed, ticker.armed, "and starts no further gap")
}

func TestResetChangesThePaceAndTakesBackAWaitingTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ticker := NewJitteredTicker(time.Second, 0)
		defer ticker.Stop()
		<-time.After(90 * time.Second)
		synctest.Wait()
		require.Len(t, ticker.C, 1)
		ticker.Reset(time.Minute)
		assert.Equal(t, []time.Duration{time.Minute, time.Minute}, gaps(ticker, 2))
	})
}

func TestDrawStaysInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		interval := time.Duration(rapid.Int64Min(1).Draw(t, "interval"))
		jitter := clamp(rapid.Float64().Draw(t, "jitter"))
		u := rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "u")

		if jitter < 0 || jitter > maxJitter {
			t.Fatalf("jitter was clamped to %v", jitter)
		}
		gap := draw(interval, jitter, u)
		if gap < 1 {
			t.Fatalf("gap %v: a hot loop", gap)
		}
		// float64 has 53 bits: allow a relative rounding of 2^-50 and one nanosecond.
		low := float64(interval) * (1 - jitter)
		high := float64(interval) * (1 + jitter)
		if float64(gap) < low*(1-0x1p-50)-1 || float64(gap) > high*(1+0x1p-50)+1 {
			t.Fatalf("gap %v is not within %v ±%v", gap, interval, jitter)
		}
	})
}

func TestClampNaN(t *testing.T) {
	assert.Zero(t, clamp(math.NaN()))
}
