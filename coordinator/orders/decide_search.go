package orders

import (
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
)

// hopefulSearches are the pauses before further searches at an authority where not to
// be found proves nothing. They may still find the order, and spare the operator.
var hopefulSearches = []time.Duration{5 * time.Minute, time.Hour}

// search says when an order of unknown outcome is looked for: at once, if it can be.
func (r *rules) search(t *turn, o *fleet.Order, now time.Time) {
	t.freshBudget(now)
	switch {
	case r.repeatable: // it needs no search
	case !r.searches:
		t.b.Next = time.Time{}
		t.b.Detail, t.b.Mend = "this authority cannot be searched for a lost order", lookUp(o, &t.b)
	case r.visible < 0:
		t.b.Mend = lookUp(o, &t.b)
	}
}

// unsearched is an order of unknown outcome at an authority at which nothing is looked
// for.
func (r *rules) unsearched(o *fleet.Order, now time.Time) turn {
	t := begin(o)
	if !r.repeatable {
		r.search(&t, o, now)
		return t
	}
	// Another one does no harm, so that the proof which the state asks for is free.
	t.b.Searches++
	t.b.Next = now
	if t.b.Searches >= fleet.AbsenceSearches {
		searches := t.b.Searches
		t.enter(fleet.OrderRequested, now)
		t.b.Searches = searches
	}
	return t
}

// found is what a search came to that began at a moment.
func (r *rules) found(o *fleet.Order, list []connector.Status, began, now time.Time) turn {
	t := begin(o)
	list = distinct(list)
	switch len(list) {
	case 0:
		t.answered()
		r.absent(&t, o, began, now)
	case 1:
		r.standing(&t, &list[0], now)
		t.soon(now)
	default:
		t.answered()
		t.b.Candidates = nil
		for _, s := range list[:min(len(list), maxCandidates)] {
			t.b.Candidates = append(t.b.Candidates, stored(s.Handle))
		}
		t.b.Next = time.Time{}
		t.b.Detail, t.b.Mend = severalDetail(len(list)), several(o)
	}
	return t
}

// absent is a search that found nothing. Not to be found is proof only in a search
// that began later than the order would be visible if the last request for it had
// reached the authority in its last moment.
func (r *rules) absent(t *turn, o *fleet.Order, began, now time.Time) {
	b := &t.b
	b.Searches++
	if b.SearchedAt.IsZero() {
		// It may have been answered by what was read for another order. The next one is
		// not answered by the same.
		b.SearchedAt = now
	}
	if len(b.Candidates) > 0 { // an earlier one found several
		b.Next, b.Mend = time.Time{}, several(o)
		return
	}
	if r.visible < 0 {
		b.Detail, b.Mend = "a search found no such order, which proves nothing at this authority", lookUp(o, b)
		if at := int(b.Searches) - 1; at < len(hopefulSearches) {
			b.Next = now.Add(r.scatter(hopefulSearches[at]))
		} else {
			b.Next = time.Time{}
		}
		return
	}
	visible, proof := r.proof(b)
	early := r.doubted != nil && *r.doubted < visible.Sub(b.UnknownSince)
	if b.Searches >= fleet.AbsenceSearches && !began.Before(proof) && !early {
		searches := b.Searches
		t.enter(fleet.OrderRequested, now)
		t.freshBudget(now)
		b.Searches = searches // the proof, which is looked at
		b.Detail, b.Mend = "the authority does not have the order of the earlier attempt", ""
		return
	}
	// It may be seen earlier than it would have to be.
	b.Detail = "a search found no such order yet; it is looked for until it would have to be there"
	r.wait(t, now, asyncpoll.Answer{})
	if last := latest(proof, now).Add(r.scatter(time.Second + max(r.visible, 0)/10)); b.Slow || b.Next.After(last) {
		b.Next = last
	}
}

// proof is from when on an order would be visible, and a search that finds nothing
// proves that there is none, if it begins no earlier.
func (r *rules) proof(b *fleet.Brokering) (visible, proof time.Time) {
	// What another node has claimed, it may still be sending. What this one has, it does
	// not send any more: nothing else is done for an order meanwhile.
	quiet := b.UnknownSince
	if !b.Claim.IsZero() && b.Claim.Node != r.node {
		quiet = latest(quiet, b.Claim.At.Add(r.placeLimit+clockSkew))
	}
	// Nor is it known who was sending when a backup was restored.
	if !b.RestoredAt.IsZero() {
		quiet = latest(quiet, b.RestoredAt.Add(r.placeLimit+clockSkew))
	}
	visible = quiet.Add(r.visible)
	return visible, latest(visible, b.SearchedAt.Add(min(searchSpacing, r.visible)))
}

// old is how old an answer may be that serves an order's search as well as a new one:
// orders in doubt are looked for together. It was begun after the order was in doubt, and
// if the search can prove something by now, late enough for that.
func (r *rules) old(o *fleet.Order, now time.Time, doubted time.Duration) time.Duration {
	b := o.Brokering
	visible, proof := r.proof(b)
	since, spare := now.Sub(b.UnknownSince), doubted
	if wait := visible.Sub(b.UnknownSince); r.visible >= 0 && !b.SearchedAt.IsZero() && !now.Before(proof) && doubted >= wait {
		since, spare = now.Sub(proof), doubted-wait
	}
	return max(min(since, spare), 0)
}

// distinct leaves out of a search's results those that are the same order.
func distinct(list []connector.Status) []connector.Status {
	var out []connector.Status
	for _, s := range list {
		if !slices.ContainsFunc(out, func(other connector.Status) bool {
			return other.Handle == s.Handle || s.Handle.Order != "" && other.Handle.Order == s.Handle.Order
		}) {
			out = append(out, s)
		}
	}
	return out
}
