package renewal

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/backoff"
)

// Limits bound what is asked of one issuer; zero values do not.
type Limits struct {
	// OrdersPerHour is how many orders are begun in the long run, and Burst how
	// many may follow each other at once after a quiet time; 0 is two hours' worth.
	OrdersPerHour int `json:"orders_per_hour,omitempty"`
	Burst         int `json:"burst,omitempty"`
	// Concurrency is how many certificates that are to be of this issuer are
	// worked on at the same time.
	Concurrency int `json:"concurrency,omitempty"`
}

func (l Limits) interval() time.Duration { return time.Hour / time.Duration(l.OrdersPerHour) }

func (l Limits) burst() int { return cmp.Or(l.Burst, 2*l.OrdersPerHour) }

// taken is earned after one more order.
func (l Limits) taken(earned, now time.Time) time.Time {
	if l.OrdersPerHour == 0 {
		return earned
	}
	return l.earnedAt(earned, now).Add(l.interval())
}

// overdrawn is what a host orders at most beyond an issuer's budget, for what would
// end before its turn. The budget is a courtesy that must not cost a certificate;
// this bound protects the account all the same.
var overdrawn = Limits{OrdersPerHour: 20, Burst: 20}

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

// line is who waits for one issuer. It is a value without effects: what it holds
// of store.Turns is stored by its owner before anybody acts on it.
type line struct {
	store.Turns
	waiting waiting
	probe   string // who was given a turn although the issuer is paused
	// served counts the turns since the start of those that do not press, of which
	// every failingShare'th is one for those that fail.
	served int
}

func newLine() *line { return &line{waiting: newWaiting()} }

// next is when there is a turn for who has ahead others before it, by the budget
// alone.
func (l *line) next(limits Limits, ahead int, now time.Time) time.Time {
	return limits.next(l.EarnedAt, ahead, now)
}

// next is when there is a turn behind ahead others, if the passing of time makes
// up at earned for all that were.
func (l Limits) next(earned time.Time, ahead int, now time.Time) time.Time {
	if l.OrdersPerHour == 0 {
		return now
	}
	at := l.earnedAt(earned, now).Add(time.Duration(ahead-l.burst()+1) * l.interval())
	if at.Before(now) {
		return now
	}
	return at
}

// ready is how many turns there are now.
func (l Limits) ready(earned, now time.Time) int {
	if l.OrdersPerHour == 0 {
		return math.MaxInt
	}
	spent := l.earnedAt(earned, now).Sub(now)
	return l.burst() - int((spent+l.interval()-1)/l.interval())
}

// earnedAt is at least now, and never further ahead than a spent budget is: the
// clock may have been set back since it was stored.
func (l Limits) earnedAt(at, now time.Time) time.Time {
	if latest := now.Add(time.Duration(l.burst()) * l.interval()); at.After(latest) {
		return latest
	}
	if at.Before(now) {
		return now
	}
	return at
}

// ahead is how many turns of the budget come before that of w. Those of the usual
// and of the failing lane take turns, behind all that press.
func (l *line) ahead(w *wish, now time.Time) int {
	rank := l.waiting.rank(w, now)
	pressing, failing := len(l.waiting.lanes[lanePressing]), len(l.waiting.lanes[laneFailing])
	switch w.lane(now) {
	case lanePressing:
		return rank
	case laneFailing:
		return l.aheadOfFailing(rank)
	}
	others := 0
	if first := l.untilFailing(); rank >= first {
		others = 1 + (rank-first)/(failingShare-1)
	}
	return pressing + rank + min(failing, others)
}

// untilFailing is how many turns come before the next one for those that fail.
func (l *line) untilFailing() int { return failingShare - 1 - l.served%failingShare }

func (l *line) aheadOfFailing(rank int) int {
	others := l.untilFailing() + rank*(failingShare-1)
	return len(l.waiting.lanes[lanePressing]) + rank + min(len(l.waiting.lanes[laneUsual]), others)
}

