package renewal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/internal/counts"
)

// outage is a time in which an authority cannot be reached.
type outage struct{ from, to time.Time }

// outages makes a random calendar: most outages are short, some are longer than a
// certificate has from its renewal to its expiry.
func outages(r *rand.Rand, begin time.Time, span, life, window time.Duration) (list []outage) {
	at := begin.Add(fraction(life, r.Float64()))
	for at.Before(begin.Add(span)) {
		down := fraction(window, 0.95*r.Float64())
		if r.Float64() < 0.2 {
			down = fraction(window, 1+r.Float64())
		}
		list = append(list, outage{at, at.Add(down)})
		// Long enough for every certificate to be looked at: see pause.
		at = at.Add(down + fraction(life, 0.1+0.8*r.Float64()))
	}
	return list
}

// during is the outage at a moment.
func during(list []outage, at time.Time) (outage, bool) {
	i := slices.IndexFunc(list, func(o outage) bool { return !at.Before(o.from) && at.Before(o.to) })
	if i < 0 {
		return outage{}, false
	}
	return list[i], true
}

// ramDir is a directory whose syncs cost nothing, where there is one: this test is
// about time and not about disks.
func ramDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "certctl-test-*")
	if err != nil {
		return privateDir(t)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// roomy is a store on a disk that is never full, which need not be tried out.
type roomy struct{ Store }

func (roomy) CheckRoom() error { return nil }

// yearOfOutages is one host through a span with outages of its CA and of its
// coordinator, each of which issues one of its certificates.
type yearOfOutages struct {
	t                 *testing.T
	w                 *world
	life              time.Duration
	span              time.Duration
	end               time.Time
	down              map[string][]outage // by certificate
	seen              map[string]*store.Certificate
	mourned           map[string]uint64    // the last generation that was seen to expire
	alarm             map[string]time.Time // since when a person is asked, by certificate
	renewals, expired int
}

const directOne, brokeredOne = "direct", "brokered"

func newYearOfOutages(t *testing.T, life, span time.Duration, seed uint64) *yearOfOutages {
	w := newWorld(t)
	w.dir = ramDir(t)
	y := &yearOfOutages{
		t: t, w: w, life: life, span: span, mourned: map[string]uint64{}, end: w.clock.now().Add(span),
		down: map[string][]outage{}, seen: map[string]*store.Certificate{}, alarm: map[string]time.Time{},
	}
	// The least that a certificate has from its renewal to its expiry.
	window := fraction(life, 1-longCentre-windowHalf)
	if life < shortLifetime {
		window = fraction(life, 1-shortCentre-windowHalf)
	}
	r := rand.New(rand.NewPCG(seed, uint64(life)))
	w.names, w.places = []string{directOne, brokeredOne}, nil
	w.ca.life, w.ca.backdate = life, time.Minute
	for _, name := range w.names {
		// Not before there is a first certificate.
		y.down[name] = outages(r, w.clock.now().Add(time.Hour), span, life, window)
	}
	w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
		o, is := during(y.down[order.Certificate], w.clock.now())
		switch {
		case !is:
			return nil
		case order.Certificate == brokeredOne:
			// A renewal of a coordinator's waits for it, and is looked at as it asks.
			return &issuer.Error{Class: issuer.ClassPending, RetryAfter: min(life/25, time.Hour), Committed: true, Err: errors.New("coordinator not reachable")}
		}
		return &issuer.Error{Class: issuer.ClassRetry, Err: fmt.Errorf("no route to host since %s", stamp(o.from))}
	})
	w.tune = func(c *Config) {
		c.Rand = r.Float64
		c.Log = slog.New(slog.DiscardHandler)
		c.Store = roomy{c.Store}
	}
	return y
}

