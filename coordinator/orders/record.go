package orders

import (
	"context"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// gather is how long the records of questions that changed nothing wait for
	// others, to be stored together.
	gather = 500 * time.Millisecond
	// maxGathered bounds those that are stored together; more wait for the next time.
	maxGathered = 256
	// refusedRest is how long an order is left alone whose record the state refuses:
	// it would be asked about again and again.
	refusedRest = 10 * time.Minute
)

var storeRetry = backoff.Policy{Initial: 200 * time.Millisecond, Max: 10 * time.Second, Multiplier: 2, Jitter: 0.2}

// propose stores commands, however often that takes while ctx lives: the same ones, so
// that each is applied once.
func (t *term) propose(ctx context.Context, payloads ...fleet.Payload) ([]fleet.Result, error) {
	commands := make([]fleet.Command, 0, len(payloads))
	for _, payload := range payloads {
		command, err := fleet.NewCommand(t.e.config.Now(), payload)
		if err != nil {
			return nil, err
		}
		commands = append(commands, command)
	}
	for attempt := 1; ; attempt++ {
		results, err := t.e.config.Node.Propose(ctx, commands...)
		if err == nil || ctx.Err() != nil {
			return results, err
		}
		if attempt == 1 {
			t.e.log.Warn("what became of orders cannot be stored at the moment, and is tried again", "records", len(commands), "err", err)
		}
		if backoff.Wait(ctx, storeRetry.Delay(attempt, t.e.config.Random)) != nil {
			return nil, err
		}
	}
}

// record is the command that makes of an order what a turn says.
func (t *turn) record(o *fleet.Order) fleet.RecordOrder {
	r := fleet.RecordOrder{Agent: o.Agent, ID: o.ID, Revision: o.ModifyIndex, State: t.state, Brokering: t.b, Problem: t.problem}
	if c := t.certificate; c != nil {
		r.ChainPEM, r.Serial, r.Fingerprint, r.NotAfter = c.chainPEM, c.serial, c.fingerprint, c.notAfter
	}
	return r
}

// claim has the order be this leader's to place. It is nil if it is not.
func (s *step) claim(ctx context.Context, o *fleet.Order, renews fleet.OrderHandle) *fleet.Order {
	results, err := s.propose(ctx, fleet.ClaimOrder{
		Agent: o.Agent, ID: o.ID, Revision: o.ModifyIndex, Node: s.e.config.NodeID, Term: s.number, Renews: renews,
	})
	if err != nil {
		return nil // the leadership has ended: an order that was claimed is found as such
	}
	var change fleet.OrderChange
	if err := results[0].Decode(&change); err != nil {
		s.rejected(o, results[0])
		return nil
	}
	claimed, ok := s.order(s.key)
	if !ok || claimed.State != fleet.OrderPlacing || claimed.Brokering.Attempt != change.Attempt {
		return nil // taken back at this moment
	}
	s.e.log.Info("an order is placed at an authority", append(about(claimed), "attempt", change.Attempt, "reference", change.Reference, "names", claimed.Names)...)
	if claimed.Brokering.Cancel != nil {
		s.store(ctx, claimed, s.account.rules.unsent(claimed, s.now()))
		return nil
	}
	return claimed
}

// store has an order be what a turn says, unless it has changed since. It returns the
// order as it is then; nil if there is no more to be done now. What changes nothing
// but the time of the next question is stored with others, later.
func (s *step) store(ctx context.Context, o *fleet.Order, t turn) *fleet.Order {
	if t.state == o.State && t.certificate == nil {
		s.keep(o, t)
		return nil
	}
	next, _ := s.try(ctx, o, t)
	return next
}

// keep stores a turn with others, later.
func (s *step) keep(o *fleet.Order, t turn) {
	s.kept = true
	s.record.add(s.key, o, t)
}

// try stores a turn. conflict says that the order has changed meanwhile.
func (s *step) try(ctx context.Context, o *fleet.Order, t turn) (next *fleet.Order, conflict bool) {
	results, err := s.propose(ctx, t.record(o))
	if err != nil {
		if ctx.Err() == nil {
			s.unstorable(o, err)
		}
		return nil, false
	}
	if results[0].Code == wire.CodeConflict || results[0].Code == wire.CodeNotFound {
		fresh, ok := s.order(s.key)
		if ok && fresh.ModifyIndex == o.ModifyIndex {
			s.rejected(o, results[0])
		}
		return nil, true
	}
	if !results[0].OK() {
		s.rejected(o, results[0])
		return nil, false
	}
	s.e.told(o, &t)
	next, ok := s.order(s.key)
	if ok && next.State == fleet.OrderUnknown {
		s.doubtedFor(next) // from here on
	} else {
		s.mu.Lock()
		delete(s.doubts, s.key)
		s.mu.Unlock()
	}
	if !ok {
		return nil, false // its agent is gone, and so is the order
	}
	return next, false
}

