package orders

import (
	"time"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// notFoundGrace is how long an authority may not know an order that it took.
	notFoundGrace = 10 * time.Minute
	// maxWrong is how many wrong certificates are fetched for an order before a
	// person is told: an authority may show an earlier one for a while.
	maxWrong = 5
	// maxCandidates bounds the orders that are kept of a search that found more than
	// one.
	maxCandidates = 10
	// clockSkew is what the clocks of two nodes may differ.
	clockSkew = time.Minute
	// quickFailures is how many placements in a row fail before they are tried slowly:
	// about as many as there are in ten minutes.
	quickFailures = 5
	// searchSpacing is the least time between two searches that are to prove that
	// there is no order.
	searchSpacing = time.Minute
)

// unheard is the pace of a question that had no answer.
var unheard = backoff.Policy{Initial: 5 * time.Second, Max: time.Minute, Multiplier: 2, Jitter: 0.2}

// turn is what comes of one step with an order: the record as it is to be.
type turn struct {
	state       fleet.OrderState
	b           fleet.Brokering
	problem     *wire.Problem
	certificate *certificate // of an order that is issued now
}

// rules decide what an answer, or a failure, makes of an order. They are those of one
// issuer, and read neither a clock nor anything else: a turn follows from the record,
// the answer and the time alone (and Random, within the pace).
type rules struct {
	issuer string
	node   string // this one
	pace   asyncpoll.Pace
	random func() float64
	// searches says that a lost order can be looked for; visible is the Searcher's.
	searches bool
	visible  time.Duration
	// repeatable says that an order costs nothing, so that one may be placed again
	// although it may be there.
	repeatable bool
	// doubted is how long an order was of unknown outcome when its search began, by a
	// clock that nobody sets; nil if that is not known.
	doubted *time.Duration
	// placeLimit bounds the time from a claim to the end of its call.
	placeLimit time.Duration
}

// begin is the record as it is.
func begin(o *fleet.Order) turn {
	t := turn{state: o.State, problem: o.Problem}
	if o.Brokering != nil {
		t.b = *o.Brokering
	}
	return t
}

// wait sets when the order is due next.
func (r *rules) wait(t *turn, now time.Time, a asyncpoll.Answer) {
	p := r.pace.Next(asyncpoll.Polling{Since: t.b.Since, Asked: int(t.b.Asked), Slow: t.b.Slow, Next: t.b.Next}, now, a)
	t.b.Since, t.b.Asked, t.b.Slow, t.b.Next = p.Since, uint32(min(p.Asked, 1<<30)), p.Slow, p.Next
}

// retry sets when an order that was not placed is tried again. Each claim begins the
// budget anew, so that the pace goes by the failures in a row.
func (r *rules) retry(t *turn, now time.Time, a asyncpoll.Answer) {
	a.Person = a.Person || t.b.Failures > quickFailures
	t.b.Since, t.b.Asked, t.b.Slow = now, t.b.Failures-1, a.Person
	r.wait(t, now, a)
}

// freshBudget begins the waiting anew: another kind of it has begun.
func (t *turn) freshBudget(now time.Time) {
	t.b.Since, t.b.Asked, t.b.Slow, t.b.Next = now, 0, false, now
}

// answered takes note that the authority answered.
func (t *turn) answered() { t.b.Failure, t.b.FailedAt, t.b.Failures = "", time.Time{}, 0 }

// failed takes note of a failure.
func (t *turn) failed(e *connector.Error, now time.Time) {
	t.b.Failure, t.b.FailedAt = connector.Detail(e.Error()), now
	t.b.Failures++
}

// enter changes the state. The times that belong to states are the command's to set; here
// they are for what follows of the same turn.
func (t *turn) enter(state fleet.OrderState, now time.Time) {
	if state == t.state {
		return
	}
	t.state = state
	t.b.NeedsPersonSince, t.b.UnknownSince = time.Time{}, time.Time{}
	switch state {
	case fleet.OrderNeedsPerson:
		t.b.NeedsPersonSince = now
	case fleet.OrderUnknown:
		t.b.UnknownSince = now
	}
	if state != fleet.OrderUnknown {
		t.b.Searches, t.b.SearchedAt, t.b.Candidates = 0, time.Time{}, nil
	}
}

