package asyncpoll

import (
	"cmp"
	"sync/atomic"
	"time"

	"github.com/certctl/certctl/shared/backoff"
)

// DefaultMaxWait is the budget of a connector for which neither it nor everybody
// has one configured.
const DefaultMaxWait = 10 * time.Minute

// MaxPause bounds how long an authority can put off the next question about an
// order: what it asks for beyond that is asked about again.
const MaxPause = 6 * time.Hour

var (
	// quick is the pace while the budget lasts.
	quick = backoff.Policy{Initial: 5 * time.Second, Max: 5 * time.Minute, Multiplier: 3, Jitter: 0.2}
	// slow is the pace afterwards, and while a person has to act. Its wider jitter takes
	// orders apart that were all placed in one moment.
	slow = backoff.Policy{Initial: 5 * time.Minute, Max: time.Hour, Multiplier: 2, Jitter: 0.5}
)

// defaultMaxWait is in nanoseconds.
var defaultMaxWait atomic.Int64

// SetDefaultMaxWait sets the budget of every connector that has none of its own, for
// the whole program; 0 goes back to DefaultMaxWait. It may be called at any time.
func SetDefaultMaxWait(d time.Duration) { defaultMaxWait.Store(int64(max(d, 0))) }

// MaxWait is the budget that applies: own if it is above zero, else that of
// SetDefaultMaxWait, else DefaultMaxWait.
func MaxWait(own time.Duration) time.Duration {
	return cmp.Or(max(own, 0), time.Duration(defaultMaxWait.Load()), DefaultMaxWait)
}

// Polling is what is kept of the questions about one order. The zero value is an
// order that was never asked about.
type Polling struct {
	// Since is when the waiting began: the budget counts from it.
	Since time.Time
	// Asked counts the questions since the pace last began anew.
	Asked int
	// Slow says that the order goes on at the slow pace.
	Slow bool
	// Next is when to ask again.
	Next time.Time
}

// Answer is what a question had for an answer, as far as the pace goes.
type Answer struct {
	// Person says that the order waits for a person and not for a machine.
	Person bool
	// RetryAfter is the shortest pause that the authority asked for; 0 if none.
	RetryAfter time.Duration
}

// Pace says when to ask next.
type Pace struct {
	// MaxWait is the connector's own budget of wall-clock time; 0 leaves it to
	// [MaxWait].
	MaxWait time.Duration
	// Random returns numbers uniform in [0,1); nil is math/rand/v2's.
	Random func() float64
}

// Next is p after a question that ended at now: the quick pace while the budget
// lasts, then the slow one. A budget that is spent is no failure: the order is still
// pending, and is asked about until its authority decides or a person takes it back.
// Each change of pace begins with its shortest pause.
func (pace Pace) Next(p Polling, now time.Time, a Answer) Polling {
	if p.Since.IsZero() || p.Since.After(now) { // a clock was put back
		p.Since = now
	}
	wasSlow := p.Slow
	p.Slow = a.Person || pace.Spent(p, now)
	if p.Slow != wasSlow {
		p.Asked = 0
	}
	p.Asked++
	policy := quick
	if p.Slow {
		policy = slow
	}
	p.Next = now.Add(policy.DelayAfter(p.Asked, min(a.RetryAfter, MaxPause), pace.Random))
	return p
}

// Spent reports whether the budget of p is used up at now.
func (pace Pace) Spent(p Polling, now time.Time) bool {
	return !p.Since.IsZero() && now.Sub(p.Since) >= MaxWait(pace.MaxWait)
}
