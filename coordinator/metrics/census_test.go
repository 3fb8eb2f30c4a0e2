package metrics

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// However often it is asked for, a count that takes a while is made once a
// minute at most, and costs a hundredth of the time.
func TestCensusHasAPriceLimit(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		0: 0, 10 * time.Millisecond: 0, 11 * time.Millisecond: time.Minute, 600 * time.Millisecond: time.Minute, 2 * time.Second: 200 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			var counting counting
			counts := 0
			get := func() *census {
				return counting.get(func() *census {
					counts++
					time.Sleep(took)
					return &census{connected: counts}
				}, keepFor)
			}
			get()
			time.Sleep(want - want/100)
			if want > 0 {
				assert.Equal(t, 1, get().connected, took)
				time.Sleep(want / 50)
			}
			assert.Equal(t, 2, get().connected, took)
		})
	}
}
