package renewal

import (
	"cmp"
	"slices"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/backoff"
)

// Limits bound what is asked of one issuer; zero values do not.
type Limits struct {
	// OrdersPerHour is how many orders are begun in the long run, and Burst how
	// many may follow each other at once after a quiet time; 0 is two hours' worth.
	OrdersPerHour int
	Burst         int
	// Concurrency is how many certificates that are to be of this issuer are
	// worked on at the same time.
	Concurrency int
}

func (l Limits) interval() time.Duration { return time.Hour / time.Duration(l.OrdersPerHour) }

func (l Limits) burst() int { return cmp.Or(l.Burst, 2*l.OrdersPerHour) }

const (
	// failingShare: of so many turns one is for a certificate whose last order
	// failed, while others wait. An issuer counts failed orders like any other, and
	// names that fail for ever must not starve those that do not; nor must one that
	// has just been mended wait for ever.
	failingShare = 4

	// A paused issuer is asked by a single order now and then whether it still is:
	// what it said of two certificates need not hold for all.
	probeParts  = 8
	minProbeGap = 15 * time.Minute

	// defaultLimit is for an issuer that does not say how long.
	defaultLimit = 15 * time.Minute
	minLimit     = time.Minute
)

// wish is a certificate that waits for its turn.
type wish struct {
	name    string
	failing bool
	// failedAt is when it failed last: among those that fail each has its turn.
	failedAt time.Time
	forced   bool // by an operator, or because it is revoked
	none     bool // there is no certificate yet
	// lateAt is when the certificate in service is late in life, and notAfter when
	// it expires; zero if there is none, and notAfter also if it has or is revoked.
	lateAt, notAfter time.Time
}

func wishOf(rec *store.Certificate, now time.Time) wish {
	cur := rec.Current
	w := wish{name: rec.Name, failing: rec.OrderAttempt > 0, forced: rec.Forced || isRevoked(cur), none: cur == nil}
	if w.failing {
		w.failedAt = rec.LastErrorAt
	}
	if cur != nil {
		w.lateAt = cur.End().Add(-fraction(usable(cur), attentionPart))
		if !ended(cur, now) {
			w.notAfter = cur.NotAfter
		}
	}
	return w
}

// urgency comes first, the smallest: late in life, expired, or asked for by an
// operator; then without a certificate; then what has time.
func (w wish) urgency(now time.Time) int {
	switch {
	case w.forced || !w.none && !now.Before(w.lateAt):
		return 0
	case w.none:
		return 1
	}
	return 2
}

// before orders wishes of one kind.
func (w wish) before(other wish, now time.Time) bool {
	return cmp.Or(cmp.Compare(w.urgency(now), other.urgency(now)), w.failedAt.Compare(other.failedAt), w.notAfter.Compare(other.notAfter), cmp.Compare(w.name, other.name)) < 0
}

// line is who waits for one issuer. It is a value without effects: what it holds
// of store.Turns is stored by its owner before anybody acts on it.
type line struct {
	store.Turns
	waiting map[string]wish
	probe   string // who was given a turn although the issuer is paused
	served  int    // turns since the start, of which every failingShare'th is one for those that fail
}

// next is when there is a turn for who has ahead others before it, by the budget
// alone.
func (l *line) next(limits Limits, ahead int, now time.Time) time.Time {
	if limits.OrdersPerHour == 0 {
		return now
	}
	interval, burst := limits.interval(), limits.burst()
	earned := l.earnedAt(limits, now).Add(time.Duration(ahead-burst+1) * interval)
	if earned.Before(now) {
		return now
	}
	return earned
}

// earnedAt is at least now, and never further ahead than a spent budget is: the
// clock may have been set back since it was stored.
func (l *line) earnedAt(limits Limits, now time.Time) time.Time {
	at := l.EarnedAt
	if latest := now.Add(time.Duration(limits.burst()) * limits.interval()); at.After(latest) {
		return latest
	}
	if at.Before(now) {
		return now
	}
	return at
}

// forFailing reports whether the turn after n others is for one that fails, if
// both kinds wait.
func (l *line) forFailing(n int) bool { return (l.served+n)%failingShare == failingShare-1 }

// ahead is how many turns come before that of w.
func (l *line) ahead(w wish, now time.Time) int {
	before, others := 0, 0
	for name, other := range l.waiting {
		switch {
		case name == w.name:
		case other.failing != w.failing:
			others++
		case other.before(w, now):
			before++
		}
	}
	for turn := 0; ; turn++ {
		switch {
		case l.forFailing(turn) != w.failing && others > 0:
			others--
		case before == 0:
			return turn
		default:
			before--
		}
	}
}