// end is the last state of an order that comes to nothing.
func (t *turn) end(state fleet.OrderState, now time.Time, p *wire.Problem) {
	t.enter(state, now)
	t.problem, t.b.Next, t.b.Mend = p, time.Time{}, ""
}

// person has the order wait for somebody, and says for what. It is asked about on.
func (r *rules) person(t *turn, now time.Time, detail, mend string, retryAfter time.Duration) {
	t.enter(fleet.OrderNeedsPerson, now)
	t.b.Detail, t.b.Mend = connector.Detail(detail), connector.Detail(mend)
	r.wait(t, now, asyncpoll.Answer{Person: true, RetryAfter: retryAfter})
}

// standing is where an authority says that an order stands: in the answer to its
// placement, to a question, or to a search.
func (r *rules) standing(t *turn, s *connector.Status, now time.Time) {
	t.answered()
	b := &t.b
	b.Handle = stored(handleOf(b.Handle).With(s.Handle))
	b.Raw, b.Detail, b.Mend = connector.Raw(s.Raw), connector.Detail(s.Detail), connector.Detail(s.Mend)
	was, placed := t.state, b.SubmittedAt.IsZero()
	if placed {
		b.SubmittedAt = now
		t.freshBudget(now)
	}
	switch s.State {
	case connector.Issued:
		r.issued(t, now)
		return
	case connector.Ended:
		t.end(fleet.OrderRejected, now, rejection(r.issuer, s, "the certificate expired or was replaced at the authority before it was fetched"))
		return
	case connector.Rejected:
		t.end(fleet.OrderRejected, now, rejection(r.issuer, s, "the authority has rejected the order"))
		return
	case connector.Revoked:
		t.end(fleet.OrderRejected, now, rejection(r.issuer, s, "the certificate was revoked at the authority before it was fetched"))
		return
	case connector.Cancelled:
		if t.state == fleet.OrderPlacing {
			t.end(fleet.OrderRejected, now, rejection(r.issuer, s, "the authority has cancelled the order at once"))
			return
		}
		t.end(fleet.OrderCancelled, now, cancellation(b, "the order was cancelled at the authority"))
		return
	}
	if s.State == connector.NeedsPerson {
		t.enter(fleet.OrderNeedsPerson, now)
		r.wait(t, now, asyncpoll.Answer{Person: true})
		return
	}
	// Whatever is not known is pending, and never a failure.
	t.enter(fleet.OrderPending, now)
	if was == fleet.OrderNeedsPerson && s.State == connector.Pending {
		t.freshBudget(now) // the person has acted
	}
	r.wait(t, now, asyncpoll.Answer{Person: s.State != connector.Pending})
}

// issued is an order whose certificate can be fetched.
func (r *rules) issued(t *turn, now time.Time) {
	b := &t.b
	if b.Cancel != nil && t.state != fleet.OrderPlacing {
		t.end(fleet.OrderCancelled, now, cancellation(b, "the authority had issued the certificate before the order could be taken back; it was not fetched"))
		return
	}
	if t.state == fleet.OrderReady { // it was known before
		r.wait(t, now, asyncpoll.Answer{})
		return
	}
	t.enter(fleet.OrderReady, now)
	b.ReadyAt = now
	t.freshBudget(now)
}

// scatter is d and up to a fifth more.
func (r *rules) scatter(d time.Duration) time.Duration {
	return d + time.Duration(float64(d)/5*r.random())
}

// invalid is an order that no authority can be asked for.
func (r *rules) invalid(o *fleet.Order, p *wire.Problem, now time.Time) turn {
	t := begin(o)
	t.end(fleet.OrderRejected, now, p)
	return t
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
