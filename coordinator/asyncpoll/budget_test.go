package asyncpoll_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/asyncpoll"
)

// What an account is asked in five minutes, by how many orders wait at it, with the limits
// that an issuer has by default: most while their budgets last, and then as many as there
// are orders in an hour. It is never more than the rate. docs/operator/scale.md goes by
// what this logs.
func TestQuestionsOfFiveMinutes(t *testing.T) {
	const five = 5 * time.Minute
	defaults := asyncpoll.Limits{Rate: 2, Burst: 1, Concurrency: 4}
	most := int(defaults.Rate*five.Seconds()) + defaults.Burst
	for _, orders := range []int{10, 100, 1000} {
		random := rand.New(rand.NewPCG(3, 3))
		var mu sync.Mutex
		pace := asyncpoll.Pace{MaxWait: asyncpoll.DefaultMaxWait, Random: func() float64 {
			return random.Float64() // with mu held
		}}
		polls := map[string]asyncpoll.Polling{}
		pending := func(_ context.Context, _, key string) asyncpoll.Outcome {
			mu.Lock()
			defer mu.Unlock()
			polls[key] = pace.Next(polls[key], time.Now(), asyncpoll.Answer{})
			return asyncpoll.Outcome{Next: polls[key].Next}
		}
		run(t, map[string]asyncpoll.Limits{"a": defaults}, pending, func(q *asyncpoll.Queue, a *asker) {
			for i := range orders {
				require.NoError(t, q.Set("a", fmt.Sprint(i), a.start))
			}
			pass(6 * time.Hour)
			counts := make([]int, 6*time.Hour/five)
			for _, one := range a.asked() {
				if at := int(one.after / five); at < len(counts) {
					counts[at]++
				}
			}
			last := 0
			for _, count := range counts[len(counts)-12:] {
				last += count
			}
			t.Logf("%d orders: %d, %d, %d and %d questions in the first four times five minutes; %.1f in five minutes of the sixth hour", orders, counts[0], counts[1], counts[2], counts[3], float64(last)/12)
			for at, count := range counts {
				assert.LessOrEqual(t, count, most, "%d orders, five minutes number %d", orders, at)
			}
			assert.GreaterOrEqual(t, last, orders*8/10, "%d orders: each is asked about about once an hour", orders)
			assert.LessOrEqual(t, last, 2*orders, orders)
		})
	}
}
