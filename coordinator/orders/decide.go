package orders

import (
	"errors"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/problem"
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

// hopefulSearches are the pauses before further searches at an authority where not to
// be found proves nothing. They may still find the order, and spare the operator.
var hopefulSearches = []time.Duration{5 * time.Minute, time.Hour}

// unheard is the pace of a question that had no answer.
var unheard = backoff.Policy{Initial: 5 * time.Second, Max: 5 * time.Minute, Multiplier: 3, Jitter: 0.2}

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

// enter changes the state, and keeps the times that belong to states.
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
		b.SearchedAt = began
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
	visible := quiet.Add(r.visible)
	spacing := b.SearchedAt.Add(min(searchSpacing, r.visible))
	proof := latest(visible, spacing)
	if b.Searches >= fleet.AbsenceSearches && !began.Before(proof) {
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

// scatter is d and up to a fifth more.
func (r *rules) scatter(d time.Duration) time.Duration {
	return d + time.Duration(float64(d)/5*r.random())
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

// invalid is an order that no authority can be asked for.
func (r *rules) invalid(o *fleet.Order, p *wire.Problem, now time.Time) turn {
	t := begin(o)
	t.end(fleet.OrderRejected, now, p)
	return t
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

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
