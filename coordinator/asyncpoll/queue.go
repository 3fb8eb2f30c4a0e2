package asyncpoll

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// Limits bound what is asked of one account.
type Limits struct {
	// Rate is questions a second, in the long run; 0 is DefaultRate.
	Rate float64
	// Burst is how many may follow each other at once after a quiet time; 0 is 1.
	Burst int
	// Concurrency is how many are open at the same time; 0 is DefaultConcurrency.
	Concurrency int
}

// Limits where an account has none of its own: below what any of the authorities
// that publish theirs allow.
const (
	DefaultRate        = 2.0
	DefaultConcurrency = 4
	maxConcurrency     = 256
)

func (l Limits) validate() error {
	if !(l.Rate >= 0) || math.IsInf(l.Rate, 1) || l.Burst < 0 || l.Concurrency < 0 || l.Concurrency > maxConcurrency {
		return fmt.Errorf("limits %+v: expected numbers from 0 upwards, and at most %d at the same time", l, maxConcurrency)
	}
	return nil
}

// DefaultCallTimeout bounds one question where the Config sets nothing.
const DefaultCallTimeout = 3 * time.Minute

// Config of a Queue. Accounts and Ask are required.
type Config struct {
	// Accounts are the accounts that are asked, by name.
	Accounts map[string]Limits
	// Ask asks about one order. Its context ends with the Queue and after
	// CallTimeout; while one question hangs, others are asked.
	Ask func(ctx context.Context, account, key string) Outcome
	// CallTimeout bounds one call of Ask; 0 is DefaultCallTimeout.
	CallTimeout time.Duration
	// Changed is called when an account's circuit opens or closes, or it is
	// paused; nil if nobody wants to know. It must not call the Queue.
	Changed func(account string, s AccountStatus)
	// Random returns numbers uniform in [0,1); nil is math/rand/v2's.
	Random func() float64
}

// Outcome is what became of a question.
type Outcome struct {
	// Next is when to ask about the order again; zero for never.
	Next time.Time
	// Health is what the answer says of the account.
	Health Health
	// Pause keeps the whole account quiet for as long; 0 does not.
	Pause time.Duration
	// Reason is why, in a few words, if Health is not Well or there is a Pause.
	Reason string
}

// Health is what an answer says of an account.
type Health int

const (
	// Well says that the authority answers, whatever it says of the order.
	Well Health = iota
	// Failing says that it does not, or answers that it cannot (5xx).
	Failing
	// Unclear says nothing, because the question was never asked.
	Unclear
)

// Queue asks about orders when their time has come. Its methods may be called from
// any goroutine.
type Queue struct {
	config Config
	wake   chan struct{}

	mu       sync.Mutex
	accounts map[string]*account
	running  bool
}

// New checks c.
func New(c Config) (*Queue, error) {
	if c.Ask == nil {
		return nil, errors.New("asyncpoll: Ask is missing")
	}
	c.CallTimeout = cmp.Or(c.CallTimeout, DefaultCallTimeout)
	q := &Queue{config: c, wake: make(chan struct{}, 1), accounts: map[string]*account{}}
	for name, limits := range c.Accounts {
		if err := limits.validate(); err != nil {
			return nil, fmt.Errorf("asyncpoll: account %q: %w", name, err)
		}
		limits.Rate, limits.Burst = cmp.Or(limits.Rate, DefaultRate), max(limits.Burst, 1)
		limits.Concurrency = cmp.Or(limits.Concurrency, DefaultConcurrency)
		q.accounts[name] = &account{name: name, limits: limits, items: map[string]*item{}, circuit: circuit{random: c.Random}}
	}
	return q, nil
}

// Set has the order of key asked about at a moment, instead of when it was to be. A
// key that is being asked about is asked again then, or when its Outcome says so,
// whichever comes first. An account that the Queue does not know is an error.
func (q *Queue) Set(accountName, key string, at time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	a, ok := q.accounts[accountName]
	if !ok {
		return fmt.Errorf("asyncpoll: there is no account %q", accountName)
	}
	a.set(key, at)
	q.stir()
	return nil
}

