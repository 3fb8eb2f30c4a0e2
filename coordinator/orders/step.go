package orders

import (
	"context"
	"time"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// maxRenewed bounds the earlier orders of a certificate that are looked through for
// the one that is renewed.
const maxRenewed = 1000

// searchTries is how often a search, or a question of many requests, is tried that
// breaks off, within searchTime. Connectors go on where it was.
const (
	searchTries = 8
	searchTime  = 30 * time.Second
)

// step is what is done for one order at one time: a question to its authority, or a
// few, and the record of what came of it.
type step struct {
	*term
	account *account
	key     string
	// outcome is what it says of the account. answered says that the authority has
	// answered something, however often the step had to ask; refused, that it does not
	// accept who asks.
	outcome           asyncpoll.Outcome
	answered, refused bool
	// kept says that the record is about to be stored with others: see recorder.
	kept bool
}

func (s *step) now() time.Time { return s.e.config.Now() }

// run does what is next for the order.
func (s *step) run(ctx context.Context, o *fleet.Order) {
	b := o.Brokering
	if b == nil {
		b = &fleet.Brokering{}
	}
	switch o.State {
	case fleet.OrderRequested:
		s.place(ctx, o)
	case fleet.OrderPlacing:
		// Nobody here is at it: what is done for an order is done by one at a time.
		s.store(ctx, o, s.account.rules.orphaned(o, s.now()))
	case fleet.OrderUnknown:
		s.search(ctx, o)
	case fleet.OrderPending, fleet.OrderNeedsPerson, fleet.OrderReady:
		switch {
		case b.Cancel != nil:
			s.takeBack(ctx, o)
		case o.State == fleet.OrderReady, o.State == fleet.OrderNeedsPerson && !b.ReadyAt.IsZero():
			s.collect(ctx, o, nil)
		default:
			s.poll(ctx, o)
		}
	}
}

// called takes note of what a call says of the account.
func (s *step) called(kind Call, err error, answered bool) {
	s.answered = s.answered || answered
	s.refused = s.refused || err != nil && connector.Classify(err).Class == connector.ClassCredentials
	outcome := s.account.note(kind, err, s.answered, s.now())
	if s.answered && !s.refused && s.outcome.Health == asyncpoll.Failing { // of an earlier try
		s.outcome.Health = asyncpoll.Well
	}
	if kind == CallSearch && err == nil { // however often it was tried
		s.outcome = outcome
		return
	}
	if s.outcome.Health == asyncpoll.Unclear && s.outcome.Pause == 0 {
		s.outcome = outcome
		return
	}
	s.outcome = worse(s.outcome, outcome)
}

// question is one call to the authority, with its own deadline. ok is false if the
// leadership ended over it, so that it says nothing.
func question[T any](ctx context.Context, s *step, kind Call, call func(ctx context.Context) (T, error)) (answer T, failure *connector.Error, ok bool) {
	within, cancel := context.WithTimeout(ctx, s.account.callTimeout)
	defer cancel()
	within, tally := connector.WithTally(within)
	answer, err := call(within)
	if ctx.Err() != nil {
		return answer, nil, false
	}
	s.called(kind, err, tally.Answered())
	if err != nil {
		return answer, connector.Classify(err), true
	}
	return answer, nil, true
}

// request is what the authority is asked for; if that cannot be made, the order ends.
func (s *step) request(ctx context.Context, o *fleet.Order) *connector.Request {
	r, problem := newRequest(o, s.account.issuer.MaxValidity)
	if problem != nil {
		s.unaskable(ctx, o, problem)
		return nil
	}
	return r
}

// unaskable is an order that no authority can be asked about. One that was not placed
// ends; another was asked for by a version that could read it, and is left to that.
func (s *step) unaskable(ctx context.Context, o *fleet.Order, p *wire.Problem) {
	if o.State == fleet.OrderRequested {
		s.store(ctx, o, s.account.rules.invalid(o, p, s.now()))
		return
	}
	s.keep(o, s.account.rules.unanswered(o, &connector.Error{Class: connector.ClassConfig, Detail: p.Detail, Mend: p.Mend}, s.now()))
}

// poll asks how the order stands.
func (s *step) poll(ctx context.Context, o *fleet.Order) {
	r := s.request(ctx, o)
	if r == nil {
		return
	}
	var status *connector.Status
	var failure *connector.Error
	var ok bool
	for try, began := 1, s.now(); ; try++ {
		status, failure, ok = question(ctx, s, CallStatus, func(ctx context.Context) (*connector.Status, error) {
			return s.account.issuer.Connector.Status(ctx, r, handleOf(o.Brokering.Handle))
		})
		// Some take many requests, and those before the one that failed were answered.
		if !ok || failure == nil || !s.answered || !s.again(failure, try, began) {
			break
		}
	}
	switch {
	case !ok:
	case failure != nil:
		s.store(ctx, o, s.account.rules.unanswered(o, failure, s.now()))
	default:
		t := s.account.rules.polled(o, status, s.now())
		s.account.spare(o, &t, s.now())
		s.stands(ctx, o, status, t)
	}
}

// stands stores where an order stands, and goes on with the certificate if the answer
// had it.
func (s *step) stands(ctx context.Context, o *fleet.Order, status *connector.Status, t turn) {
	next := s.store(ctx, o, t)
	if next != nil && next.State == fleet.OrderReady && next.Brokering.Cancel == nil && status.Bundle != nil {
		s.collect(ctx, next, status.Bundle)
	}
}

// collect fetches the certificate, unless an answer had it already, and stores it if
// it is the right one.
func (s *step) collect(ctx context.Context, o *fleet.Order, bundle *connector.Bundle) {
	r := s.request(ctx, o)
	if r == nil {
		return
	}
	handle := handleOf(o.Brokering.Handle)
	if bundle == nil {
		fetched, failure, ok := question(ctx, s, CallCollect, func(ctx context.Context) (*connector.Bundle, error) {
			return s.account.issuer.Connector.Collect(ctx, r, handle)
		})
		switch {
		case !ok:
			return
		case failure != nil:
			s.uncollected(ctx, o, r, failure)
			return
		}
		bundle = fetched
	}
	cert, err := s.account.check(ctx, r, bundle, s.now(), true)
	if err != nil {
		if ctx.Err() == nil {
			s.store(ctx, o, s.account.rules.refused(o, err, s.now()))
		}
		return
	}
	s.store(ctx, o, s.account.rules.collected(o, cert, s.now()))
}

// uncollected is a certificate that could not be fetched. Where an authority refuses,
// does not know it, or has a person act, its word on the order says more.
func (s *step) uncollected(ctx context.Context, o *fleet.Order, r *connector.Request, failure *connector.Error) {
	refused := failure.Class == connector.ClassRefused || failure.Class == connector.ClassNotFound
	if refused || failure.Class == connector.ClassNotReady && o.State == fleet.OrderNeedsPerson {
		status, _, ok := question(ctx, s, CallStatus, func(ctx context.Context) (*connector.Status, error) {
			return s.account.issuer.Connector.Status(ctx, r, handleOf(o.Brokering.Handle))
		})
		if !ok {
			return
		}
		if status != nil && status.State != connector.Issued && status.State != connector.Unrecognised {
			s.store(ctx, o, s.account.rules.polled(o, status, s.now()))
			return
		}
	}
	s.store(ctx, o, s.account.rules.unanswered(o, failure, s.now()))
}

// search looks for an order of which it is not known whether it was placed.
func (s *step) search(ctx context.Context, o *fleet.Order) {
	asked, steady, doubted := s.now(), s.e.config.Steady(), s.doubtedFor(o)
	searcher, can := s.account.issuer.Connector.(connector.Searcher)
	if !can || s.account.rules.repeatable {
		s.store(ctx, o, s.account.rules.unsearched(o, asked))
		return
	}
	r := s.request(ctx, o)
	if r == nil {
		return
	}
	old := s.account.rules.old(o, asked, doubted)
	var found []connector.Status
	for try := 1; ; try++ {
		waited := s.e.config.Steady() - steady
		list, failure, ok := question(ctx, s, CallSearch, func(ctx context.Context) ([]connector.Status, error) {
			return searcher.Search(ctx, r, old+waited)
		})
		switch {
		case !ok:
			return
		case failure == nil:
			found = list
		case s.again(failure, try, asked):
			continue
		default:
			s.store(ctx, o, s.account.rules.unanswered(o, failure, s.now()))
			return
		}
		break
	}
	// What was found was begun to be read as early as that, for all that is known.
	rules := s.account.rules
	doubted -= old
	rules.doubted = &doubted
	t := rules.found(o, found, asked.Add(-old), s.now())
	if len(found) == 1 {
		s.stands(ctx, o, &found[0], t)
		return
	}
	s.store(ctx, o, t)
}

// again reports whether a question of many requests is put again at once.
func (s *step) again(e *connector.Error, try int, began time.Time) bool {
	return e.Class == connector.ClassRetry && try < searchTries && s.now().Sub(began) < searchTime
}

// takeBack cancels an order that somebody wants to be taken back.
func (s *step) takeBack(ctx context.Context, o *fleet.Order) {
	rules := &s.account.rules
	if o.State == fleet.OrderReady {
		t := begin(o)
		rules.issued(&t, s.now())
		s.store(ctx, o, t)
		return
	}
	r := s.request(ctx, o)
	if r == nil {
		return
	}
	handle := handleOf(o.Brokering.Handle)
	detail, mend := "the authority takes no order back by itself", byHand(o.Brokering)
	if canceller, can := s.account.issuer.Connector.(connector.Canceller); can {
		_, failure, ok := question(ctx, s, CallCancel, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, canceller.Cancel(ctx, r, handle, o.Brokering.Cancel.Note)
		})
		switch {
		case !ok:
			return
		case failure == nil:
			s.store(ctx, o, rules.takenBack(o, "the authority has taken it back", s.now()))
			return
		case failure.Class == connector.ClassNotFound:
			s.store(ctx, o, rules.unheardOf(o, failure, s.now()))
			return
		case failure.Class != connector.ClassRefused && failure.Class != connector.ClassNeedsPerson && failure.Class != connector.ClassNotReady:
			s.store(ctx, o, rules.unanswered(o, failure, s.now()))
			return
		}
		detail = "the authority does not take the order back: " + text(failure)
		if failure.Mend != "" {
			mend = failure.Mend
		}
	}
	status, failure, ok := question(ctx, s, CallStatus, func(ctx context.Context) (*connector.Status, error) {
		return s.account.issuer.Connector.Status(ctx, r, handle)
	})
	switch {
	case !ok:
	case failure != nil && failure.Class == connector.ClassNotFound:
		s.store(ctx, o, rules.unheardOf(o, failure, s.now()))
	case failure != nil:
		s.store(ctx, o, rules.unanswered(o, failure, s.now()))
	default:
		s.store(ctx, o, rules.kept(o, status, detail, mend, s.now()))
	}
}

