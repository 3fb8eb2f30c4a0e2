package jitter

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

func TestSpreadIsInThePeriodAndScalesWithIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.String().Draw(t, "key")
		period := time.Duration(rapid.Int64().Draw(t, "period"))
		phase := Spread(key, period)
		if period <= 0 {
			if phase != 0 {
				t.Fatalf("Spread(%q, %d) = %d", key, period, phase)
			}
			return
		}
		if phase < 0 || phase >= period {
			t.Fatalf("Spread(%q, %d) = %d is outside the period", key, period, phase)
		}
		if again := Spread(key, period); again != phase {
			t.Fatalf("Spread(%q, %d) = %d, then %d", key, period, phase, again)
		}
		if period < math.MaxInt64/5 {
			if scaled := Spread(key, 5*period); scaled/5 != phase {
				t.Fatalf("Spread(%q) = %d of %d but %d of five times that", key, phase, period, scaled)
			}
		}
	})
}

// The phases are part of the contract between versions: a fleet that is
// upgraded host by host must not shuffle itself.
func TestSpreadIsTheSameInEveryVersion(t *testing.T) {
	assert.Equal(t, 53364959693*time.Nanosecond, Spread("", time.Minute))
	assert.Equal(t, 26238740939*time.Nanosecond, Spread("agent-1", time.Minute))
}

func TestSpreadIsEvenOverSimilarKeys(t *testing.T) {
	const keys, buckets = 60_000, 60
	var count [buckets]int
	for i := range keys {
		count[Spread(fmt.Sprintf("web%d.example.com", i), time.Minute)/time.Second]++
	}
	for second, n := range count {
		// 1000 are expected in each; σ is about 31.
		assert.InDelta(t, keys/buckets, n, 200, "second %d", second)
	}
}
