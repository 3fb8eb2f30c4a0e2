package renewal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// newWorldOfMany is a host with n certificates to be obtained.
func newWorldOfMany(t *testing.T, n int, limits Limits) *world {
	w := newWorld(t)
	w.limits, w.names = limits, nil
	for i := range n {
		w.names = append(w.names, fmt.Sprintf("c%02d", i))
	}
	return w
}

// records are those of all certificates, by name.
func (w *world) records() map[string]*store.Certificate {
	w.t.Helper()
	all, err := w.store.Store.(*store.Store).Certificates()
	require.NoError(w.t, err)
	byName := make(map[string]*store.Certificate, len(all))
	for _, rec := range all {
		byName[rec.Name] = rec
	}
	return byName
}

func TestOrdersKeepWithinTheBudget(t *testing.T) {
	w := newWorldOfMany(t, 40, Limits{OrdersPerHour: 12, Burst: 4})
	w.open()
	begun := w.clock.now()
	for minute := range 4 * 60 {
		if minute == 10 || minute == 100 {
			w.reopen() // which gives nobody a turn
		}
		w.tick()
		w.tick()
		earned := 4 + int(w.clock.now().Sub(begun)/(5*time.Minute))
		require.LessOrEqual(t, w.ca.orders(), earned, "minute %d", minute)
		if minute == 20 {
			require.Equal(t, earned, w.ca.orders(), "a turn is used when it has come")
			status, err := w.e.Status()
			require.NoError(t, err)
			waiting := 0
			for _, s := range status {
				if s.WaitsFor == "" {
					continue
				}
				waiting++
				assert.Equal(t, "ca", s.WaitsFor)
				assert.True(t, s.WaitsUntil.After(w.clock.now()))
				assert.False(t, s.WaitsUntil.After(w.clock.now().Add(40*5*time.Minute)))
				assert.Zero(t, s.Record.Attempt, "to wait is no failure")
				assert.Empty(t, s.Record.NeedsAttention)
				assert.Equal(t, wire.StatePending, s.Record.Summary().State)
				assert.Empty(t, s.Problem)
			}
			assert.Equal(t, 40-earned, waiting)
		}
		w.clock.advance(time.Minute)
	}
	assert.Equal(t, 40, w.ca.issuedCount())
	assert.Empty(t, w.events(wire.EventFailed))
	assert.Empty(t, w.e.turns.lines["ca"].waiting.byName)
}

// Certificates that can never be had use a part of the budget and no more.
func TestNamesThatFailDoNotStarveTheOthers(t *testing.T) {
	w := newWorldOfMany(t, 24, Limits{OrdersPerHour: 6, Burst: 3})
	// Those that fail have names that come first.
	fails := func(name string) bool { return name < "c20" }
	good := 0
	w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
		if fails(order.Certificate) {
			return &issuer.Error{Class: issuer.ClassOrderGone, Err: errors.New("does not resolve")}
		}
		good++
		return nil
	})
	w.open()
	w.run(6*time.Hour, 10*time.Minute)
	require.Equal(t, 4, good, "every certificate that can be had")
	require.LessOrEqual(t, w.ca.calls, 3+6*6+1)

	// One more that can be had comes to a line of twenty that fail again and again.
	w.close()
	w.names = append(w.names, "new")
	w.open()
	w.run(time.Hour, 10*time.Minute)
	require.NotNil(t, w.records()["new"].Current, "it waits for those that fail")

	// And one of those that failed is not forgotten when it is mended.
	w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
		if order.Certificate != "c17" {
			return &issuer.Error{Class: issuer.ClassOrderGone, Err: errors.New("does not resolve")}
		}
		return nil
	})
	w.run(6*time.Hour, 10*time.Minute)
	require.NotNil(t, w.records()["c17"].Current)
}

// What expires first is renewed first, whenever it became due.
func TestWhatExpiresFirstHasTheNextTurn(t *testing.T) {
	w := newWorldOfMany(t, 20, Limits{})
	w.open()
	for i, name := range w.names { // one after the other, the last expires first
		require.NoError(t, w.store.Update(name, func(tx *store.CertificateTx) error {
			at := w.clock.now().Add(-time.Duration(61+i) * day)
			tx.Record.Phase, tx.Record.ConfigDigest = store.PhaseIdle, w.e.roster.managed[name].digest
			tx.Record.RenewAt = at.Add(60 * day)
			tx.Record.Current = &store.Generation{
				Number: 1, KeyID: fmt.Sprintf("%032x", i), KeyAlgorithm: pki.ECDSAP256, Fingerprint: name, IssuedAt: at, NotBefore: at, NotAfter: at.Add(90 * day), ConfigDigest: w.e.roster.managed[name].digest,
			}
			return nil
		}))
	}
	w.close()
	w.limits = Limits{OrdersPerHour: 1, Burst: 1}
	var asked []string
	w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
		asked = append(asked, order.Certificate)
		return nil
	})
	w.open()
	w.tick() // all have come to the line, and whoever came first has had a turn
	asked = nil
	w.run(19*time.Hour+time.Minute, 5*time.Minute)
	require.Len(t, asked, 19)
	for i := 1; i < len(asked); i++ {
		assert.Less(t, asked[i], asked[i-1], "%v", asked)
	}
}

