package orders

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/fleet"
)

// Orders are looked for together: an answer may be as old as it is as good as a new one.
func TestHowOldAnAnswerToASearchMayBe(t *testing.T) {
	const ever = 24 * time.Hour
	for name, c := range map[string]struct {
		unknown, searched time.Duration // before noon; 0 is never
		doubted           time.Duration
		change            func(b *fleet.Brokering)
		want              time.Duration
	}{
		"the first":                               {unknown: 40 * time.Second, doubted: ever, want: 40 * time.Second},
		"the first, after a long time":            {unknown: time.Hour, doubted: ever, want: time.Hour},
		"the first, with a clock set forward":     {unknown: time.Hour, doubted: time.Second, want: time.Second},
		"in doubt since later than now":           {unknown: -time.Minute, doubted: 0},
		"too early for a proof":                   {unknown: 100 * time.Second, searched: 90 * time.Second, doubted: ever, want: 100 * time.Second},
		"a proof":                                 {unknown: 3 * time.Minute, searched: 150 * time.Second, doubted: ever, want: time.Minute},
		"a proof after the last search":           {unknown: time.Hour, searched: 90 * time.Second, doubted: ever, want: 30 * time.Second},
		"a proof at its first moment":             {unknown: 2 * time.Minute, searched: time.Minute, doubted: ever},
		"no proof yet, as a clock was set":        {unknown: time.Hour, searched: 30 * time.Minute, doubted: time.Minute, want: time.Minute},
		"a proof that a set clock leaves less of": {unknown: time.Hour, searched: 30 * time.Minute, doubted: 121 * time.Second, want: time.Second},
		"another node may have been sending": {unknown: 10 * time.Minute, searched: 9 * time.Minute, doubted: ever, want: 4 * time.Minute, change: func(b *fleet.Brokering) {
			b.Claim.Node, b.Claim.At = "n2", noon.Add(-9*time.Minute-30*time.Second) // + 210 s + 120 s
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOrder(fleet.OrderUnknown)
			o.Brokering.UnknownSince = noon.Add(-c.unknown)
			if c.searched != 0 {
				o.Brokering.Searches, o.Brokering.SearchedAt = 1, noon.Add(-c.searched)
			}
			if c.change != nil {
				c.change(o.Brokering)
			}
			assert.Equal(t, c.want, testRules().old(o, noon, c.doubted))
		})
	}
}

// Whatever is read for others, and whenever: what begins the placement of another order
// was begun later than the order would have been visible, by both clocks, later than
// the doubt, and after an earlier search had its end.
func TestWhatWasReadForAnotherProvesAsMuch(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d))) }
	proofs, olds := 0, 0
	for range 50_000 {
		r := *testRules()
		r.visible = upTo(10*time.Minute) + time.Second
		o := testOrder(fleet.OrderUnknown)
		b := o.Brokering
		b.UnknownSince = noon.Add(-upTo(30 * time.Minute))
		inDoubt := noon.Sub(b.UnknownSince)
		if random.IntN(4) > 0 {
			b.Searches, b.SearchedAt = uint32(1+random.IntN(3)), noon.Add(-upTo(inDoubt+1))
		}
		if random.IntN(3) == 0 {
			b.Claim.Node, b.Claim.At = "n2", b.UnknownSince.Add(upTo(2*time.Minute)-time.Minute)
		}
		doubted := inDoubt
		if random.IntN(3) == 0 {
			doubted = upTo(30 * time.Minute)
		}
		old := r.old(o, noon, doubted)
		age := old // of what was read, at most
		if old > 0 {
			olds++
			age = upTo(old + 1)
		}
		assert.False(t, noon.Add(-age).Before(b.UnknownSince), "from before the doubt")
		judged := doubted - old
		r.doubted = &judged
		took := upTo(time.Minute)
		turn := r.found(o, nil, noon.Add(-old), noon.Add(took))
		if turn.state != fleet.OrderRequested {
			if b.SearchedAt.IsZero() { // what is read until then is no second look
				assert.Equal(t, noon.Add(took), turn.b.SearchedAt)
			}
			continue
		}
		proofs++
		began := noon.Add(-age)
		assert.False(t, began.Before(b.UnknownSince.Add(r.visible)))
		assert.GreaterOrEqual(t, doubted-age, r.visible)
		assert.True(t, began.After(b.SearchedAt), "it is the answer to the search before")
		if b.Claim.Node != r.node {
			assert.False(t, began.Before(b.Claim.At.Add(r.placeLimit+clockSkew+r.visible)))
		}
	}
	assert.Greater(t, proofs, 3_000)
	assert.Greater(t, olds, 20_000)
}
