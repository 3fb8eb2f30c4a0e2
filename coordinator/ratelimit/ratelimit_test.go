package ratelimit

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

func TestBuckets(t *testing.T) {
	l := New(2, 3, 10)
	now := time.Unix(1000, 0)
	for range 3 {
		_, ok := l.Take("a", now)
		assert.True(t, ok)
	}
	wait, ok := l.Take("a", now)
	assert.False(t, ok)
	assert.Equal(t, 500*time.Millisecond, wait)
	_, ok = l.Take("b", now)
	assert.True(t, ok, "another one's bucket")
	_, ok = l.Take("a", now.Add(499*time.Millisecond))
	assert.False(t, ok)
	_, ok = l.Take("a", now.Add(500*time.Millisecond))
	assert.True(t, ok)
	_, ok = l.Take("a", now)
	assert.False(t, ok, "a clock that goes back gives nothing")
	l.Give("a", 0.5, now.Add(500*time.Millisecond))
	_, ok = l.Take("a", now.Add(750*time.Millisecond))
	assert.True(t, ok, "half of one was given back")
	for range 3 {
		_, ok = l.Take("a", now.Add(time.Hour))
		assert.True(t, ok)
	}
	_, ok = l.Take("a", now.Add(time.Hour))
	assert.False(t, ok, "no more than the burst, after whatever time")

	late := New(1, 3, 10)
	for range 3 {
		late.Take("a", now)
	}
	late.Give("a", 0.5, now.Add(-time.Minute))
	_, ok = late.Take("a", now)
	assert.False(t, ok, "what is given back of a request that took long does not bring back its time")
	_, ok = late.Take("a", now.Add(500*time.Millisecond))
	assert.True(t, ok)
	_, ok = late.Take("a", now.Add(499*time.Millisecond))
	assert.False(t, ok)
	_, ok = late.Take("a", now.Add(501*time.Millisecond))
	assert.False(t, ok, "nor does one that has looked at the clock before")

	none := New(0, 1, 1)
	for range 1000 {
		_, ok = none.Take("a", now)
		assert.True(t, ok)
	}
}

// In whatever time, a key is let do no more than the burst and the rate allow; and the
// buckets are never more than they may be.
func TestNobodyGetsMoreThanTheRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate, burst := rapid.IntRange(1, 20).Draw(t, "rate"), rapid.IntRange(1, 20).Draw(t, "burst")
		l := New(rate, burst, 1000)
		now, taken := time.Unix(1000, 0), 0
		begin := now
		for range rapid.IntRange(0, 300).Draw(t, "requests") {
			wait, ok := l.Take("a", now)
			if ok {
				taken++
			} else {
				assert.Positive(t, wait)
				assert.GreaterOrEqual(t, l.leftOf("a", now.Add(wait)), 1-slack, "after the time that it was told")
			}
			now = now.Add(time.Duration(rapid.IntRange(0, int(200*time.Millisecond)).Draw(t, "pause")))
		}
		assert.LessOrEqual(t, float64(taken), float64(burst)+now.Sub(begin).Seconds()*float64(rate)+1e-3)
	})
}

func TestBucketsAreBounded(t *testing.T) {
	l := New(1, 5, 100)
	now := time.Unix(1000, 0)
	for range 5 {
		l.Take("busy", now)
	}
	for i := range 10_000 {
		l.Take(fmt.Sprint(i), now)
		assert.LessOrEqual(t, len(l.buckets), 100)
	}
	swept := l.swept
	l.Take("soon", now.Add(sweepEvery/2))
	assert.Equal(t, swept, l.swept, "they are not all looked through for each that comes")
	now = now.Add(time.Minute)
	l.Take("new", now)
	assert.Len(t, l.buckets, 1, "those that are full tell nothing")
}