// place claims the order, and asks for it once.
func (s *step) place(ctx context.Context, o *fleet.Order) {
	r := s.request(ctx, o)
	if r == nil {
		return
	}
	rules := &s.account.rules
	if t, full := s.full(o); full {
		s.keep(o, t)
		return
	}
	renews := s.renews(o)
	began := s.now()
	// What may make an order goes on for a while when the leadership ends, and what
	// came of it is stored all the same.
	call, end := outlive(ctx, s.e.config.PlaceTimeout, parting)
	defer end()
	claimed := s.claim(call, o, renews)
	if claimed == nil {
		return
	}
	store, stop := outlive(ctx, 0, 2*parting)
	defer stop()
	// The claim was stored by whoever leads. Only if that is this node still, and in
	// the term of the claim, is the order placed by it.
	if err := s.e.config.Node.VerifyLeader(call); err != nil || s.e.config.Node.Term() != s.number || ctx.Err() != nil {
		s.store(store, claimed, rules.unsent(claimed, s.now()))
		return
	}
	r.Reference = reference(claimed)
	if !renews.IsZero() {
		h := handleOf(renews)
		r.Renews = &h
	}
	if s.now().Sub(began) >= s.e.config.PlaceTimeout {
		s.store(store, claimed, rules.unsent(claimed, s.now()))
		return
	}
	status, err := s.account.issuer.Connector.Place(call, r)
	s.called(CallPlace, err, false)
	if err != nil {
		failure := connector.Classify(err)
		s.settle(store, claimed, func(o *fleet.Order) turn { return rules.notPlaced(o, failure, s.now()) })
		return
	}
	if cert := s.atOnce(store, r, status); cert != nil && claimed.Brokering.Cancel == nil {
		s.settle(store, claimed, func(o *fleet.Order) turn { return rules.placedAndCollected(o, status, cert, s.now()) })
		return
	}
	next := s.settle(store, claimed, func(o *fleet.Order) turn { return rules.placed(o, status, s.now()) })
	if next != nil && next.State == fleet.OrderReady && next.Brokering.Cancel == nil && status.Bundle != nil && ctx.Err() == nil {
		s.collect(ctx, next, status.Bundle)
	}
}