// What an authority says to one certificate may be about its names; what it says
// to two is about the account, and stops what is new, over a restart too.
func TestALimitOfTheAccountStopsWhatIsNew(t *testing.T) {
	w := newWorldOfMany(t, 12, Limits{})
	limited := func(names ...string) func(context.Context, *issuer.Order) error {
		return func(_ context.Context, order *issuer.Order) error {
			for _, name := range names {
				if strings.HasPrefix(order.Certificate, name) {
					return &issuer.Error{Class: issuer.ClassRetry, RetryAfter: 8 * time.Hour, Limited: true, Err: errors.New("too many")}
				}
			}
			return nil
		}
	}
	w.ca.interfere(limited("c03"))
	w.tune = func(c *Config) { c.Concurrency = 1 }
	w.open()
	w.run(3*time.Minute, 5*time.Second)
	require.Equal(t, 11, w.ca.issuedCount(), "one certificate's limit stops another one")

	w.close()
	for i := range 12 {
		w.names = append(w.names, fmt.Sprintf("d%02d", i))
	}
	w.ca.interfere(limited("c", "d"))
	calls := w.ca.calls
	w.open()
	w.run(5*time.Minute, 5*time.Second)
	require.Equal(t, 2, w.ca.calls-calls, "the second one says enough")
	status, err := w.e.Status()
	require.NoError(t, err)
	waiting := 0
	for _, s := range status {
		if s.WaitsFor != "" {
			waiting++
			assert.Zero(t, s.Record.Attempt)
		}
	}
	require.Equal(t, 10, waiting)
	w.reopen()
	w.run(50*time.Minute, time.Minute)
	require.Equal(t, 2, w.ca.calls-calls, "the pause does not outlast a restart")

	// Now and then one order asks whether it still holds.
	w.run(4*time.Hour, time.Minute)
	require.InDelta(t, 6, w.ca.calls-calls, 1)
	w.ca.interfere(nil)
	w.run(65*time.Minute, time.Minute)
	for name, rec := range w.records() {
		if strings.HasPrefix(name, "d") && rec.OrderAttempt == 0 {
			require.NotNil(t, rec.Current, "%s waits although an order was taken", name)
		}
	}
	w.run(9*time.Hour, time.Minute)
	require.Equal(t, 24, w.ca.issuedCount())
	assert.Empty(t, w.e.turns.lines["ca"].LimitedFor)
}

// A certificate that is about to expire does not wait for an authority's pause
// longer than its own policy says.
func TestAPauseEndsEarlierForWhatExpires(t *testing.T) {
	l := newLine()
	l.refused("one", 20*time.Hour, noon)
	assert.False(t, l.Paused)
	l.refused("one", 20*time.Hour, noon)
	assert.False(t, l.Paused, "the same one again")
	l.refused("two", 10*time.Hour, noon)
	require.True(t, l.Paused)
	assert.Equal(t, noon.Add(20*time.Hour), l.LimitedUntil, "shortened by another answer")
	for name, c := range map[string]struct {
		expires, want time.Duration
	}{
		"has time":      {30 * day, 20 * time.Hour},
		"expires first": {6 * time.Hour, 3 * time.Hour},
	} {
		assert.Equal(t, noon.Add(c.want), l.pausedFor(&wish{name: name, notAfter: noon.Add(c.expires)}, noon), name)
	}
	assert.Equal(t, noon.Add(20*time.Hour), l.pausedFor(&wish{none: true}, noon))
	assert.Equal(t, noon.Add(21*time.Hour), l.pausedFor(&wish{none: true}, noon.Add(21*time.Hour)), "it is over")
	assert.Equal(t, noon.Add(-400*day), l.pausedFor(&wish{none: true}, noon.Add(-400*day)), "a clock that was set back prolongs nothing")
	assert.True(t, l.accepted())
	assert.False(t, l.accepted())
	assert.Equal(t, store.Turns{}, l.Turns)
}