// overdraft is when w has a turn beyond the budget, which is spent by those ahead
// of it. One that fails leaves half of the overdraft to those that do not.
func (l *line) overdraft(w *wish, limits Limits, now time.Time) time.Time {
	rank := l.waiting.rank(w, now)
	ready := limits.ready(l.EarnedAt, now)
	before := max(rank-ready, 0)
	if w.lane(now) == laneFailing {
		within := sort.Search(rank, func(r int) bool { return l.aheadOfFailing(r) >= ready })
		before = max(len(l.waiting.lanes[lanePressing])-ready, 0) + rank - within + overdrawn.Burst/2
	}
	return overdrawn.next(l.OverdrawnAt, before, now)
}

// join has w wait, if it does not, and returns what waits for it.
func (l *line) join(w wish, limits Limits, now time.Time) *wish {
	l.waiting.put(w, now)
	if l.press(&w, limits, now); w.pressed {
		l.waiting.put(w, now)
	}
	return l.waiting.byName[w.name]
}

// press notes that the turn of w would come after half of what is left of the
// certificate in service.
func (l *line) press(w *wish, limits Limits, now time.Time) {
	left := w.notAfter.Sub(now)
	if w.none || w.presses(now) || !l.next(limits, l.ahead(w, now), now).After(now.Add(left/retryAfterParts)) {
		return
	}
	w.pressed = true
}

// turnOf is when w has its turn, now if it has it now.
func (l *line) turnOf(w *wish, limits Limits, now time.Time) time.Time {
	if limits.OrdersPerHour == 0 && !l.Paused {
		return now // whoever waits, waits for nobody
	}
	ahead := l.ahead(w, now)
	at := l.next(limits, ahead, now)
	if at.After(now) && w.presses(now) {
		if beyond := l.overdraft(w, limits, now); beyond.Before(at) {
			at = beyond
		}
	}
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
func (l *line) pausedFor(w *wish, now time.Time) time.Time {
	if !l.Paused || !l.limited(now) {
		return now
	}
	until := l.LimitedUntil
	if left := w.notAfter.Sub(l.LimitedAt); now.Before(w.notAfter) && left > 0 {
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

// take uses up a turn: of the budget where that has one for it.
func (l *line) take(name string, limits Limits, now time.Time) {
	w := l.waiting.byName[name]
	switch {
	case w == nil:
		l.EarnedAt = limits.taken(l.EarnedAt, now)
	case l.next(limits, l.ahead(w, now), now).After(now):
		l.OverdrawnAt = overdrawn.taken(l.OverdrawnAt, now)
	default:
		l.EarnedAt = limits.taken(l.EarnedAt, now)
		if w.lane(now) != lanePressing {
			l.served++
		}
	}
	l.waiting.remove(name)
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

// called lists those whose turn it is, the first first. In each lane turns come in
// its order, so that it costs no look at those behind the first that has none; but
// a pause ends for each at a moment of its own.
func (l *line) called(limits func(name string) (Limits, bool), now time.Time) []string {
	type call struct {
		name  string
		ahead int
	}
	var calls []call
	var gone []string
	l.waiting.refresh(now)
	for _, lane := range l.waiting.lanes {
		for _, w := range lane {
			of, ok := limits(w.name)
			if !ok {
				gone = append(gone, w.name)
			} else if !l.turnOf(w, of, now).After(now) {
				calls = append(calls, call{w.name, l.ahead(w, now)})
			} else if !l.Paused {
				break
			}
		}
	}
	for _, name := range gone {
		l.waiting.remove(name)
	}
	slices.SortFunc(calls, func(a, b call) int { return cmp.Compare(a.ahead, b.ahead) })
	names := make([]string, len(calls))
	for i, c := range calls {
		names[i] = c.name
	}
	return names
}

// nextCall is the next moment at which called may say something else than now,
// if nobody comes or goes.
func (l *line) nextCall(limits Limits, now time.Time) time.Time {
	at := l.waiting.until
	for _, other := range []time.Time{l.next(limits, 0, now), overdrawn.next(l.OverdrawnAt, 0, now), l.ProbeAt, l.LimitedUntil} {
		if other.After(now) && other.Before(at) {
			at = other
		}
	}
	return at
}
