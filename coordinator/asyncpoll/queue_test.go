package asyncpoll_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/asyncpoll"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type question struct {
	account, key string
	after        time.Duration
}

// asker records questions, and answers by answer.
type asker struct {
	start  time.Time
	answer func(ctx context.Context, account, key string) asyncpoll.Outcome

	mu        sync.Mutex
	questions []question
	told      []asyncpoll.AccountStatus
	open      int
	mostOpen  int
}

func (a *asker) ask(ctx context.Context, account, key string) asyncpoll.Outcome {
	a.mu.Lock()
	a.questions = append(a.questions, question{account, key, time.Since(a.start)})
	a.open++
	a.mostOpen = max(a.mostOpen, a.open)
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.open--
		a.mu.Unlock()
	}()
	return a.answer(ctx, account, key)
}

func (a *asker) asked() []question {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.questions)
}

// run has a queue at work in a bubble, until test returns.
func run(t *testing.T, limits map[string]asyncpoll.Limits, answer func(ctx context.Context, account, key string) asyncpoll.Outcome, test func(q *asyncpoll.Queue, a *asker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := &asker{start: time.Now(), answer: answer}
		q, err := asyncpoll.New(asyncpoll.Config{
			Accounts: limits, Ask: a.ask, CallTimeout: time.Minute, Random: steady,
			Changed: func(_ string, s asyncpoll.AccountStatus) {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.told = append(a.told, s)
			},
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- q.Run(ctx) }()
		synctest.Wait()
		test(q, a)
		cancel()
		require.NoError(t, <-ended)
	})
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

var plenty = asyncpoll.Limits{Rate: 1e6, Burst: 1000, Concurrency: 100}

func done(context.Context, string, string) asyncpoll.Outcome { return asyncpoll.Outcome{} }

func TestOrdersAreAskedAboutInTheirTime(t *testing.T) {
	run(t, map[string]asyncpoll.Limits{"a": plenty}, done, func(q *asyncpoll.Queue, a *asker) {
		for i, seconds := range []int{30, 10, 20, 50} {
			require.NoError(t, q.Set("a", fmt.Sprint(i), a.start.Add(time.Duration(seconds)*time.Second)))
		}
		require.NoError(t, q.Set("a", "0", a.start.Add(15*time.Second))) // earlier
		require.NoError(t, q.Set("a", "1", a.start.Add(40*time.Second))) // later
		q.Remove("a", "3")
		q.Remove("a", "nobody")
		require.Error(t, q.Set("b", "0", a.start))
		pass(time.Minute)
		assert.Equal(t, []question{{"a", "0", 15 * time.Second}, {"a", "2", 20 * time.Second}, {"a", "1", 40 * time.Second}}, a.asked())
		assert.Zero(t, q.Status()[0].Orders)
	})
}

func TestAHangingAuthorityHoldsUpNobody(t *testing.T) {
	hang := func(ctx context.Context, account, key string) asyncpoll.Outcome {
		if account == "hangs" || key == "hangs" {
			<-ctx.Done()
			return asyncpoll.Outcome{Health: asyncpoll.Failing, Reason: "no answer"}
		}
		return asyncpoll.Outcome{}
	}
	limits := map[string]asyncpoll.Limits{"hangs": {Concurrency: 2, Rate: 100, Burst: 10}, "works": {Concurrency: 2, Rate: 100, Burst: 10}}
	run(t, limits, hang, func(q *asyncpoll.Queue, a *asker) {
		for _, account := range []string{"hangs", "works"} {
			for i := range 4 {
				require.NoError(t, q.Set(account, fmt.Sprint(i), a.start))
			}
		}
		require.NoError(t, q.Set("works", "hangs", a.start.Add(-time.Second))) // first
		pass(time.Second)
		byAccount := map[string]int{}
		for _, asked := range a.asked() {
			byAccount[asked.account]++
		}
		assert.Equal(t, map[string]int{"hangs": 2, "works": 5}, byAccount, "two hang, and take the two places of their own account alone")
		pass(time.Minute)
		assert.Equal(t, 4+5, len(a.asked()), "each call has its end")
	})
}

func TestTheRateOfAnAccount(t *testing.T) {
	run(t, map[string]asyncpoll.Limits{"a": {Rate: 2, Burst: 3, Concurrency: 50}}, done, func(q *asyncpoll.Queue, a *asker) {
		for i := range 10 {
			require.NoError(t, q.Set("a", fmt.Sprint(i), a.start))
		}
		pass(time.Minute)
		var at []time.Duration
		for _, asked := range a.asked() {
			at = append(at, asked.after)
		}
		half := 500 * time.Millisecond
		assert.Equal(t, []time.Duration{0, 0, 0, half, 2 * half, 3 * half, 4 * half, 5 * half, 6 * half, 7 * half}, at)
	})
}

func TestAnAccountThatIsToldToWait(t *testing.T) {
	var later atomic.Bool
	answer := func(context.Context, string, string) asyncpoll.Outcome {
		if later.Swap(true) {
			return asyncpoll.Outcome{}
		}
		return asyncpoll.Outcome{Next: time.Now().Add(time.Second), Pause: time.Minute, Reason: "429"}
	}
	run(t, map[string]asyncpoll.Limits{"a": {Rate: 100, Burst: 10, Concurrency: 1}}, answer, func(q *asyncpoll.Queue, a *asker) {
		require.NoError(t, q.Set("a", "1", a.start))
		require.NoError(t, q.Set("a", "2", a.start.Add(time.Second)))
		pass(59 * time.Second)
		assert.Len(t, a.asked(), 1)
		assert.Equal(t, "429", q.Status()[0].PausedFor)
		pass(2 * time.Second)
		assert.Len(t, a.asked(), 3)
		assert.Zero(t, q.Status()[0].PausedUntil)
	})
}

func TestAnOperatorWhoKnowsMore(t *testing.T) {
	answer := func(context.Context, string, string) asyncpoll.Outcome {
		return asyncpoll.Outcome{Pause: time.Hour, Reason: "401", Next: time.Now().Add(time.Second)}
	}
	run(t, map[string]asyncpoll.Limits{"a": plenty}, answer, func(q *asyncpoll.Queue, a *asker) {
		require.NoError(t, q.Set("a", "1", a.start))
		pass(time.Minute)
		require.Len(t, a.asked(), 1)
		q.Resume("a")
		synctest.Wait()
		assert.Len(t, a.asked(), 2)
		assert.Len(t, a.told, 3)
	})
}

func TestAnAuthorityThatFails(t *testing.T) {
	var works atomic.Bool
	answer := func(context.Context, string, string) asyncpoll.Outcome {
		if works.Load() {
			return asyncpoll.Outcome{}
		}
		return asyncpoll.Outcome{Health: asyncpoll.Failing, Reason: "HTTP status 502", Next: time.Now().Add(time.Second)}
	}
	run(t, map[string]asyncpoll.Limits{"a": {Rate: 1000, Burst: 10, Concurrency: 1}}, answer, func(q *asyncpoll.Queue, a *asker) {
		for i := range 20 {
			require.NoError(t, q.Set("a", fmt.Sprint(i), a.start))
		}
		pass(20 * time.Second)
		assert.Len(t, a.asked(), 5)
		status := q.Status()[0]
		assert.Equal(t, "HTTP status 502", status.Reason)
		assert.Equal(t, 30*time.Second, status.OpenUntil.Sub(a.start).Round(time.Second))
		assert.Equal(t, 20, status.Due)
		pass(4 * time.Minute)
		assert.Len(t, a.asked(), 8, "one trial after 30 s, a minute and two minutes")
		works.Store(true)
		pass(5 * time.Minute)
		assert.Len(t, a.asked(), 8+20)
		assert.Zero(t, q.Status()[0].OpenUntil)
		require.Len(t, a.told, 5, "opened, three trials, closed")
		assert.Zero(t, a.told[4].OpenUntil)
	})
}

func TestChangesWhileAQuestionIsOpen(t *testing.T) {
	answer := func(context.Context, string, string) asyncpoll.Outcome {
		time.Sleep(10 * time.Second)
		return asyncpoll.Outcome{Next: time.Now().Add(time.Hour)}
	}
	run(t, map[string]asyncpoll.Limits{"a": plenty}, answer, func(q *asyncpoll.Queue, a *asker) {
		for _, key := range []string{"sooner", "gone", "back"} {
			require.NoError(t, q.Set("a", key, a.start))
		}
		pass(time.Second)
		require.NoError(t, q.Set("a", "sooner", a.start))
		q.Remove("a", "gone")
		q.Remove("a", "back")
		require.NoError(t, q.Set("a", "back", a.start.Add(time.Minute)))
		pass(2 * time.Minute)
		count := map[string]int{}
		for _, asked := range a.asked() {
			count[asked.key]++
		}
		assert.Equal(t, map[string]int{"sooner": 2, "gone": 1, "back": 2}, count)
		assert.Equal(t, 2, q.Status()[0].Orders)
	})
}

// Ten thousand orders that wait for days cost no goroutine each, come in no herd, and
// stay within their account's limits.
func TestTenThousandOrdersThatWait(t *testing.T) {
	const orders, perAccount = 10_000, 2_500
	random := rand.New(rand.NewPCG(7, 7))
	var mu sync.Mutex
	draw := func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return random.Float64()
	}
	pace := asyncpoll.Pace{MaxWait: 10 * time.Minute, Random: draw}
	polls := map[string]asyncpoll.Polling{}
	answer := func(_ context.Context, _, key string) asyncpoll.Outcome {
		mu.Lock()
		p := polls[key]
		mu.Unlock()
		p = pace.Next(p, time.Now(), asyncpoll.Answer{})
		mu.Lock()
		polls[key] = p
		mu.Unlock()
		return asyncpoll.Outcome{Next: p.Next}
	}
	limits := map[string]asyncpoll.Limits{}
	for account := range orders / perAccount {
		limits[fmt.Sprint(account)] = asyncpoll.Limits{Rate: 4, Burst: 4, Concurrency: 4}
	}
	run(t, limits, answer, func(q *asyncpoll.Queue, a *asker) {
		before := runtime.NumGoroutine()
		for i := range orders {
			require.NoError(t, q.Set(fmt.Sprint(i%len(limits)), fmt.Sprint(i), a.start))
		}
		pass(150 * time.Minute)
		assert.LessOrEqual(t, runtime.NumGoroutine(), before+len(limits)*4)
		asked := a.asked()
		perSecond, histogram := map[string]map[int]int{}, map[int]int{}
		for _, one := range asked {
			if perSecond[one.account] == nil {
				perSecond[one.account] = map[int]int{}
			}
			perSecond[one.account][int(one.after/time.Second)]++
			histogram[int(one.after/(30*time.Minute))]++
		}
		for account, seconds := range perSecond {
			for second, count := range seconds {
				require.LessOrEqual(t, count, 8, "account %s in second %d: the rate of 4, and a burst of 4", account, second)
			}
		}
		for _, half := range slices.Sorted(maps.Keys(histogram)) {
			t.Logf("minutes %3d to %3d: %d questions", half*30, half*30+30, histogram[half])
		}
		// Once all are at the slowest pace, one an hour, they stay spread over it: an
		// even spread would have 167 a minute.
		minutes := map[int]int{}
		for _, one := range asked {
			if one.after >= 90*time.Minute {
				minutes[int(one.after/time.Minute)]++
			}
		}
		most := slices.Max(slices.Collect(maps.Values(minutes)))
		t.Logf("the fullest minute of the last hour has %d questions of %d orders", most, orders)
		assert.Less(t, most, 3*orders/60)
	})
}