// live goes from one due moment to the next, with a restart now and then.
func (y *yearOfOutages) live() {
	w := y.w
	w.open()
	for visits := 1; w.clock.now().Before(y.end); visits++ {
		w.tick()
		for _, name := range w.names {
			y.look(name)
		}
		next, ok, err := w.store.Store.(*store.Store).NextDue()
		require.NoError(y.t, err)
		require.True(y.t, ok)
		if earliest := w.clock.now().Add(time.Second); next.Before(earliest) {
			next = earliest
		}
		w.clock.set(next)
		if visits%997 == 0 {
			w.reopen()
		}
	}
	orders, certificates := w.ca.orders(), w.ca.issuedCount()
	assert.LessOrEqual(y.t, orders-certificates, len(w.names), "an outage costs an order")
	assert.Equal(y.t, certificates-len(w.names), y.renewals, "a certificate was obtained and not put into service")
	assert.Greater(y.t, y.renewals, int(y.span/y.life), "too few renewals")
	w.close()
}

// look compares a certificate with what it was at the last look.
func (y *yearOfOutages) look(name string) {
	t, now := y.t, y.w.clock.now()
	rec, found, err := y.w.store.Certificate(name)
	require.NoError(t, err)
	require.True(t, found)
	before, alarm := y.seen[name], y.alarm[name]
	y.seen[name] = rec
	switch {
	case rec.NeedsAttention == "":
		delete(y.alarm, name)
	case alarm.IsZero():
		y.alarm[name] = now
	}
	if before == nil || before.Current == nil {
		require.NotNil(t, rec.Current, "%s has no first certificate", name)
		return
	}
	start, end := lifetime(before.Current)
	if rec.Current.Number == before.Current.Number {
		require.Equal(t, before.RenewAt, rec.RenewAt, "drawn again")
	} else {
		y.renewals++
		require.Equal(t, before.Current.Number+1, rec.Current.Number)
		require.False(t, now.Before(before.RenewAt), "%s renewed before its time", name)
		require.False(t, now.Before(drawRenewAt(start, end, 0)), "%s renewed before its window", name)
	}
	if now.Before(end) || y.mourned[name] == before.Current.Number {
		return
	}
	y.mourned[name] = before.Current.Number
	y.expired++
	o, is := during(y.down[name], end.Add(-y.life/60))
	require.True(t, is, "%s expired at %s, and its authority could be reached", name, stamp(end))
	// A second is what live goes on by at least, whatever is due.
	require.False(t, o.from.After(before.RenewAt.Add(time.Second)), "%s expired at %s in an outage of %v, shorter than the %v that it had", name, stamp(end), o.to.Sub(o.from), end.Sub(before.RenewAt))
	require.False(t, alarm.IsZero(), "%s has expired and nobody was told before", name)
	require.True(t, alarm.Before(end), "%s expired at %s, and nobody was told before %s", name, stamp(end), stamp(alarm))
}

// A year of outages of CA and coordinator, of random length. Nothing expires but
// in an outage that is longer than the certificate had from its renewal to its
// expiry, and of that a person is told before.
func TestAYearOfOutages(t *testing.T) {
	seeds, hour := uint64(1), 2*day
	if os.Getenv("CERTCTL_SOAK") != "" {
		seeds, hour = 20, 30*day
	}
	renewals, down, expiries, excused := 0, 0, 0, 0
	for _, c := range []struct{ life, span time.Duration }{
		{90 * day, 365 * day}, {47 * day, 365 * day}, {6 * day, 365 * day}, {day, 365 * day},
		{time.Hour, hour},
	} {
		for seed := range seeds {
			t.Run(fmt.Sprintf("%v/%d", c.life, seed), func(t *testing.T) {
				y := newYearOfOutages(t, c.life, c.span, seed)
				y.live()
				renewals += y.renewals
				excused += y.expired
				for _, list := range y.down {
					for _, o := range list {
						if o.from.Before(y.end) {
							down++
						}
					}
				}
				t.Logf("%d renewals, %d expired in longer outages", y.renewals, y.expired)
			})
			if t.Failed() {
				expiries++
			}
		}
	}
	require.Positive(t, excused, "no outage was long enough to be told of")
	counts.Report(t, "year-renewals", renewals, "renewals in simulated years with outages of CA and coordinator")
	counts.Report(t, "year-outages", down, "outages in those years, of random length")
	counts.Report(t, "year-expiries", expiries, "expiries in outages that were shorter than the time from renewal to expiry")
	counts.Report(t, "year-announced", excused, "expiries in longer outages, each announced before it came")
}
