package asyncpoll_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/asyncpoll"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// steady is the middle of every jitter.
func steady() float64 { return 0.5 }

func gaps(pace asyncpoll.Pace, count int, answer func(i int) asyncpoll.Answer) (list []time.Duration, p asyncpoll.Polling) {
	now := start
	for i := range count {
		p = pace.Next(p, now, answer(i))
		list = append(list, p.Next.Sub(now))
		now = p.Next
	}
	return list, p
}

func machine(int) asyncpoll.Answer { return asyncpoll.Answer{} }

func TestThePaceOfAnOrder(t *testing.T) {
	s, m := time.Second, time.Minute
	quick, _ := gaps(asyncpoll.Pace{MaxWait: time.Hour, Random: steady}, 6, machine)
	assert.Equal(t, []time.Duration{5 * s, 15 * s, 45 * s, 135 * s, 5 * m, 5 * m}, quick)

	// 5+15+45+135 s are 3 min 20 s, and 5 min more are beyond a budget of 8 min; the
	// last question within it is followed by the slow pace.
	spent, p := gaps(asyncpoll.Pace{MaxWait: 8 * m, Random: steady}, 11, machine)
	assert.Equal(t, []time.Duration{5 * s, 15 * s, 45 * s, 135 * s, 5 * m, 5 * m, 10 * m, 20 * m, 40 * m, 60 * m, 60 * m}, spent)
	assert.True(t, p.Slow)

	// A person is waited for slowly from the start; when the machine has it again, the
	// quick pace begins anew, if there is budget.
	mixed, _ := gaps(asyncpoll.Pace{MaxWait: time.Hour, Random: steady}, 5, func(i int) asyncpoll.Answer { return asyncpoll.Answer{Person: i < 3} })
	assert.Equal(t, []time.Duration{5 * m, 10 * m, 20 * m, 5 * s, 15 * s}, mixed)

	asked, _ := gaps(asyncpoll.Pace{Random: steady}, 2, func(int) asyncpoll.Answer { return asyncpoll.Answer{RetryAfter: 2 * m} })
	assert.Equal(t, []time.Duration{2*m + 2500*time.Millisecond, 2*m + 2500*time.Millisecond}, asked)
	most, _ := gaps(asyncpoll.Pace{Random: steady}, 1, func(int) asyncpoll.Answer { return asyncpoll.Answer{RetryAfter: 24 * time.Hour} })
	assert.Equal(t, asyncpoll.MaxPause+2500*time.Millisecond, most[0])
}

func TestTheBudgetThatApplies(t *testing.T) {
	t.Cleanup(func() { asyncpoll.SetDefaultMaxWait(0) })
	assert.Equal(t, 10*time.Minute, asyncpoll.MaxWait(0))
	asyncpoll.SetDefaultMaxWait(time.Hour)
	assert.Equal(t, time.Hour, asyncpoll.MaxWait(0))
	assert.Equal(t, 30*time.Second, asyncpoll.MaxWait(30*time.Second))
	assert.Equal(t, time.Hour, asyncpoll.MaxWait(-1))
	asyncpoll.SetDefaultMaxWait(-1)
	assert.Equal(t, 10*time.Minute, asyncpoll.MaxWait(0))
}

func TestAnyPace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		wait := time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "wait"))
		pace := asyncpoll.Pace{MaxWait: wait, Random: random.Float64}
		var p asyncpoll.Polling
		now := start
		for range rapid.IntRange(1, 40).Draw(t, "count") {
			a := asyncpoll.Answer{
				Person: rapid.Bool().Draw(t, "person"), RetryAfter: time.Duration(rapid.Int64Range(0, int64(8*time.Hour)).Draw(t, "after")),
			}
			was := p
			p = pace.Next(p, now, a)
			gap, after := p.Next.Sub(now), min(a.RetryAfter, asyncpoll.MaxPause)
			assert.GreaterOrEqual(t, gap, max(4*time.Second, after), "never at once, never before it was asked for")
			assert.LessOrEqual(t, gap, max(90*time.Minute, after+5*time.Minute))
			assert.Equal(t, start, p.Since, "the budget is of wall time since the first question")
			assert.Equal(t, a.Person || now.Sub(start) >= wait, p.Slow)
			if p.Slow == was.Slow && !was.Next.IsZero() {
				assert.Equal(t, was.Asked+1, p.Asked)
			} else {
				assert.Equal(t, 1, p.Asked)
			}
			if !p.Slow && a.RetryAfter == 0 {
				assert.LessOrEqual(t, gap, 6*time.Minute)
			}
			now = p.Next
		}
	})
}

func TestAClockThatIsPutBackCostsNoBudget(t *testing.T) {
	pace := asyncpoll.Pace{MaxWait: time.Minute, Random: steady}
	p := pace.Next(asyncpoll.Polling{}, start, asyncpoll.Answer{})
	p = pace.Next(p, start.Add(-24*time.Hour), asyncpoll.Answer{})
	assert.False(t, p.Slow)
	assert.Equal(t, start.Add(-24*time.Hour), p.Since)
}
