package renewal

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/certctl/certctl/agent/store"
)

// wish is a certificate that waits for its turn.
type wish struct {
	name    string
	failing bool
	// failedAt is when it failed last: among those that fail each has its turn.
	failedAt time.Time
	forced   bool // by an operator
	none     bool // there is no certificate yet
	// lateAt is when the certificate in service is late in life, and notAfter when
	// it expires or was revoked; zero if there is none.
	lateAt, notAfter time.Time
	// pressed says that its turn would have come too late for it.
	pressed bool
}

func wishOf(rec *store.Certificate) wish {
	cur := rec.Current
	w := wish{name: rec.Name, failing: rec.OrderAttempt > 0, forced: rec.Forced, none: cur == nil}
	if w.failing {
		w.failedAt = rec.LastErrorAt
	}
	if cur != nil {
		w.notAfter = cur.End()
		w.lateAt = w.notAfter.Add(-fraction(usable(cur), attentionPart))
	}
	return w
}

// presses reports whether the certificate in service is late in life or has
// ended, or would be before its turn comes.
func (w *wish) presses(now time.Time) bool { return w.pressed || !w.none && !now.Before(w.lateAt) }

// urgency comes first, the smallest. What can still be saved from expiry is before
// what has expired already.
func (w *wish) urgency(now time.Time) int {
	switch {
	case w.presses(now) && now.Before(w.notAfter):
		return 0
	case w.presses(now):
		return 1
	case w.forced:
		return 2
	case w.none:
		return 3
	}
	return 4
}

// lane is a part of a line.
type lane int

const (
	lanePressing lane = iota // before all others, and may overdraw the budget
	laneUsual
	laneFailing // has one turn in failingShare while laneUsual has any
	lanes
)

func (w *wish) lane(now time.Time) lane {
	switch {
	case w.failing:
		return laneFailing
	case w.presses(now):
		return lanePressing
	}
	return laneUsual
}

// waiting are the wishes of a line, kept in order: what changes one costs no look
// at all of them. The order depends on the time only by the moments of the wishes,
// and is made anew when one of these has passed.
type waiting struct {
	byName map[string]*wish
	lanes  [lanes][]*wish
	// From from until before until the order is right.
	from, until time.Time
	compared    int // how often two wishes were compared, for the test of the cost
}

func newWaiting() waiting { return waiting{byName: make(map[string]*wish)} }

// put adds a wish, or replaces the one of the same name.
func (q *waiting) put(w wish, now time.Time) {
	q.refresh(now)
	if old := q.byName[w.name]; old != nil {
		w.pressed = w.pressed || old.pressed
		if *old == w {
			return
		}
		q.remove(w.name)
	}
	q.byName[w.name] = &w
	q.span(&w, now)
	in := &q.lanes[w.lane(now)]
	*in = slices.Insert(*in, q.rank(&w, now), &w)
}

func (q *waiting) remove(name string) {
	w := q.byName[name]
	if w == nil {
		return
	}
	delete(q.byName, name)
	in := &q.lanes[w.lane(q.from)]
	if at := q.rank(w, q.from); at < len(*in) && (*in)[at] == w {
		*in = slices.Delete(*in, at, at+1)
	}
}

// rank is how many are before w in its lane, whether it waits or not.
func (q *waiting) rank(w *wish, now time.Time) int {
	q.refresh(now)
	at, _ := slices.BinarySearchFunc(q.lanes[w.lane(now)], w, func(a, b *wish) int { return q.compare(a, b, now) })
	return at
}

// compare orders the wishes of one lane.
func (q *waiting) compare(a, b *wish, now time.Time) int {
	q.compared++
	return cmp.Or(cmp.Compare(a.urgency(now), b.urgency(now)), a.failedAt.Compare(b.failedAt), a.notAfter.Compare(b.notAfter), cmp.Compare(a.name, b.name))
}

// refresh makes the order that of now. Only the wishes of which a moment lies
// between are put into their place anew, unless these are many.
func (q *waiting) refresh(now time.Time) {
	if !now.Before(q.from) && now.Before(q.until) {
		return
	}
	from, until := q.from, q.until
	lies := func(at time.Time) bool { return !at.Before(until) && !at.After(now) }
	if now.Before(from) {
		lies = func(at time.Time) bool { return at.After(now) && !at.After(from) }
	}
	var moved []*wish
	kept := 0
	q.from, q.until = time.Time{}, now.Add(math.MaxInt64)
	for i, in := range q.lanes {
		stay := in[:0]
		for _, w := range in {
			q.span(w, now)
			if lies(w.lateAt) || lies(w.notAfter) {
				moved = append(moved, w)
			} else {
				stay = append(stay, w)
			}
		}
		clear(in[len(stay):])
		q.lanes[i] = stay
		kept += len(stay)
	}
	if kept+len(moved) < len(q.byName) || len(moved) > kept/8 {
		q.rebuild(now)
		return
	}
	for _, w := range moved {
		in := &q.lanes[w.lane(now)]
		*in = slices.Insert(*in, q.rank(w, now), w)
	}
}

// rebuild sorts all wishes.
func (q *waiting) rebuild(now time.Time) {
	for i := range q.lanes {
		q.lanes[i] = q.lanes[i][:0]
	}
	for _, w := range q.byName {
		q.span(w, now)
		q.lanes[w.lane(now)] = append(q.lanes[w.lane(now)], w)
	}
	for _, in := range q.lanes {
		slices.SortFunc(in, func(a, b *wish) int { return q.compare(a, b, now) })
	}
}

// span narrows how long the order is right to the moments of w around now.
func (q *waiting) span(w *wish, now time.Time) {
	for _, at := range []time.Time{w.lateAt, w.notAfter} {
		switch {
		case at.After(now) && at.Before(q.until):
			q.until = at
		case !at.After(now) && at.After(q.from):
			q.from = at
		}
	}
}
