package revocation

import (
	"container/heap"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// DefaultInterval is how often each certificate is checked.
	DefaultInterval = 6 * time.Hour

	// look is how often the queue is looked at, at most a tenth of the interval.
	look = 30 * time.Second
	// concurrency is how many certificates are checked at a time. Renewals have
	// slots of their own, which this never takes.
	concurrency = 4
	// firstRetry is the pause after a failure. It doubles up to the interval.
	firstRetry = 15 * time.Minute
	// soonest is the shortest pause before a certificate is checked again,
	// whatever an answer says of its own life.
	soonest = 10 * time.Minute
	// reportAfter is how long a place must have been of no use before that is
	// reported.
	reportAfter = 24 * time.Hour
	// maxSources bounds the places whose failures are remembered.
	maxSources = 256
)

// Config of a Loop. Names, Certificate, Revoked, Report and Log are required.
type Config struct {
	// Names lists the managed certificates.
	Names func() []string
	// Certificate is the record of one; false if there is none.
	Certificate func(name string) (*store.Certificate, bool, error)
	// Revoked is told of a certificate in service that was revoked. It is told
	// again with the next check until that certificate is replaced.
	Revoked func(name, serial string, at time.Time, reason int) error
	// Report takes facts for the coordinator.
	Report func(wire.Event) error
	// Key tells this host from others, so that they do not all ask in the same
	// moments. It should stay the same over restarts.
	Key string
	// Interval is how often each certificate is checked, 10 % more or less; 0
	// stands for DefaultInterval, and a negative one for never.
	Interval time.Duration
	// Now is the trusted time; nil is the wall clock.
	Now func() time.Time
	Log *slog.Logger

	// public replaces trustedByTheSystem in tests.
	public func([]*x509.Certificate) bool
}

// Loop checks the certificates in service, each in its turn. Its methods may be
// called from several goroutines.
type Loop struct {
	config Config
	check  func(ctx context.Context, name string, chain []*x509.Certificate) finding
	fetch  *fetcher
	log    *slog.Logger

	mu      sync.Mutex // guards what follows
	queue   queue
	queued  map[string]*turn
	results map[string]*Check
	sources map[string]*source
}

// Check is what the last check of a certificate came to.
type Check struct {
	// Fingerprint is of the certificate that was checked.
	Fingerprint string    `json:"fingerprint"`
	Result      Result    `json:"result"`
	CheckedAt   time.Time `json:"checked_at"`
	Source      string    `json:"source,omitempty"` // the responder or list that was asked last
	Detail      string    `json:"detail,omitempty"` // why it failed or was skipped
	// FailingSince is when the first check failed since the last one that did not.
	FailingSince time.Time `json:"failing_since,omitzero"`
	// GoodAt is the last check that found that it was not revoked.
	GoodAt time.Time `json:"good_at,omitzero"`
	NextAt time.Time `json:"next_at,omitzero"`

	failures int
}

// source is a place that is of no use.
type source struct {
	since, last time.Time
	reported    bool
}

// New checks the configuration.
func New(c Config) (*Loop, error) {
	if c.Names == nil || c.Certificate == nil || c.Revoked == nil || c.Report == nil || c.Log == nil {
		return nil, errors.New("revocation checks: Names, Certificate, Revoked, Report and Log are all required")
	}
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.public == nil {
		c.public = trustedByTheSystem(c.Now)
	}
	fetch := newFetcher()
	return &Loop{
		config: c, fetch: fetch, log: c.Log, check: newChecker(fetch, c.Now, c.Interval, c.public).of,
		queued: make(map[string]*turn), results: make(map[string]*Check), sources: make(map[string]*source),
	}, nil
}

// Run checks until ctx is done.
func (l *Loop) Run(ctx context.Context) error {
	defer l.fetch.close()
	if l.config.Interval < 0 {
		<-ctx.Done()
		return nil
	}
	jitter.Loop(ctx, min(look, l.config.Interval/10), jitter.DefaultSchedulerJitter, nil, l.round)
	return nil
}