// Remove forgets an order. One that is being asked about is so to the end, and not
// again.
func (q *Queue) Remove(accountName, key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if a, ok := q.accounts[accountName]; ok {
		a.remove(key)
	}
}

// Resume ends an account's pause and closes its circuit, for an operator who knows
// more.
func (q *Queue) Resume(accountName string) {
	q.mu.Lock()
	a, ok := q.accounts[accountName]
	if ok {
		a.pausedUntil, a.pausedFor = time.Time{}, ""
		a.circuit.close()
	}
	q.mu.Unlock()
	if ok {
		q.tell(a)
		q.stir()
	}
}

// stir has Run look again.
func (q *Queue) stir() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Run asks until ctx is done, and returns when the last question has ended. It runs
// once at a time.
func (q *Queue) Run(ctx context.Context) error {
	q.mu.Lock()
	if q.running {
		q.mu.Unlock()
		return errors.New("asyncpoll: the queue runs already")
	}
	q.running = true
	q.mu.Unlock()
	var open sync.WaitGroup
	defer func() {
		open.Wait()
		q.mu.Lock()
		q.running = false
		q.mu.Unlock()
	}()
	for ctx.Err() == nil {
		next := q.begin(time.Now(), func(a *account, i *item) {
			open.Go(func() { q.ask(ctx, a, i) })
		})
		q.wait(ctx, next)
	}
	return nil
}

// begin starts every question that is due and allowed, and returns when the next one
// will be; zero if only a change can tell.
func (q *Queue) begin(now time.Time, start func(*account, *item)) (next time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, a := range q.accounts {
		for {
			at, ok := a.ready(now)
			if !ok {
				break
			}
			if at.After(now) {
				if next.IsZero() || at.Before(next) {
					next = at
				}
				break
			}
			start(a, a.take(now))
		}
	}
	return next
}

// wait returns at a moment, when something has changed, or when ctx is done.
func (q *Queue) wait(ctx context.Context, until time.Time) {
	var moment <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		moment = timer.C
	}
	select {
	case <-ctx.Done():
	case <-q.wake:
	case <-moment:
	}
}

func (q *Queue) ask(ctx context.Context, a *account, i *item) {
	call, cancel := context.WithTimeout(ctx, q.config.CallTimeout)
	outcome := q.config.Ask(call, a.name, i.key)
	cancel()
	q.mu.Lock()
	changed := a.settle(i, outcome, time.Now())
	q.mu.Unlock()
	if changed {
		q.tell(a)
	}
	q.stir()
}

func (q *Queue) tell(a *account) {
	if q.config.Changed == nil {
		return
	}
	q.mu.Lock()
	status := a.status(time.Now())
	q.mu.Unlock()
	q.config.Changed(a.name, status)
}

// AccountStatus is how an account stands.
type AccountStatus struct {
	Name     string
	Orders   int // that are waited for, those being asked about included
	Due      int // whose time has come
	Open     int // that are being asked about
	Next     time.Time
	Failures int // in a row
	// OpenUntil is when the account is tried again after its circuit has opened;
	// zero while it is closed. Reason is why it opened.
	OpenUntil   time.Time
	Reason      string
	PausedUntil time.Time
	PausedFor   string
}

// Status lists the accounts by name.
func (q *Queue) Status() []AccountStatus {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	all := make([]AccountStatus, 0, len(q.accounts))
	for _, a := range q.accounts {
		all = append(all, a.status(now))
	}
	slices.SortFunc(all, func(a, b AccountStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// items is a heap by time.
type items []*item

type item struct {
	key   string
	at    time.Time
	place int // in the heap; -1 while it is being asked about
	// Of an item that is being asked about: it is to be asked again at a moment, or
	// not at all.
	again   time.Time
	removed bool
}

func (s items) Len() int           { return len(s) }
func (s items) Less(i, j int) bool { return s[i].at.Before(s[j].at) }
func (s items) Swap(i, j int)      { s[i], s[j] = s[j], s[i]; s[i].place, s[j].place = i, j }
func (s *items) Push(x any)        { i := x.(*item); i.place = len(*s); *s = append(*s, i) }
func (s *items) Pop() any {
	old := *s
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*s, last.place = old[:len(old)-1], -1
	return last
}

var _ heap.Interface = (*items)(nil)
