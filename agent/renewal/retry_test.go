package renewal

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/backoff"
)

const middle = 0.5 // no jitter

func generation(life, remaining time.Duration) *store.Generation {
	start := noon.Add(remaining - life)
	return &store.Generation{Number: 1, NotBefore: start, IssuedAt: start, NotAfter: noon.Add(remaining)}
}

func TestPause(t *testing.T) {
	month := generation(90*day, 30*day)
	for name, c := range map[string]struct {
		pace     pace
		attempt  int
		asked    time.Duration
		cur      *store.Generation
		lifetime time.Duration
		want     time.Duration
	}{
		"first":                              {normalPace, 1, 0, month, 0, time.Minute},
		"no attempt counts as the first":     {normalPace, 0, 0, month, 0, time.Minute},
		"third":                              {normalPace, 3, 0, month, 0, 5 * time.Minute},
		"for ever":                           {normalPace, 1000, 0, month, 0, 6 * time.Hour},
		"slow":                               {slowPace, 1, 0, month, 0, time.Hour},
		"tightens towards expiry":            {normalPace, 9, 0, generation(90*day, 8*time.Hour), 0, time.Hour},
		"but not below its floor":            {normalPace, 9, 0, generation(90*day, time.Minute), 0, time.Minute},
		"after expiry":                       {normalPace, 9, 0, generation(90*day, -day), 0, 30 * time.Minute},
		"refused after expiry":               {slowPace, 9, 0, generation(90*day, -day), 0, time.Hour},
		"no certificate yet":                 {normalPace, 9, 0, nil, 0, 30 * time.Minute},
		"no certificate yet, short life":     {normalPace, 9, 0, nil, time.Minute, 3 * time.Second},
		"a day's certificate":                {normalPace, 9, 0, generation(day, 12*time.Hour), 0, 72 * time.Minute},
		"a minute's certificate":             {normalPace, 9, 0, generation(time.Minute, 30*time.Second), 0, 3 * time.Second},
		"a minute's certificate, at its end": {normalPace, 9, 0, generation(time.Minute, time.Second), 0, time.Second},
		"asked for longer":                   {normalPace, 1, time.Hour, month, 0, time.Hour + 30*time.Second},
		"asked for less":                     {normalPace, 4, time.Minute, month, 0, 10 * time.Minute},
		"asked for longer than a day":        {normalPace, 1, 100 * day, month, 0, day + 30*time.Second},
		"asked for past half of what is left": {
			normalPace, 1, 20 * time.Hour, generation(90*day, 10*time.Hour), 0, 5 * time.Hour},
		"asked for, nothing in service": {normalPace, 1, 5 * time.Hour, nil, 0, 5*time.Hour + 30*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, c.pace.pause(c.attempt, c.asked, c.cur, c.lifetime, noon, middle))
		})
	}
}

func TestPauseKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom([]pace{normalPace, slowPace, waitPace}).Draw(t, "pace")
		attempt := rapid.IntRange(0, 1<<30).Draw(t, "attempt")
		asked := time.Duration(rapid.Int64Range(-int64(day), int64(1000*day)).Draw(t, "asked"))
		life := time.Duration(rapid.Int64Range(int64(10*time.Second), int64(400*day)).Draw(t, "life"))
		left := rapid.Float64Range(-1, 1).Draw(t, "left")
		u := rapid.Float64Range(0, 0.999999).Draw(t, "u")
		cur := generation(life, fraction(life, left))
		remaining := cur.NotAfter.Sub(noon)

		got := p.pause(attempt, asked, cur, 0, noon, u)
		if got < minFloor*8/10 {
			t.Fatalf("%v is a hot loop", got)
		}
		if got >= maxPause {
			t.Fatalf("%v would be taken for a clock that was set back", got)
		}
		floor := fraction(maxFloor, 1.1)
		if remaining > 0 && got > max(remaining/retryAfterParts, floor) {
			t.Fatalf("%v is more than half of the %v that are left", got, remaining)
		}
		if asked > 0 && (remaining <= 0 || asked <= remaining/retryAfterParts) && got < min(asked, backoff.MaxRetryAfter) {
			t.Fatalf("%v is less than the %v that were asked for", got, asked)
		}
	})
}

func TestWorry(t *testing.T) {
	for name, c := range map[string]struct {
		rec  store.Certificate
		want string
	}{
		"all is well":               {store.Certificate{Current: generation(90*day, 5*day)}, ""},
		"no certificate yet":        {store.Certificate{Attempt: 4}, ""},
		"it lasts":                  {store.Certificate{Attempt: 5}, "attempts"},
		"failing in the last tenth": {store.Certificate{Attempt: 1, Current: generation(90*day, 8*day)}, "expires on"},
		"failing before it":         {store.Certificate{Attempt: 1, Current: generation(90*day, 10*day)}, ""},
		"expired":                   {store.Certificate{Current: generation(90*day, 0)}, "expired on 2026-03-01T12:00:00Z"},
	} {
		got := worry(&c.rec, noon)
		if c.want == "" {
			assert.Empty(t, got, name)
		} else {
			assert.Contains(t, got, c.want, name)
		}
	}
}

func TestReachedAfterTheClockWentBack(t *testing.T) {
	assert.True(t, reached(time.Time{}, noon))
	assert.True(t, reached(noon, noon))
	assert.False(t, reached(noon.Add(time.Nanosecond), noon))
	assert.False(t, reached(noon.Add(day), noon))
	assert.True(t, reached(noon.Add(365*day), noon), "no pause is that long")
}