// Result is the last check of a certificate; false if it was not checked in this
// run of the agent, or another one is in service now.
func (l *Loop) Result(name, fingerprint string) (Check, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.results[name]
	if c == nil || c.Fingerprint != fingerprint {
		return Check{}, false
	}
	return *c, true
}

// round checks what is due.
func (l *Loop) round(ctx context.Context) {
	now := l.now()
	l.enlist(now)
	due := l.take(now)
	names := make(chan string)
	var workers sync.WaitGroup
	for range min(concurrency, len(due)) {
		workers.Go(func() {
			for name := range names {
				l.one(ctx, name)
			}
		})
	}
	for _, name := range due {
		if ctx.Err() != nil {
			break
		}
		names <- name
	}
	close(names)
	workers.Wait()
	l.reportSources(l.now())
}

func (l *Loop) now() time.Time { return l.config.Now().Round(0).UTC() }

// enlist gives each new certificate its turn, and forgets those that are gone.
// The first turn is a place in the interval that follows from the names of host
// and certificate and not from when the agent started: a restart brings no burst,
// and puts nothing off for longer than one interval.
func (l *Loop) enlist(now time.Time) {
	names := l.config.Names()
	l.mu.Lock()
	defer l.mu.Unlock()
	present := make(map[string]bool, len(names))
	for _, name := range names {
		present[name] = true
		if l.queued[name] == nil {
			t := &turn{name: name, at: firstTurn(l.config.Key+"/"+name, l.config.Interval, now)}
			l.queued[name] = t
			heap.Push(&l.queue, t)
		}
	}
	if len(present) == len(l.queued) {
		return
	}
	for name, t := range l.queued {
		if !present[name] {
			heap.Remove(&l.queue, t.index)
			delete(l.queued, name)
			delete(l.results, name)
		}
	}
}

// firstTurn is the next of the moments that a key has in each interval, or one
// that came so shortly before that nobody may have looked then.
func firstTurn(key string, interval time.Duration, now time.Time) time.Time {
	phase := jitter.Spread(key, interval)
	into := time.Duration(now.UnixNano()) % interval
	ahead := (phase - into + interval) % interval
	if gone := interval - ahead; gone <= min(2*look, interval/10) {
		return now
	}
	return now.Add(ahead)
}

// take lists what is due, in the order of time. Each keeps its place in the queue
// until its outcome gives it another.
func (l *Loop) take(now time.Time) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var due []string
	for len(l.queue) > 0 {
		t := l.queue[0]
		// One that lies further ahead than any pause is of a clock that was wrong.
		if t.at.After(now) && t.at.Sub(now) <= 2*l.config.Interval {
			break
		}
		due = append(due, t.name)
		t.at = now.Add(l.config.Interval)
		heap.Fix(&l.queue, t.index)
	}
	return due
}

// one checks one certificate.
func (l *Loop) one(ctx context.Context, name string) {
	record, found, err := l.config.Certificate(name)
	if err != nil {
		l.log.Error("a certificate cannot be read to be checked for revocation", "certificate", name, "err", err)
		return
	}
	if !found || record.Current == nil || record.Current.ChainPEM == "" {
		return
	}
	cur := record.Current
	chain, err := pki.ParseChainPEM([]byte(cur.ChainPEM))
	if err != nil {
		l.log.Error("a certificate cannot be read to be checked for revocation", "certificate", name, "err", err)
		return
	}
	var f finding
	if cur.Revoked != nil {
		f = finding{answer: answer{result: ResultRevoked, revokedAt: cur.Revoked.At, reason: cur.Revoked.Reason}, detail: "known; its replacement is on its way"}
	} else if f = l.check(ctx, name, chain); ctx.Err() != nil {
		return // a stop is no outcome
	}
	l.settle(name, cur.Fingerprint, f)
	if f.result == ResultRevoked && cur.Revoked == nil {
		l.log.Warn("a certificate in service is revoked", "certificate", name, "serial", cur.Serial, "source", f.source, "reason", pki.ReasonName(f.reason))
		reason := f.reason
		if !pki.ValidReason(reason) {
			reason = pki.ReasonUnspecified
		}
		if err := l.config.Revoked(name, cur.Serial, f.revokedAt, reason); err != nil {
			l.log.Error("a revocation cannot be recorded; it is checked again", "certificate", name, "err", err)
			l.reschedule(name, l.now().Add(min(soonest, l.config.Interval)))
		}
	}
}