// However orders come, and over whatever time, a budget is a budget: turns are
// foretold as they are given, and each who waits has one of his own.
func TestTheLineKeepsItsBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{OrdersPerHour: rapid.IntRange(1, 50).Draw(t, "an hour"), Burst: rapid.IntRange(0, 20).Draw(t, "burst")}
		l := newLine()
		now := noon
		var taken, beyond []time.Time
		for n := range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(40*time.Minute)).Draw(t, "pass")))
			w := wish{
				name: fmt.Sprint(n), failing: rapid.Bool().Draw(t, "failing"), none: rapid.Bool().Draw(t, "none"),
				lateAt: noon.Add(time.Hour), notAfter: noon.Add(time.Duration(rapid.IntRange(1, 50).Draw(t, "expires")) * time.Hour),
			}
			l.waiting.put(w, now)
			places := map[int]bool{}
			for _, waiting := range l.waiting.byName {
				places[l.ahead(waiting, now)] = true
			}
			if len(places) != len(l.waiting.byName) {
				t.Fatalf("%d places for %d", len(places), len(l.waiting.byName))
			}
			names := l.called(func(string) (Limits, bool) { return limits, true }, now)
			for i, name := range names {
				w := l.waiting.byName[name]
				if l.ahead(w, now) != 0 && (!w.failing || !w.presses(now)) {
					t.Fatalf("%s is called as number %d and is not the first", name, i)
				}
				if at := l.turnOf(l.waiting.byName[name], limits, now); !at.Equal(now) {
					t.Fatalf("%s is called at %v, and its turn is at %v", name, now, at)
				}
				before := l.OverdrawnAt
				if l.take(name, limits, now); l.OverdrawnAt.Equal(before) {
					taken = append(taken, now)
					continue
				}
				if !w.presses(now) {
					t.Fatalf("%s has time and is let through beyond the budget", name)
				}
				beyond = append(beyond, now)
			}
			for name, waiting := range l.waiting.byName {
				if !l.turnOf(waiting, limits, now).After(now) {
					t.Fatalf("%s is not called and has its turn", name)
				}
			}
		}
		for _, c := range []struct {
			limits Limits
			taken  []time.Time
		}{{limits, taken}, {overdrawn, beyond}} {
			for i, first := range c.taken {
				for j, last := range c.taken[i:] {
					if most := c.limits.burst() + int(last.Sub(first)/c.limits.interval()) + 1; j+1 > most {
						t.Fatalf("%d orders in %v, at most %d are allowed", j+1, last.Sub(first), most)
					}
				}
			}
		}
	})
}

// The budget is a courtesy: no certificate expires for it, whatever else is asked
// for, up to a bound that protects the account.
func TestTheBudgetLetsNothingExpire(t *testing.T) {
	w := newWorldOfMany(t, 4, Limits{})
	w.ca.life = 2 * time.Hour
	w.open()
	w.tick()
	w.tick()
	require.Equal(t, 4, w.ca.issuedCount())
	w.close()
	w.limits = Limits{OrdersPerHour: 2, Burst: 2}
	w.clock.advance(40 * time.Minute) // not due yet
	w.open()
	for _, name := range w.names {
		require.NoError(t, w.e.Renew(t.Context(), name))
	}
	// Four renewals an hour are due, twice what the budget has.
	for range 12 * 6 {
		w.tick()
		w.tick()
		for name, rec := range w.records() {
			require.True(t, w.clock.now().Before(rec.Current.NotAfter), "%s has expired", name)
			require.Empty(t, rec.NeedsAttention, name)
		}
		w.clock.advance(2 * time.Minute)
	}
	assert.Empty(t, w.events(wire.EventFailed))
}

// Beyond the bound a person is told, before it is too late and with the reason.
func TestWhatTheBoundLetsExpireIsSaid(t *testing.T) {
	w := newWorldOfMany(t, 30, Limits{})
	w.ca.life = 2 * time.Hour
	w.open()
	w.tick()
	w.tick()
	require.Equal(t, 30, w.ca.issuedCount())
	w.close()
	w.limits = Limits{OrdersPerHour: 1, Burst: 1}
	w.clock.advance(115 * time.Minute)
	w.open()
	w.tick()
	w.tick()
	require.Equal(t, 30+1+overdrawn.Burst, w.ca.issuedCount())
	told := 0
	for _, rec := range w.records() {
		if rec.NeedsAttention != "" {
			told++
			assert.Contains(t, rec.NeedsAttention, "its turn at issuer ca comes too late")
			assert.Contains(t, rec.NeedsAttention, "raise issuers.ca.limits, or give it fallback_issuers")
			assert.True(t, w.clock.now().Before(rec.Current.NotAfter))
		}
	}
	assert.Positive(t, told)
	w.reopen() // which gives nobody a turn
	w.tick()
	require.Equal(t, 30+1+overdrawn.Burst, w.ca.issuedCount())
	w.run(2*time.Hour, time.Minute)
	for name, rec := range w.records() {
		assert.Empty(t, rec.NeedsAttention, name)
		assert.True(t, w.clock.now().Before(rec.Current.NotAfter), name)
	}
}

