package renewal

import (
	"maps"
	"slices"
	"sync"
)

// slots bound how many certificates are worked on at the same time. Part of
// them is set aside for each issuer, so that an authority that hangs on more
// certificates than there are slots does not hold up those of the others.
type slots struct {
	freed chan struct{} // holds at most one; says that a slot was given back

	mu    sync.Mutex // guards what follows
	total int
	// reserve is how many each served issuer finds whatever the others do; 0 if
	// there are more issuers than slots.
	reserve int
	served  map[string]bool
	used    map[string]int // also by issuers that are not served any more
	free    int            // below zero while more are used than there are now
}

// newSlots sets half of the slots aside, in equal parts and at least one for
// each issuer. The other half, or all of them for a single issuer, is for who
// comes first.
func newSlots(total int, issuers []string) *slots {
	s := &slots{total: total, free: total, freed: make(chan struct{}, 1), used: make(map[string]int)}
	s.serve(issuers)
	return s
}

// serve sets slots aside for these issuers from now on. What is taken already
// is given back like any other.
func (s *slots) serve(issuers []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served = make(map[string]bool, len(issuers))
	for _, issuer := range issuers {
		s.served[issuer] = true
	}
	s.divide()
}

// resize changes how many there are. What is taken already stays taken.
func (s *slots) resize(total int) {
	s.mu.Lock()
	s.free += total - s.total
	s.total = total
	s.divide()
	s.mu.Unlock()
	s.tell() // there may be more than before
}

func (s *slots) divide() {
	s.reserve = 0
	if n := len(s.served); n > 0 && n <= s.total {
		s.reserve = max(s.total/(2*n), 1)
	}
}

// take takes a slot for a certificate of that issuer, if one is left for it.
func (s *slots) take(issuer string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	owed := 0
	for other := range s.served {
		if other != issuer {
			owed += max(s.reserve-s.used[other], 0)
		}
	}
	if s.free <= owed {
		return false
	}
	s.free--
	s.used[issuer]++
	return true
}

// takeUpTo is take for an issuer of which no more than limit certificates are
// worked on at the same time; 0 is no limit.
func (s *slots) takeUpTo(issuer string, limit int) bool {
	s.mu.Lock()
	full := limit > 0 && s.used[issuer] >= limit
	s.mu.Unlock()
	return !full && s.take(issuer) // only one goroutine takes
}

func (s *slots) give(issuer string) {
	s.mu.Lock()
	s.free++
	if s.used[issuer]--; s.used[issuer] == 0 {
		delete(s.used, issuer)
	}
	s.mu.Unlock()
	s.tell()
}

func (s *slots) tell() {
	select {
	case s.freed <- struct{}{}:
	default: // it is said already
	}
}

// full reports whether no issuer would get one.
func (s *slots) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free <= 0
}

// queue is what is due of one issuer, the most urgent first.
type queue struct {
	issuer string
	limit  int // of those that are worked on at the same time
	names  []string
}

// queues are those of all issuers, in the order in which something of them was due.
type queues struct {
	byIssuer map[string]*queue
	order    []*queue
}

func newQueues() *queues { return &queues{byIssuer: make(map[string]*queue)} }

// add puts a certificate at the end of the queue of its issuer.
func (all *queues) add(m *managed, name string) {
	first := m.first()
	q := all.byIssuer[first.Name]
	if q == nil {
		q = &queue{issuer: first.Name}
		all.byIssuer[first.Name] = q
		all.order = append(all.order, q)
	}
	q.limit = first.Limits.Concurrency
	q.names = append(q.names, name)
}

// begin begins what the queues hold, one of each issuer in turn, as far as there
// are slots, and returns how many are left. Each is begun in a slot that is taken.
func (all *queues) begin(s *slots, stopped func() bool, one func(issuer, name string)) (left int) {
	for going := true; going; {
		going, left = false, 0
		for _, q := range all.order {
			if len(q.names) > 0 && !stopped() && s.takeUpTo(q.issuer, q.limit) {
				name := q.names[0]
				q.names = q.names[1:]
				one(q.issuer, name)
				going = true
			}
			left += len(q.names)
		}
	}
	return left
}

// queues sorts names by issuer and keeps their order.
func (e *Engine) queues(names []string) *queues {
	all := newQueues()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, name := range names {
		if m, ok := e.workable(name); ok { // otherwise its record does not follow the configuration yet
			all.add(m, name)
		}
	}
	return all
}

// issuerNames lists the issuers that managed certificates use.
func issuerNames(all map[string]*managed) []string {
	names := make(map[string]bool)
	for _, m := range all {
		names[m.first().Name] = true
	}
	return slices.Collect(maps.Keys(names))
}