// settle remembers an outcome and draws the next turn, once.
func (l *Loop) settle(name, fingerprint string, f finding) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.results[name]
	if c == nil || c.Fingerprint != fingerprint {
		c = &Check{Fingerprint: fingerprint}
		l.results[name] = c
	}
	c.Result, c.CheckedAt, c.Source, c.Detail = f.result, now, f.source, clip(f.detail)
	pause := l.config.Interval
	if f.result == ResultFailed {
		c.failures++
		if c.FailingSince.IsZero() {
			c.FailingSince = now
		}
		pause = min(pause, firstRetry<<min(c.failures-1, 10))
		l.log.Debug("a certificate cannot be checked for revocation", "certificate", name, "source", f.source, "detail", f.detail)
	} else {
		c.failures, c.FailingSince = 0, time.Time{}
	}
	if f.result == ResultGood {
		c.GoodAt = now
	}
	next := now.Add(time.Duration(float64(pause) * (0.9 + 0.2*rand.Float64()))) //nolint:gosec // spreads load, guards nothing
	// A newer answer is worth asking for once it is there; not by everybody at once.
	if !f.nextUpdate.IsZero() {
		newer := f.nextUpdate.Add(time.Duration(float64(soonest) * rand.Float64())) //nolint:gosec // as above
		if newer.Before(next) {
			next = newer
		}
	}
	if earliest := now.Add(min(soonest, l.config.Interval/2)); next.Before(earliest) {
		next = earliest
	}
	l.move(name, next)
	l.note(f, now)
}

func (l *Loop) reschedule(name string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.move(name, at)
}

func (l *Loop) move(name string, at time.Time) {
	if t := l.queued[name]; t != nil {
		t.at = at
		heap.Fix(&l.queue, t.index)
	}
	if c := l.results[name]; c != nil {
		c.NextAt = at
	}
}

// note remembers whether a place was of use.
func (l *Loop) note(f finding, now time.Time) {
	switch {
	case f.source == "":
	case f.result != ResultFailed:
		delete(l.sources, f.source)
	case l.sources[f.source] != nil:
		l.sources[f.source].last = now
	case len(l.sources) < maxSources:
		l.sources[f.source] = &source{since: now, last: now}
	}
}

// reportSources reports each place once that was of no use for a day.
func (l *Loop) reportSources(now time.Time) {
	var events []wire.Event
	l.mu.Lock()
	for at, s := range l.sources {
		if now.Sub(s.last) > 4*l.config.Interval {
			delete(l.sources, at) // nobody asks there any more
			continue
		}
		if !s.reported && now.Sub(s.since) >= reportAfter {
			s.reported = true
			events = append(events, wire.Event{
				Kind: wire.EventRevocationUnknown, At: now,
				Detail: clip(fmt.Sprintf("%s has been of no use since %s: whether certificates were revoked is not known", at, s.since.Format(time.RFC3339))),
			})
		}
	}
	l.mu.Unlock()
	for _, event := range events {
		l.log.Warn("revocation cannot be checked for a day", "detail", event.Detail)
		if err := l.config.Report(event); err != nil {
			l.log.Error("a fact cannot be stored", "err", err)
		}
	}
}

// clip bounds a text that comes from outside.
func clip(text string) string {
	if len(text) <= wire.MaxTextLen {
		return text
	}
	return text[:wire.MaxTextLen]
}

// A turn is when a certificate is checked next.
type turn struct {
	name  string
	at    time.Time
	index int // in the queue
}

// queue is a heap of turns, the earliest first.
type queue []*turn

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	t := x.(*turn)
	t.index = len(*q)
	*q = append(*q, t)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	*q = (*q)[:last]
	return t
}
