// Package ratelimit bounds how often something may be done by each of many, with one
// token bucket for each. It is a function of the times that it is given.
package ratelimit

import (
	"math"
	"sync"
	"time"
)

// Limiter has a bucket for each key that was used last. It is safe for concurrent use.
type Limiter struct {
	rate  int // a second; 0 limits nothing
	burst int
	most  int // buckets

	mu      sync.Mutex
	buckets map[string]bucket
	swept   time.Time // when all of them were looked through last
}

// sweepEvery is how often all buckets are looked through at most: strangers come from as
// many addresses as they like.
const sweepEvery = time.Second

// slack is what is lost where fractions are rounded.
const slack = 1e-6

// bucket is what was left at a moment.
type bucket struct {
	left float64
	at   time.Time
}

// New makes a limiter that lets each key go on at a rate per second, after a burst, and
// has so many buckets at most. A rate of 0 limits nothing.
func New(rate, burst, most int) *Limiter {
	return &Limiter{rate: rate, burst: max(burst, 1), most: max(most, 1), buckets: map[string]bucket{}}
}

// Take takes one from a key's bucket. If there is none it says after what time there
// will be.
func (l *Limiter) Take(key string, now time.Time) (wait time.Duration, ok bool) {
	return l.spend(key, 1, now)
}

// Give puts a part of what was taken back.
func (l *Limiter) Give(key string, part float64, now time.Time) {
	l.spend(key, -part, now)
}

func (l *Limiter) spend(key string, amount float64, now time.Time) (wait time.Duration, ok bool) {
	if l.rate <= 0 {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	left := l.leftOf(key, now)
	if amount > 0 && left < 1-slack {
		return time.Duration(math.Ceil((1 - left) / float64(l.rate) * float64(time.Second))), false
	}
	at := now
	if b, known := l.buckets[key]; known && b.at.After(now) {
		at = b.at // the time up to there is in the bucket already
	} else if !known && len(l.buckets) >= l.most {
		l.makeRoom(now)
	}
	l.buckets[key] = bucket{left: min(left-amount, float64(l.burst)), at: at}
	return 0, true
}

// leftOf is what a key has at a moment. A clock that goes back gives nothing.
func (l *Limiter) leftOf(key string, now time.Time) float64 {
	b, known := l.buckets[key]
	if !known {
		return float64(l.burst)
	}
	return min(b.left+max(0, now.Sub(b.at).Seconds())*float64(l.rate), float64(l.burst))
}

// makeRoom forgets the buckets that are full again, which tell nothing; if there are
// none, or they were looked through just now, the fullest of a few.
func (l *Limiter) makeRoom(now time.Time) {
	if since := now.Sub(l.swept); since < 0 || since >= sweepEvery {
		l.swept = now
		for key := range l.buckets {
			if l.leftOf(key, now) >= float64(l.burst) {
				delete(l.buckets, key)
			}
		}
	}
	const few = 8
	for len(l.buckets) >= l.most {
		fullest, most, looked := "", -1.0, 0
		for key := range l.buckets { // in no order
			if left := l.leftOf(key, now); left > most {
				fullest, most = key, left
			}
			if looked++; looked == few {
				break
			}
		}
		delete(l.buckets, fullest)
	}
}