// atOnce is the certificate, if the answer to the placement has it with its chain: no
// more questions are needed then, and none may be answered later (an authority may not
// keep what it has issued).
func (s *step) atOnce(ctx context.Context, r *connector.Request, status *connector.Status) *certificate {
	if status.State != connector.Issued || status.Bundle == nil {
		return nil
	}
	cert, err := s.account.check(ctx, r, status.Bundle, s.now(), false)
	if err != nil {
		return nil
	}
	return cert
}

// renews is the newest order that was delivered for the same certificate by the same
// issuer.
func (s *step) renews(o *fleet.Order) fleet.OrderHandle {
	if o.Brokering != nil && !o.Brokering.Renews.IsZero() {
		return o.Brokering.Renews
	}
	var newest *fleet.Order
	delivered := fleet.OrderFilter{Stage: fleet.StageDelivered, Issuer: o.Issuer, Agent: o.Agent, Certificate: o.Certificate}
	list, _, err := s.e.config.Node.State().View().BrokeredOrders(delivered, fleet.Page{Limit: maxRenewed})
	if err != nil {
		return fleet.OrderHandle{} // it cannot be: the page is the first one
	}
	for _, other := range list {
		if other.Brokering == nil || other.Brokering.Handle.IsZero() {
			continue
		}
		if newest == nil || other.Brokering.DeliveredAt.After(newest.Brokering.DeliveredAt) {
			newest = other
		}
	}
	if newest == nil {
		return fleet.OrderHandle{}
	}
	return newest.Brokering.Handle
}

// outlive is a context that ends grace after ctx does, or after limit (0 is none).
func outlive(ctx context.Context, limit, grace time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithoutCancel(ctx), context.CancelFunc(nil)
	if limit > 0 {
		out, cancel = context.WithTimeout(out, limit)
	} else {
		out, cancel = context.WithCancel(out)
	}
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(grace, cancel)
		context.AfterFunc(out, func() { timer.Stop() })
	})
	return out, func() { stop(); cancel() }
}
