package renewal

import (
	"container/heap"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/agent/store"
)

// capacity is how much a host does at a time, and how much it asks of each issuer.
type capacity struct {
	concurrency int
	limits      map[string]Limits // by issuer
}

func capacityOf(subjects []*Subject) *capacity {
	c := &capacity{concurrency: DefaultConcurrency, limits: make(map[string]Limits)}
	for _, s := range subjects {
		if s.Concurrency > 0 {
			c.concurrency = s.Concurrency
		}
		for _, i := range s.Issuers {
			c.limits[i.Name] = i.Limits
		}
	}
	return c
}

func (c *capacity) clone() *capacity {
	return &capacity{concurrency: c.concurrency, limits: maps.Clone(c.limits)}
}

// rehearsedTurns stand where the engine has its store.
type rehearsedTurns map[string]store.Turns

func (r rehearsedTurns) Turns() (map[string]store.Turns, error) { return r, nil }
func (rehearsedTurns) SaveTurns(_ map[string]store.Turns) error { return nil }

// timeline is the virtual time of a drill: all certificates in one schedule, with
// the queues, the slots and the lines that the engine has.
type timeline struct {
	all      []*rehearsal // by name
	byName   map[string]*rehearsal
	schedule schedule
	queues   *queues // due, and without a slot yet
	slots    *slots
	turns    *turns
	capacity *capacity
	now, end time.Time
	// stopAt, when set, says whether an expiry for want of a limit ends the drill,
	// and stop that one did. Nothing else is to be asked of it then.
	stopAt func(limit string) bool
	stop   bool
	err    error // of a visit
}

func newTimeline(subjects []*Subject, scenario *Scenario, seen map[string]validity, c *capacity) (*timeline, error) {
	t := &timeline{
		byName: make(map[string]*rehearsal, len(subjects)), queues: newQueues(), capacity: c,
		now: scenario.From.Add(scenario.HostDown), end: scenario.From.Add(scenario.Span),
	}
	used, configured := make(rehearsedTurns), make(map[string]*managed, len(subjects))
	for _, s := range subjects {
		r := newRehearsal(s, scenario, seen, t)
		t.all = append(t.all, r)
		t.byName[r.m.Name], configured[r.m.Name] = r, r.m
		for at, i := range s.Issuers {
			if i.Turns != (store.Turns{}) {
				used[i.Name] = i.Turns
			}
			r.m.Issuers[at].Limits = c.limits[i.Name]
		}
	}
	slices.SortFunc(t.all, func(a, b *rehearsal) int { return strings.Compare(a.m.Name, b.m.Name) })
	t.turns = newTurns(used)
	t.slots = newSlots(c.concurrency, issuerNames(configured))
	return t, t.turns.load()
}

// run begins as a start of the engine does, and goes from one moment at which
// something is due to the next.
func (t *timeline) run() error {
	for _, r := range t.all {
		settle(r.rec, r.m, r.facts())
		r.at = r.rec.NextAction
		heap.Push(&t.schedule, r)
	}
	for t.now.Before(t.end) {
		if t.tick(); t.err != nil {
			return t.err
		}
		if t.stop {
			return nil
		}
		t.now = t.next()
	}
	for _, r := range t.all {
		r.pass(t.end)
		r.prospect.Unserved = r.unserved()
	}
	return nil
}

// tick begins what is due now, as far as there are slots, after what has ended.
func (t *timeline) tick() {
	for len(t.schedule) > 0 && !t.schedule[0].r.at.After(t.now) {
		r := heap.Pop(&t.schedule).(*rehearsal)
		if r.calling {
			t.visit(r, r.conclude)
		} else {
			t.due(r)
		}
	}
	for _, name := range t.turns.called(t.limits, t.now) {
		if r := t.byName[name]; r.place >= 0 && !r.calling {
			heap.Remove(&t.schedule, r.place)
			t.due(r)
		}
	}
	never := func() bool { return t.err != nil }
	t.queues.begin(t.slots, never, func(_, name string) {
		r := t.byName[name]
		t.visit(r, func() error { return untilWaiting(r.step) })
	})
}

func (t *timeline) due(r *rehearsal) {
	r.dueAt = t.now
	t.queues.add(r.m, r.m.Name)
}

func (t *timeline) limits(issuer, name string) (Limits, bool) {
	iss, ok := t.byName[name].m.issuerNamed(issuer)
	return iss.Limits, ok
}

// visit has something done for a certificate in a slot that is taken, and gives
// that back unless a call is under way after it.
func (t *timeline) visit(r *rehearsal, do func() error) {
	r.pass(t.now)
	if err := do(); err != nil {
		t.err = fmt.Errorf("certificate %q at %s: %w", r.prospect.Name, stamp(t.now), err)
		return
	}
	if r.dueAt = (time.Time{}); !r.calling {
		t.slots.give(r.m.first().Name)
		r.noteAttention()
		r.at = r.rec.NextAction
		if earliest := t.now.Add(rehearsalTick); r.at.Before(earliest) {
			r.at = earliest
		}
	}
	heap.Push(&t.schedule, r)
}

// next is the next moment at which something is due, or ends, or a turn comes.
func (t *timeline) next() time.Time {
	next := t.end
	if len(t.schedule) > 0 && t.schedule[0].r.at.Before(next) {
		next = t.schedule[0].r.at
	}
	if at := t.turns.nextCall(t.capacity.limits, t.now); !at.IsZero() && at.Before(next) {
		next = later(at, t.now.Add(rehearsalTick))
	}
	return next
}

// schedule holds what is not due yet, the earliest first. It is a heap.
type schedule []entry

// entry has the moment beside it, in nanoseconds: that is compared very often.
type entry struct {
	at int64
	r  *rehearsal
}

func (s schedule) Len() int { return len(s) }

func (s schedule) Less(i, j int) bool {
	if s[i].at != s[j].at {
		return s[i].at < s[j].at
	}
	return s[i].r.m.Name < s[j].r.m.Name
}

func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].r.place, s[j].r.place = i, j
}

// Push is for container/heap, as Pop is.
func (s *schedule) Push(x any) {
	r := x.(*rehearsal)
	r.place = len(*s)
	*s = append(*s, entry{r.at.UnixNano(), r})
}

// Pop is for container/heap.
func (s *schedule) Pop() any {
	last := len(*s) - 1
	r := (*s)[last].r
	(*s)[last] = entry{}
	*s, r.place = (*s)[:last], -1
	return r
}
