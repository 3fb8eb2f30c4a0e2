package jitter

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// DefaultSchedulerJitter is the fraction by which the project's loops vary
// each of their gaps: ±10 %.
const DefaultSchedulerJitter = 0.10

// maxJitter keeps the shortest possible gap above zero: at 1.0 a draw could be
// no gap at all, which is a hot loop for as long as the luck lasts.
const maxJitter = 0.99

// A JitteredTicker sends the time on C again and again, each gap drawn afresh
// and uniformly from interval·(1−jitter) to interval·(1+jitter). Two ticks are
// never sent closer together than that, even after the process was suspended.
//
// Its methods may be called by several goroutines at once. No goroutine exists
// between two ticks, so there is nothing that Stop would have to wait for.
type JitteredTicker struct {
	// C holds at most one tick. While it holds one, further ticks are dropped:
	// a consumer that was slow finds one tick, never a burst. C is never
	// closed, so that a receive that succeeds is always a tick.
	C <-chan time.Time

	c      chan time.Time
	jitter float64 // 0..maxJitter, fixed at creation

	mu       sync.Mutex // guards the fields below and every send on c
	interval time.Duration
	timer    *time.Timer
	armed    uint64 // number of the newest gap; a callback of an older one is void
	stopped  bool
}

// NewJitteredTicker starts a ticker whose gaps vary by the fraction jitterPct
// around interval (0.10 is ±10 %). The first tick comes after the first gap.
//
// jitterPct is clamped to 0..0.99; NaN counts as 0. An interval that is not
// positive panics, as [time.NewTicker] does, because the only other thing that
// it could mean is a hot loop: check configured intervals before they get here.
func NewJitteredTicker(interval time.Duration, jitterPct float64) *JitteredTicker {
	mustBePositive("NewJitteredTicker", interval)
	c := make(chan time.Time, 1)
	t := &JitteredTicker{C: c, c: c, jitter: clamp(jitterPct), interval: interval}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.arm()
	return t
}

// Stop ends the ticker for good and may be called any number of times. Once it
// has returned nothing can be received any more: a tick that was waiting in C
// is taken back.
func (t *JitteredTicker) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	t.timer.Stop()
	t.takeBack()
}

// Reset changes the interval and starts a new gap; a tick that was waiting in C
// is taken back. It does nothing on a stopped ticker, and panics like
// [NewJitteredTicker] if interval is not positive.
func (t *JitteredTicker) Reset(interval time.Duration) {
	mustBePositive("JitteredTicker.Reset", interval)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	t.interval = interval
	t.timer.Stop()
	t.takeBack()
	t.arm()
}

// arm starts the next gap. The caller holds mu.
func (t *JitteredTicker) arm() {
	t.armed++
	gap := t.armed
	t.timer = time.AfterFunc(draw(t.interval, t.jitter, rand.Float64()), func() { t.tick(gap) })
}

// tick ends the given gap. It runs on a goroutine of its own, which Stop and
// Reset cannot call back once it has started: hence the two checks.
func (t *JitteredTicker) tick(gap uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped || gap != t.armed {
		return
	}
	select {
	case t.c <- time.Now():
	default:
	}
	// The next gap counts from now and not from when this tick was due: catching
	// up after a suspended process would be the burst that C must not see.
	t.arm()
}

// takeBack empties C. The caller holds mu, so that nothing refills it.
func (t *JitteredTicker) takeBack() {
	select {
	case <-t.c:
	default:
	}
}

// draw turns u, uniform in [0,1), into a gap of interval·(1±jitter).
func draw(interval time.Duration, jitter, u float64) time.Duration {
	gap := float64(interval) * (1 + jitter*(2*u-1))
	if gap >= math.MaxInt64 {
		return math.MaxInt64
	}
	// Intervals of a few nanoseconds can round down to no gap at all.
	return max(time.Duration(gap), 1)
}

// clamp brings a jitter fraction into 0..maxJitter.
func clamp(jitterPct float64) float64 {
	if math.IsNaN(jitterPct) {
		return 0
	}
	return min(max(jitterPct, 0), maxJitter)
}

func mustBePositive(function string, interval time.Duration) {
	if interval <= 0 {
		panic(fmt.Sprintf("jitter: %s needs an interval above zero and got %v", function, interval))
	}
}
