package orders

import (
	"errors"
	"time"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

// polled is the answer to a question about the order.
func (r *rules) polled(o *fleet.Order, s *connector.Status, now time.Time) turn {
	t := begin(o)
	t.b.Polls++
	r.standing(&t, s, now)
	return t
}

// unanswered is a question about the order, its certificate or its whereabouts that
// had no answer.
func (r *rules) unanswered(o *fleet.Order, e *connector.Error, now time.Time) turn {
	t := begin(o)
	t.b.Polls++
	unknown := t.state == fleet.OrderUnknown
	switch e.Class {
	case connector.ClassNotReady:
		t.answered()
		r.wait(&t, now, asyncpoll.Answer{Person: t.state == fleet.OrderNeedsPerson, RetryAfter: e.RetryAfter})
		return t
	case connector.ClassNotFound, connector.ClassRefused, connector.ClassNeedsPerson:
		t.failed(e, now)
		switch {
		case unknown: // the search was refused; the order is as unknown as before
			t.b.Detail, t.b.Mend = connector.Detail(text(e)), connector.Detail(mendOf(e))
			if t.b.Mend == "" {
				t.b.Mend = lookUp(o, &t.b)
			}
			r.wait(&t, now, asyncpoll.Answer{Person: true, RetryAfter: e.RetryAfter})
		case e.Class == connector.ClassNotFound && r.repeatable:
			// It keeps no certificate that it has issued. The agent asks for another one.
			t.end(fleet.OrderRejected, now, problem.New(wire.CodeUnavailable, "orders",
				"the authority issued the certificate and does not keep it, and the answer that had it was lost", "a new order is placed by itself"))
		case e.Class == connector.ClassNotFound && now.Sub(latest(t.b.SubmittedAt, t.b.ReadyAt)) < notFoundGrace:
			r.wait(&t, now, asyncpoll.Answer{Person: t.state == fleet.OrderNeedsPerson, RetryAfter: e.RetryAfter})
		case e.Class == connector.ClassNotFound:
			r.person(&t, now, text(e), vanished(&t.b), e.RetryAfter)
		default:
			r.person(&t, now, text(e), mendOf(e), e.RetryAfter)
		}
		return t
	}
	t.failed(e, now)
	if e.Class == connector.ClassRetry || e.Class == connector.ClassBusy {
		// The question is put again soon: it says nothing of how long the order takes.
		// An authority that answers nobody is spared by its account's circuit.
		t.b.Next = now.Add(unheard.DelayAfter(int(min(t.b.Failures, 100)), min(e.RetryAfter, asyncpoll.MaxPause), r.random))
		return t
	}
	if e.Class == connector.ClassCredentials {
		t.b.Next = now.Add(r.scatter(unheard.Initial)) // as soon as its account goes on
		return t
	}
	slow := t.state == fleet.OrderNeedsPerson || e.Class == connector.ClassConfig || e.Class == connector.ClassAnswer
	r.wait(&t, now, asyncpoll.Answer{Person: slow, RetryAfter: e.RetryAfter})
	return t
}

// collected is an order whose certificate was fetched and is right.
func (r *rules) collected(o *fleet.Order, c *certificate, now time.Time) turn {
	t := begin(o)
	t.answered()
	t.enter(fleet.OrderIssued, now)
	t.b.FetchedAt, t.b.Next, t.b.Mend = now, time.Time{}, ""
	t.certificate = c
	return t
}

// refused is a certificate that was fetched and is not delivered, for a reason that the
// check of it gave.
func (r *rules) refused(o *fleet.Order, err error, now time.Time) turn {
	if _, ok := errors.AsType[*incompleteError](err); ok {
		return r.incomplete(o, err, now)
	}
	if e, ok := errors.AsType[*connector.Error](err); ok { // of a question for its issuers
		return r.unanswered(o, e, now)
	}
	return r.wrong(o, err, now)
}

// wrong is a certificate that was fetched and is not that of the order. An authority
// may show an earlier one for a while. It is never delivered.
func (r *rules) wrong(o *fleet.Order, err error, now time.Time) turn {
	t := begin(o)
	t.b.Polls++
	t.b.WrongCertificates++
	t.failed(&connector.Error{Class: connector.ClassAnswer, Detail: "the certificate that the authority hands out is not right: " + err.Error()}, now)
	if t.state != fleet.OrderNeedsPerson && t.b.WrongCertificates < maxWrong {
		r.wait(&t, now, asyncpoll.Answer{})
		return t
	}
	r.person(&t, now, t.b.Failure, wrongMend(&t.b), 0)
	return t
}

// incomplete is a certificate that is right, and none of whose issuers are known.
func (r *rules) incomplete(o *fleet.Order, err error, now time.Time) turn {
	t := begin(o)
	t.b.Polls++
	t.failed(&connector.Error{Class: connector.ClassAnswer, Detail: err.Error()}, now)
	r.person(&t, now, t.b.Failure, "give the issuing certificates of the authority in the issuer's chain_file; the certificate is fetched again by itself", 0)
	return t
}

// takenBack is an order that the authority has cancelled for us.
func (r *rules) takenBack(o *fleet.Order, detail string, now time.Time) turn {
	t := begin(o)
	t.answered()
	t.end(fleet.OrderCancelled, now, cancellation(&t.b, detail))
	return t
}

// unheardOf is an order that is to be taken back, and that its authority does not know:
// not any more, or not yet.
func (r *rules) unheardOf(o *fleet.Order, e *connector.Error, now time.Time) turn {
	if now.Sub(o.Brokering.SubmittedAt) < notFoundGrace {
		return r.unanswered(o, e, now)
	}
	return r.takenBack(o, "the authority does not know it", now)
}

// kept is an order that the authority does not cancel, and s where it stands.
func (r *rules) kept(o *fleet.Order, s *connector.Status, detail, mend string, now time.Time) turn {
	t := r.polled(o, s, now)
	if t.b.Next.IsZero() {
		return t // it has ended
	}
	r.person(&t, now, detail, mend, 0)
	return t
}
