package orders

import (
	"time"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
)

// placed is the authority's answer to the placement.
func (r *rules) placed(o *fleet.Order, s *connector.Status, now time.Time) turn {
	t := begin(o)
	if handleOf(t.b.Handle).With(s.Handle).IsZero() && !s.State.Final() {
		return r.notPlaced(o, &connector.Error{Class: connector.ClassAnswer, Detail: "the authority took the order and did not say what it calls it"}, now)
	}
	r.standing(&t, s, now)
	t.soon(now)
	return t
}

// placedAndCollected is an answer to the placement that had the certificate, which is
// right.
func (r *rules) placedAndCollected(o *fleet.Order, s *connector.Status, c *certificate, now time.Time) turn {
	t := r.placed(o, s, now)
	if t.state != fleet.OrderReady || t.b.Cancel != nil {
		return t
	}
	t.enter(fleet.OrderIssued, now)
	t.b.FetchedAt, t.b.Next = now, time.Time{}
	t.certificate = c
	return t
}

// soon has an order that is to be taken back looked at at once.
func (t *turn) soon(now time.Time) {
	if t.b.Cancel != nil && !t.b.Next.IsZero() {
		t.b.Next = now
	}
}

// notPlaced is a placement that failed, or seems to have.
func (r *rules) notPlaced(o *fleet.Order, e *connector.Error, now time.Time) turn {
	t := begin(o)
	t.failed(e, now)
	switch {
	case !e.NotPlaced && !r.repeatable:
		t.enter(fleet.OrderUnknown, now)
		t.b.Detail, t.b.Mend = "", ""
		r.search(&t, o, now)
	case t.b.Cancel != nil:
		t.enter(fleet.OrderRequested, now) // which ends an order that is to be taken back
	case e.NotPlaced && e.Class == connector.ClassRefused:
		t.end(fleet.OrderRejected, now, refusal(r.issuer, e))
	case e.NotPlaced && (e.Class == connector.ClassNeedsPerson || e.Class == connector.ClassConfig || e.Class == connector.ClassNotFound):
		t.enter(fleet.OrderRequested, now)
		t.b.Detail, t.b.Mend = connector.Detail(text(e)), connector.Detail(mendOf(e))
		r.retry(&t, now, asyncpoll.Answer{Person: true, RetryAfter: e.RetryAfter})
	case e.Class == connector.ClassCredentials:
		t.enter(fleet.OrderRequested, now)
		t.b.Next = now.Add(r.scatter(unheard.Initial)) // as soon as its account goes on
	default:
		t.enter(fleet.OrderRequested, now)
		r.retry(&t, now, asyncpoll.Answer{Person: e.Class == connector.ClassAnswer, RetryAfter: e.RetryAfter})
	}
	return t
}

// unsent is a claim after which nothing was sent.
func (r *rules) unsent(o *fleet.Order, now time.Time) turn {
	t := begin(o)
	t.enter(fleet.OrderRequested, now)
	t.b.Next = now
	return t
}

// orphaned is an order that somebody claimed to place, and of which nothing was heard
// since.
func (r *rules) orphaned(o *fleet.Order, now time.Time) turn {
	t := begin(o)
	t.failed(&connector.Error{Class: connector.ClassRetry, Detail: "the node that placed the order stopped before it could store the answer"}, now)
	if r.repeatable {
		t.enter(fleet.OrderRequested, now)
		r.retry(&t, now, asyncpoll.Answer{})
		return t
	}
	t.enter(fleet.OrderUnknown, now)
	t.b.Detail, t.b.Mend = "", ""
	r.search(&t, o, now)
	return t
}
