// Package backoff owns waiting between attempts: how long, and until when.
//
// A [Policy] turns the number of an attempt into a delay, so a caller that
// stores that number continues after a restart where it was. [RetryAfter] reads
// what a server asked for, [Policy.DelayAfter] gives that precedence, and
// [Wait] waits and ends early with its context.
//
// The attempt number belongs to the caller, and with it the rule that it goes
// back to 1 only after real progress: a connection that is accepted and then
// dropped is none.
package backoff

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// A Policy says how the delay grows from attempt to attempt. It holds no state:
// one value serves any number of callers at the same time.
type Policy struct {
	// Initial is the delay after the first failed attempt; above zero.
	Initial time.Duration
	// Max is where the delay stops growing; at least Initial. Proportional
	// jitter is applied afterwards, or the crowd that has reached Max would be
	// in step again.
	Max time.Duration
	// Multiplier is the factor from one delay to the next; at least 1.
	Multiplier float64
	// Jitter makes the delay uniform in delay·(1±Jitter); from 0 to below 1.
	Jitter float64
	// FullJitter makes it uniform in [0, delay) instead, which scatters a crowd
	// that has lost its server at one moment as widely as possible. It excludes
	// Jitter.
	FullJitter bool
}

// Validate reports every field that makes no sense. The other methods panic on
// a policy that it refuses, so configured ones are checked where they are read.
func (p Policy) Validate() error {
	var problems []error
	if p.Initial <= 0 {
		problems = append(problems, fmt.Errorf("initial delay %v: must be above zero", p.Initial))
	}
	if p.Max < p.Initial {
		problems = append(problems, fmt.Errorf("maximum delay %v: must not be below the initial delay %v", p.Max, p.Initial))
	}
	if !(p.Multiplier >= 1) || math.IsInf(p.Multiplier, 1) { // the negation catches NaN
		problems = append(problems, fmt.Errorf("multiplier %v: must be a number from 1 upwards", p.Multiplier))
	}
	if !(p.Jitter >= 0 && p.Jitter < 1) {
		problems = append(problems, fmt.Errorf("jitter %v: must be from 0 to below 1, where 0.2 is ±20 %%", p.Jitter))
	}
	if p.FullJitter && p.Jitter != 0 {
		problems = append(problems, errors.New("full jitter and proportional jitter are both set: choose one"))
	}
	return errors.Join(problems...)
}

// Delay returns how long to wait after the given failed attempt, the first of
// which is 1; smaller numbers count as 1. It is at most Max·(1+Jitter).
//
// rnd returns numbers uniform in [0,1), as [rand.Float64] does, which is what
// nil stands for.
func (p Policy) Delay(attempt int, rnd func() float64) time.Duration {
	if err := p.Validate(); err != nil {
		panic(fmt.Sprintf("backoff: policy: %v", err))
	}
	if rnd == nil {
		rnd = rand.Float64
	}
	// The power becomes +Inf rather than wrapping for large attempts, and the
	// minimum with Max is exact for it.
	delay := min(float64(p.Initial)*math.Pow(p.Multiplier, float64(max(attempt, 1)-1)), float64(p.Max))
	switch {
	case p.FullJitter:
		delay *= rnd()
	case p.Jitter > 0:
		delay *= 1 + p.Jitter*(2*rnd()-1)
	}
	return saturate(delay)
}

// DelayAfter is [Policy.Delay] for an attempt that a server answered with
// Retry-After: the delay is never shorter than retryAfter. Up to Initial is
// added to it, so that those who were all told the same do not come back in
// the same moment.
func (p Policy) DelayAfter(attempt int, retryAfter time.Duration, rnd func() float64) time.Duration {
	if rnd == nil {
		rnd = rand.Float64
	}
	own := p.Delay(attempt, rnd)
	if retryAfter <= 0 {
		return own
	}
	scatter := time.Duration(float64(p.Initial) * rnd())
	if retryAfter > math.MaxInt64-scatter {
		return math.MaxInt64
	}
	return max(own, retryAfter+scatter)
}

// saturate converts nanoseconds to a Duration without wrapping around.
func saturate(nanoseconds float64) time.Duration {
	if nanoseconds >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(nanoseconds)
}
