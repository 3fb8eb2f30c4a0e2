package backoff

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

var polling = Policy{Initial: 5 * time.Second, Max: 5 * time.Minute, Multiplier: 3, Jitter: 0.2}

// fixed is a source of randomness that always says u.
func fixed(u float64) func() float64 { return func() float64 { return u } }

// almostOne is the largest number that a source in [0,1) can say.
var almostOne = math.Nextafter(1, 0)

func TestDelayGrowsToTheMaximum(t *testing.T) {
	var delays []time.Duration
	for attempt := 1; attempt <= 6; attempt++ {
		delays = append(delays, polling.Delay(attempt, fixed(0.5)))
	}
	assert.Equal(t, []time.Duration{
		5 * time.Second, 15 * time.Second, 45 * time.Second, 135 * time.Second, 5 * time.Minute, 5 * time.Minute,
	}, delays)
	for _, attempt := range []int{0, -1, math.MinInt} {
		assert.Equal(t, 5*time.Second, polling.Delay(attempt, fixed(0.5)))
	}
	assert.Equal(t, 5*time.Minute, polling.Delay(math.MaxInt, fixed(0.5)))
}

func TestProportionalJitter(t *testing.T) {
	assert.Equal(t, 4*time.Second, polling.Delay(1, fixed(0)))
	assert.InDelta(t, 6*time.Second, polling.Delay(1, fixed(almostOne)), 2)
	// At the maximum too: clamping after the draw would put half of all hosts in step.
	assert.Equal(t, 4*time.Minute, polling.Delay(9, fixed(0)))
	assert.InDelta(t, 6*time.Minute, polling.Delay(9, fixed(almostOne)), 200)
}

func TestFullJitter(t *testing.T) {
	policy := Policy{Initial: time.Second, Max: time.Minute, Multiplier: 2, FullJitter: true}
	assert.Zero(t, policy.Delay(3, fixed(0)))
	assert.Equal(t, time.Second, policy.Delay(3, fixed(0.25)))
	assert.Less(t, policy.Delay(3, fixed(almostOne)), 4*time.Second)
	assert.Equal(t, 30*time.Second, policy.Delay(100, fixed(0.5)))
}

func TestNilSourceIsRandom(t *testing.T) {
	seen := make(map[time.Duration]struct{})
	for range 100 {
		delay := polling.Delay(1, nil)
		assert.GreaterOrEqual(t, delay, 4*time.Second)
		assert.Less(t, delay, 6*time.Second)
		seen[delay] = struct{}{}
	}
	assert.Greater(t, len(seen), 90)
}

func TestDelayStaysInBoundsAndNeverShrinks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		initial := rapid.Int64Range(1, math.MaxInt64).Draw(t, "initial")
		policy := Policy{
			Initial:    time.Duration(initial),
			Max:        time.Duration(rapid.Int64Range(initial, math.MaxInt64).Draw(t, "max")),
			Multiplier: rapid.Float64Range(1, math.MaxFloat64).Draw(t, "multiplier"),
			FullJitter: rapid.Bool().Draw(t, "full"),
		}
		if !policy.FullJitter {
			policy.Jitter = rapid.Float64Range(0, almostOne).Draw(t, "jitter")
		}
		if err := policy.Validate(); err != nil {
			t.Fatal(err)
		}
		attempt := rapid.Int().Draw(t, "attempt")
		source := fixed(rapid.Float64Range(0, almostOne).Draw(t, "u"))

		delay := policy.Delay(attempt, source)
		limit := float64(policy.Max) * (1 + policy.Jitter) * (1 + 0x1p-50)
		if delay < 0 || float64(delay) > limit {
			t.Fatalf("delay %v is outside 0..%v", delay, time.Duration(limit))
		}
		if attempt < math.MaxInt && policy.Delay(attempt+1, source) < delay {
			t.Fatalf("attempt %d waits %v and the next one less", attempt, delay)
		}
		retryAfter := time.Duration(rapid.Int64().Draw(t, "retry_after"))
		if after := policy.DelayAfter(attempt, retryAfter, source); after < retryAfter || after < delay {
			t.Fatalf("DelayAfter is %v with Retry-After %v and own delay %v", after, retryAfter, delay)
		}
	})
}

func TestServerPrecedesTheOwnDelay(t *testing.T) {
	assert.Equal(t, time.Hour, polling.DelayAfter(1, time.Hour, fixed(0)))
	assert.Equal(t, time.Hour+2500*time.Millisecond, polling.DelayAfter(1, time.Hour, fixed(0.5)), "scattered over Initial")
	assert.Equal(t, 5*time.Minute, polling.DelayAfter(9, time.Second, fixed(0.5)), "an earlier moment does not shorten the own delay")
	assert.Equal(t, 5*time.Second, polling.DelayAfter(1, 0, fixed(0.5)))
	assert.Equal(t, 5*time.Second, polling.DelayAfter(1, -time.Hour, fixed(0.5)))
	assert.Equal(t, time.Duration(math.MaxInt64), polling.DelayAfter(1, math.MaxInt64, fixed(0.5)))
	assert.GreaterOrEqual(t, polling.DelayAfter(1, time.Hour, nil), time.Hour)
}

func TestPolicyThatMakesNoSenseIsRefused(t *testing.T) {
	tests := map[string]struct {
		spoil func(*Policy)
		want  string
	}{
		"no initial delay":    {func(p *Policy) { p.Initial = 0 }, "initial delay 0s: must be above zero"},
		"negative initial":    {func(p *Policy) { p.Initial = -1 }, "initial delay -1ns"},
		"maximum below":       {func(p *Policy) { p.Max = time.Second }, "maximum delay 1s: must not be below the initial delay 5s"},
		"shrinking":           {func(p *Policy) { p.Multiplier = 0.9 }, "multiplier 0.9: must be a number from 1 upwards"},
		"multiplier NaN":      {func(p *Policy) { p.Multiplier = math.NaN() }, "multiplier NaN"},
		"multiplier +Inf":     {func(p *Policy) { p.Multiplier = math.Inf(1) }, "multiplier +Inf"},
		"jitter of one":       {func(p *Policy) { p.Jitter = 1 }, "jitter 1: must be from 0 to below 1"},
		"negative jitter":     {func(p *Policy) { p.Jitter = -0.1 }, "jitter -0.1"},
		"jitter NaN":          {func(p *Policy) { p.Jitter = math.NaN() }, "jitter NaN"},
		"two kinds of jitter": {func(p *Policy) { p.FullJitter = true }, "choose one"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			policy := polling
			test.spoil(&policy)
			assert.ErrorContains(t, policy.Validate(), test.want)
			assert.Panics(t, func() { policy.Delay(1, fixed(0)) })
		})
	}
	assert.NoError(t, polling.Validate())
	err := Policy{}.Validate()
	assert.ErrorContains(t, err, "initial delay")
	assert.ErrorContains(t, err, "multiplier", "every problem is named at once")
}
