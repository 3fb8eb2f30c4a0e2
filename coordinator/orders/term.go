package orders

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/runner"
)

const (
	// lookInterval is how often the table of orders is looked at for what nobody told
	// of, and lookPause the least time between two looks; ahead is how far before their time orders are taken into the queue.
	lookInterval = time.Second
	lookPause    = 50 * time.Millisecond
	ahead        = 5 * time.Second
	// parting is how long a call that may have made an order goes on when the
	// leadership ends, for its answer, and then how long that is tried to be stored.
	parting = 5 * time.Second
	// orphanGrace is how long the answer of another leader is waited for after its claim,
	// which it may store although it does not lead any more.
	orphanGrace = 3 * parting
	// longestPause is further ahead than the next step of any order is ever set, and
	// sweepInterval how often it is looked for orders that are to wait for longer.
	longestPause  = AgentOrdersSpan + 2*asyncpoll.MaxPause
	sweepInterval = 10 * time.Minute
)

// term is the work of one term of leadership. Nothing of it goes into another one but
// through the state.
type term struct {
	e      *Engine
	number uint64
	queue  *asyncpoll.Queue
	record *recorder

	mu sync.Mutex
	// busy are the orders that something is done for, or of which something is about
	// to be stored; queued those in the queue, and their times.
	busy   map[string]struct{}
	queued map[string]time.Time
	// resting are orders that are left alone until a moment.
	resting map[string]time.Time
	// told is until when each authority has told of changes that tells of them, and
	// urged the orders, with their revisions, that have changed there.
	told  map[string]time.Time
	urged map[string]uint64
	// doubts are the orders of unknown outcome, by their keys.
	doubts map[string]doubt
	// revoking are the revocations in the queue, by their keys there.
	revoking map[string]*revoking
	// swept is when all open orders were looked at last.
	swept time.Time
	// strangers counts the orders of issuers that the settings do not have.
	strangers map[string]int
}

// work is what an engine does while its node leads.
func (e *Engine) work(ctx context.Context) error {
	t := &term{
		e: e, number: e.config.Node.Term(),
		busy: map[string]struct{}{}, queued: map[string]time.Time{}, resting: map[string]time.Time{}, strangers: map[string]int{},
		told: map[string]time.Time{}, urged: map[string]uint64{}, doubts: map[string]doubt{}, revoking: map[string]*revoking{},
	}
	if t.number == 0 { // it is over already, which the node is about to say
		<-ctx.Done()
		return nil
	}
	t.record = newRecorder(t)
	var err error
	if t.queue, err = e.newQueue(t.ask); err != nil {
		return err
	}
	e.current.Store(t)
	defer e.current.Store(nil)
	e.Wake()
	more, none := context.WithCancel(context.WithoutCancel(ctx))
	defer none()
	return runner.Run(ctx,
		runner.Task{Name: "questions to authorities", Run: func(ctx context.Context) error {
			defer none() // nothing is asked any more
			return t.queue.Run(ctx)
		}},
		runner.Task{Name: "records of questions", Run: func(ctx context.Context) error { return t.record.run(ctx, more) }},
		runner.Task{Name: "orders that are due", Run: func(ctx context.Context) error {
			jitter.Loop(ctx, lookInterval, jitter.DefaultSchedulerJitter, e.wake, func(ctx context.Context) {
				t.look()
				_ = backoff.Wait(ctx, lookPause) // however many are told of
			})
			return nil
		}},
	)
}

// newQueue is the queue of a term. It never asks without ask.
func (e *Engine) newQueue(ask func(ctx context.Context, account, key string) asyncpoll.Outcome) (*asyncpoll.Queue, error) {
	c := asyncpoll.Config{
		Accounts: map[string]asyncpoll.Limits{}, Ask: ask, Changed: e.accountChanged, Random: e.config.Random,
		// Of a whole step; each of its calls has its own, and is over before.
		CallTimeout: e.config.PlaceTimeout + 4*e.config.CallTimeout,
	}
	if ask == nil {
		c.Ask = func(context.Context, string, string) asyncpoll.Outcome { return asyncpoll.Outcome{} }
	}
	for name, a := range e.accounts {
		c.Accounts[name] = a.issuer.Limits
	}
	return asyncpoll.New(c)
}

func keyOf(o *fleet.Order) string { return o.Agent + "\x00" + o.ID }

// order is the order of a key as it stands now.
func (t *term) order(key string) (*fleet.Order, bool) {
	agent, id, _ := strings.Cut(key, "\x00")
	return t.e.config.Node.State().View().Order(agent, id)
}