// turnOf is when w has its turn, now if it has it now.
func (l *line) turnOf(w wish, limits Limits, now time.Time) time.Time {
	if limits.OrdersPerHour == 0 && !l.Paused {
		return now // whoever waits, waits for nobody
	}
	ahead := l.ahead(w, now)
	at := l.next(limits, ahead, now)
	if paused := l.pausedFor(w, now); paused.After(at) {
		at = paused
		if ahead == 0 && l.ProbeAt.Before(at) {
			at = l.ProbeAt
		}
	}
	if at.Before(now) {
		return now
	}
	return at
}

// pausedFor is until when the issuer is left alone for w; now if it need not be.
// A certificate that is in service goes by the policy for Retry-After: it does not
// wait for longer than half of what was left when that was said.
func (l *line) pausedFor(w wish, now time.Time) time.Time {
	if !l.Paused || !l.limited(now) {
		return now
	}
	until := l.LimitedUntil
	if left := w.notAfter.Sub(l.LimitedAt); !w.notAfter.IsZero() && left > 0 {
		if own := l.LimitedAt.Add(left / retryAfterParts); own.Before(until) {
			until = own
		}
	}
	return until
}

// limited reports whether what the issuer said last still counts. A moment that
// is further ahead than any issuer is heard comes from a clock that was set back.
func (l *line) limited(now time.Time) bool {
	return now.Before(l.LimitedUntil) && l.LimitedUntil.Sub(now) <= backoff.MaxRetryAfter
}

// take uses up a turn.
func (l *line) take(name string, limits Limits, now time.Time) {
	delete(l.waiting, name)
	l.served++
	if limits.OrdersPerHour > 0 {
		l.EarnedAt = l.earnedAt(limits, now).Add(limits.interval())
	}
	if l.Paused && l.limited(now) {
		l.probe = name
		l.ProbeAt = now.Add(max(minProbeGap, l.LimitedUntil.Sub(l.LimitedAt)/probeParts))
	}
}

// refused notes that the issuer takes nothing new for a while, which it said to
// the certificate of that name. It may mean the account or that certificate's
// names, and does not say which: it is taken to mean the account once it was said
// to two.
func (l *line) refused(name string, wait time.Duration, now time.Time) {
	l.probe = ""
	wait = min(max(cmp.Or(wait, defaultLimit), minLimit), backoff.MaxRetryAfter)
	until := now.Add(wait)
	again := l.limited(now)
	if again && l.LimitedUntil.After(until) {
		until = l.LimitedUntil
	}
	l.Paused = again && (l.Paused || l.LimitedFor != name)
	l.LimitedAt, l.LimitedUntil, l.LimitedFor = now, until, name
	if l.Paused && !l.ProbeAt.After(now) {
		l.ProbeAt = now.Add(max(minProbeGap, until.Sub(now)/probeParts))
	}
}

// accepted notes that the issuer has taken an order.
func (l *line) accepted() (changed bool) {
	changed = l.LimitedFor != ""
	l.probe = ""
	l.LimitedAt, l.LimitedUntil, l.LimitedFor, l.Paused, l.ProbeAt = time.Time{}, time.Time{}, "", false, time.Time{}
	return changed
}

// called lists those whose turn it is, the first first.
func (l *line) called(limits func(name string) (Limits, bool), now time.Time) []string {
	var kinds [2][]wish // those that do not fail, and those that do
	for name, w := range l.waiting {
		of, ok := limits(name)
		if !ok {
			delete(l.waiting, name)
			continue
		}
		if l.next(of, 0, now).After(now) {
			return nil
		}
		kind := 0
		if w.failing {
			kind = 1
		}
		kinds[kind] = append(kinds[kind], w)
	}
	for _, kind := range kinds {
		slices.SortFunc(kind, func(a, b wish) int {
			if a.before(b, now) {
				return -1
			}
			return 1
		})
	}
	var names []string
	for turn := 0; len(kinds[0])+len(kinds[1]) > 0; turn++ {
		kind := 0
		if len(kinds[0]) == 0 || l.forFailing(turn) && len(kinds[1]) > 0 {
			kind = 1
		}
		w := kinds[kind][0]
		kinds[kind] = kinds[kind][1:]
		of, _ := limits(w.name)
		if l.next(of, turn, now).After(now) {
			break
		}
		if paused := l.pausedFor(w, now); paused.After(now) && (turn > 0 || l.ProbeAt.After(now)) {
			continue
		}
		names = append(names, w.name)
	}
	return names
}