// settle stores what came of a placement: also if the order has changed meanwhile, as
// long as it is the same attempt.
func (s *step) settle(ctx context.Context, claimed *fleet.Order, decide func(o *fleet.Order) turn) *fleet.Order {
	for o := claimed; ; {
		t := decide(o)
		next, conflict := s.try(ctx, o, t)
		if !conflict {
			return next
		}
		fresh, ok := s.order(s.key)
		attempt := ok && fresh.Brokering != nil && fresh.Brokering.Attempt == claimed.Brokering.Attempt && fresh.ModifyIndex != o.ModifyIndex
		switch {
		case attempt && fresh.State == fleet.OrderPlacing:
			o = fresh
			continue
		case attempt && fresh.State == fleet.OrderUnknown && !t.b.Handle.IsZero():
			o = fresh // another leader took it over, and need not search now
			continue
		case !t.b.Handle.IsZero() && ok && !sameOrder(fresh, t.b.Handle):
			s.e.log.Error("an authority took an order, and its answer came too late to be stored; look there for an order that nobody waits for",
				append(about(claimed), "attempt", claimed.Brokering.Attempt, "reference", claimed.Brokering.Reference, "authority_order", shown(t.b.Handle))...)
		}
		return nil
	}
}

func sameOrder(o *fleet.Order, h fleet.OrderHandle) bool {
	return o.Brokering != nil && o.Brokering.Handle.Order == h.Order
}

// rejected is a record that the state does not take: a defect, of this program or of
// another version of it. The order is left alone for a while.
func (t *term) rejected(o *fleet.Order, r fleet.Result) { t.unstorable(o, r.Err()) }

func (t *term) unstorable(o *fleet.Order, err error) {
	t.e.log.Error("what became of an order cannot be stored; the order rests", append(about(o), "err", err)...)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.resting[keyOf(o)] = t.e.config.Now().Add(refusedRest)
}

// recorder stores turns that changed no state, many of them in one entry of the log.
// Until one is stored, nothing else is done for its order. One that is lost with its
// node costs one question more.
type recorder struct {
	term   *term
	filled chan struct{} // there is something; holds one value at most

	mu      sync.Mutex
	waiting []waiting
}

type waiting struct {
	key   string
	order *fleet.Order
	turn  turn
}

func newRecorder(t *term) *recorder {
	return &recorder{term: t, filled: make(chan struct{}, 1)}
}

func (r *recorder) add(key string, o *fleet.Order, t turn) {
	r.mu.Lock()
	r.waiting = append(r.waiting, waiting{key, o, t})
	r.mu.Unlock()
	select {
	case r.filled <- struct{}{}:
	default:
	}
}

// run stores what comes until more is done, when nothing more will, and then the rest.
func (r *recorder) run(ctx, more context.Context) error {
	last, end := outlive(ctx, 0, parting)
	defer end()
	for more.Err() == nil {
		select {
		case <-more.Done():
		case <-r.filled:
			_ = backoff.Wait(more, gather) // or until there is no more to wait for
		}
		r.flush(last)
	}
	r.flush(last)
	return nil
}

func (r *recorder) flush(ctx context.Context) {
	for {
		batch := r.take()
		if len(batch) == 0 {
			return
		}
		r.store(ctx, batch)
	}
}

func (r *recorder) take() []waiting {
	r.mu.Lock()
	defer r.mu.Unlock()
	size, n := 0, 0
	for n < len(r.waiting) && n < maxGathered && size < fleet.TargetEntry/4 {
		size += sizeOf(&r.waiting[n].turn)
		n++
	}
	batch := r.waiting[:n:n]
	r.waiting = r.waiting[n:]
	return batch
}

// sizeOf is about what a record takes in the log.
func sizeOf(t *turn) int {
	b := &t.b
	return 512 + len(b.Detail) + len(b.Mend) + len(b.Failure) + len(b.Raw) + 512*len(b.Candidates)
}

func (r *recorder) store(ctx context.Context, batch []waiting) {
	t := r.term
	defer func() {
		for _, w := range batch {
			t.done(w.key)
		}
	}()
	var payloads []fleet.Payload
	var sent []waiting
	for _, w := range batch {
		record := w.turn.record(w.order)
		if _, err := fleet.NewCommand(t.e.config.Now(), record); err != nil {
			t.unstorable(w.order, err)
			continue
		}
		payloads, sent = append(payloads, record), append(sent, w)
	}
	results, err := t.propose(ctx, payloads...)
	if err != nil {
		return // the leadership has ended
	}
	for i, result := range results {
		w := sent[i]
		switch {
		case result.OK():
			t.e.told(w.order, &w.turn)
		case result.Code == wire.CodeConflict, result.Code == wire.CodeNotFound:
			// It has changed, and is looked at as it is now.
			if fresh, ok := t.order(w.key); ok && fresh.ModifyIndex == w.order.ModifyIndex {
				t.rejected(w.order, result)
			}
		default:
			t.rejected(w.order, result)
		}
	}
}