// When everything is asked for at once, what expires soon is before what has no
// certificate, and what fails after what does not.
func TestWhatIsForcedStandsByItsNeed(t *testing.T) {
	inService := func(name string, left time.Duration) wish {
		return wish{name: name, forced: true, lateAt: noon.Add(left - 9*day), notAfter: noon.Add(left)}
	}
	failing := inService("f failing", time.Minute)
	failing.failing, failing.failedAt = true, noon.Add(-time.Hour)
	l := newLine()
	l.served = failingShare - 1 // the turn of those that fail
	for _, w := range []wish{
		inService("a has time", 80*day), {name: "b none", forced: true, none: true}, inService("c expires later", time.Hour),
		inService("d expired", -time.Hour), inService("e expires soon", 5*time.Minute), failing,
	} {
		l.waiting.put(w, noon)
	}
	order := make([]string, len(l.waiting.byName))
	for name, w := range l.waiting.byName {
		order[l.ahead(w, noon)] = name
	}
	assert.Equal(t, []string{"e expires soon", "c expires later", "d expired", "f failing", "b none", "a has time"}, order)
}

// The order that is kept is the one that sorting at that moment gives.
func TestTheLineStaysInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLine()
		now := noon
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(-20, 60).Draw(t, "minutes")) * time.Minute)
			name := fmt.Sprint(rapid.IntRange(0, 40).Draw(t, "name"))
			if rapid.IntRange(0, 3).Draw(t, "leaves") == 0 {
				l.waiting.remove(name)
			} else {
				w := wish{name: name, failing: rapid.Bool().Draw(t, "failing"), forced: rapid.Bool().Draw(t, "forced"), none: rapid.Bool().Draw(t, "none")}
				if !w.none {
					w.lateAt = noon.Add(time.Duration(rapid.IntRange(-100, 900).Draw(t, "late")) * time.Minute)
					w.notAfter = w.lateAt.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "left")) * time.Minute)
				}
				l.join(w, Limits{OrdersPerHour: 3, Burst: 1}, now)
			}
			anew := newWaiting()
			for name, w := range l.waiting.byName {
				anew.byName[name] = w
			}
			anew.refresh(now)
			l.waiting.refresh(now)
			for i := range anew.lanes {
				if !slices.Equal(anew.lanes[i], l.waiting.lanes[i]) {
					t.Fatalf("lane %d is out of order", i)
				}
			}
		}
	})
}

// A budget that is raised while the agent runs goes for those that wait already.
func TestARaisedBudgetIsUsedAtOnce(t *testing.T) {
	w := newWorldOfMany(t, 10, Limits{OrdersPerHour: 1, Burst: 1})
	w.open()
	w.tick()
	w.tick()
	require.Equal(t, 1, w.ca.orders())
	w.limits = Limits{OrdersPerHour: 100}
	_, err := w.e.Reconfigure(w.managed())
	require.NoError(t, err)
	w.tick()
	w.tick()
	require.Equal(t, 10, w.ca.issuedCount())
}

func TestALineAfterTheClockWasSetBack(t *testing.T) {
	limits := Limits{OrdersPerHour: 10, Burst: 2}
	l := newLine()
	for range 2 {
		l.take("x", limits, noon)
	}
	require.Equal(t, noon.Add(6*time.Minute), l.next(limits, 0, noon))
	earlier := noon.Add(-300 * day)
	assert.Equal(t, earlier.Add(6*time.Minute), l.next(limits, 0, earlier), "nobody waits for three hundred days")
}

func TestConcurrencyOfAnIssuer(t *testing.T) {
	s := newSlots(10, []string{"a"})
	assert.True(t, s.takeUpTo("a", 2))
	assert.True(t, s.takeUpTo("a", 2))
	assert.False(t, s.takeUpTo("a", 2))
	assert.True(t, s.takeUpTo("a", 0))
	s.give("a")
	s.give("a")
	assert.True(t, s.takeUpTo("a", 2))
}