// due is when something is to be done for an order; zero for nothing.
func (t *term) due(o *fleet.Order) time.Time {
	switch {
	case o.Ended():
		return time.Time{}
	case o.Brokering == nil:
		return o.PlacedAt
	}
	at, claim := o.Brokering.Next, o.Brokering.Claim
	if o.State == fleet.OrderPlacing && claim.Node != t.e.config.NodeID && !at.IsZero() && claim.At.Before(t.e.config.Now().Add(clockSkew)) {
		at = latest(at, claim.At.Add(orphanGrace))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if revision, urged := t.urged[keyOf(o)]; urged && revision == o.ModifyIndex && !at.IsZero() {
		at = o.Brokering.SubmittedAt // long ago
	}
	if at.After(t.e.config.Now().Add(longestPause)) {
		// It was set by a clock that was wrong. Nobody would look after the order for as
		// long as that was ahead.
		at = o.PlacedAt
	}
	rests, ok := t.resting[keyOf(o)]
	switch {
	case !ok || at.IsZero():
		return at
	case !rests.After(t.e.config.Now()):
		delete(t.resting, keyOf(o))
		return at
	}
	return latest(at, rests)
}

// look takes the orders into the queue whose time comes.
func (t *term) look() {
	until := t.e.config.Now().Add(ahead)
	strangers := map[string]int{}
	for _, o := range t.e.config.Node.State().View().OrdersDue(until, 0) {
		if t.e.accounts[o.Issuer] == nil {
			strangers[o.Issuer]++
			continue
		}
		t.enqueue(o, until)
	}
	t.sweep(until)
	t.revocations()
	for _, a := range t.e.accounts {
		t.changes(a)
	}
	t.mu.Lock()
	before := t.strangers
	t.strangers = strangers
	t.mu.Unlock()
	for issuer, count := range strangers {
		if before[issuer] == 0 {
			t.e.log.Warn("orders wait for an issuer that this node does not have in its settings", "issuer", issuer, "orders", count)
		}
	}
}

// doubt is since when an order is of unknown outcome: as it is stored, and by the steady
// clock.
type doubt struct {
	stored time.Time
	began  time.Duration
}

// doubtedFor is how long an order is of unknown outcome already. A clock that is set
// forward after this term has heard of it makes that no longer: it would seem proved that
// nothing was placed, and the order would be placed again.
func (t *term) doubtedFor(o *fleet.Order) time.Duration {
	now, since := t.e.config.Steady(), o.Brokering.UnknownSince
	t.mu.Lock()
	defer t.mu.Unlock()
	known, ok := t.doubts[keyOf(o)]
	if !ok || !known.stored.Equal(since) {
		known = doubt{stored: since, began: now - max(t.e.config.Now().Sub(since), 0)}
		t.doubts[keyOf(o)] = known
	}
	return now - known.began
}

// sweep looks at all open orders now and then, for those whose time a wrong clock has
// set.
func (t *term) sweep(until time.Time) {
	now := t.e.config.Now()
	if !t.swept.IsZero() && now.Sub(t.swept) < sweepInterval {
		return
	}
	t.swept = now
	for _, o := range t.e.config.Node.State().View().OpenOrders("", 0) {
		if b := o.Brokering; b != nil && b.Next.After(now.Add(longestPause)) && t.e.accounts[o.Issuer] != nil {
			t.enqueue(o, until)
		}
	}
}

// enqueue takes an order into the queue that is due by a moment, unless something is
// done for it already.
func (t *term) enqueue(o *fleet.Order, until time.Time) {
	key, at := keyOf(o), t.due(o)
	if at.IsZero() || at.After(until) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.busy[key]; ok {
		return
	}
	if queued, ok := t.queued[key]; ok && queued.Equal(at) {
		return
	}
	if t.queue.Set(o.Issuer, key, at) == nil {
		t.queued[key] = at
	}
}

// begin says that something is done for an order from here on. It is false if
// something is done already.
func (t *term) begin(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.queued, key)
	if _, ok := t.busy[key]; ok {
		return false
	}
	t.busy[key] = struct{}{}
	return true
}

// done says that what was done for an order is stored, or came to nothing, and has it
// looked after again if its time has come.
func (t *term) done(key string) {
	t.mu.Lock()
	delete(t.busy, key)
	t.mu.Unlock()
	if o, ok := t.order(key); ok && t.e.accounts[o.Issuer] != nil {
		t.enqueue(o, t.e.config.Now().Add(ahead))
	}
}

// ask does for an order what is to be done next. The queue calls it, for as many
// orders of an account at the same time as its limits allow.
func (t *term) ask(ctx context.Context, account, key string) asyncpoll.Outcome {
	idle := asyncpoll.Outcome{Health: asyncpoll.Unclear}
	if key == changesKey {
		return t.askChanges(ctx, t.e.accounts[account])
	}
	if strings.HasPrefix(key, revocationKey) {
		return t.askRevocation(ctx, t.e.accounts[account], key)
	}
	if !t.begin(key) {
		return idle // and it is looked after again when that is done
	}
	o, ok := t.order(key)
	at := time.Time{}
	if ok {
		at = t.due(o)
	}
	// It may have changed since it was put into the queue.
	if !ok || o.Issuer != account || at.IsZero() || at.After(t.e.config.Now()) || ctx.Err() != nil {
		t.done(key)
		return idle
	}
	s := &step{term: t, account: t.e.accounts[account], key: key, outcome: idle}
	s.run(ctx, o)
	t.mu.Lock()
	delete(t.urged, key)
	t.mu.Unlock()
	if !s.kept {
		t.done(key)
	}
	return s.outcome
}
