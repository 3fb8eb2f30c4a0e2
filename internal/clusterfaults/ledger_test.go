package clusterfaults

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/certctl/certctl/coordinator/fleet"
)

// ledger is which facts must be in the journals, by what clients were told.
type ledger struct {
	mu    sync.Mutex
	facts map[string]*span
}

// span is how often a fact must and may be there.
type span struct{ least, most int }

func newLedger() *ledger { return &ledger{facts: map[string]*span{}} }

func (l *ledger) change(kind fleet.Kind, what string, fn func(*span)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := string(kind) + " " + what
	if l.facts[name] == nil {
		l.facts[name] = &span{}
	}
	fn(l.facts[name])
}

// once: it is there, and however many were told so, once.
func (l *ledger) once(kind fleet.Kind, what string) {
	l.change(kind, what, func(s *span) { s.least, s.most = 1, 1 })
}

// perhapsOnce: it may be there, once.
func (l *ledger) perhapsOnce(kind fleet.Kind, what string) {
	l.change(kind, what, func(s *span) { s.most = 1 })
}

// counted: it is there once more.
func (l *ledger) counted(kind fleet.Kind, what string) {
	l.change(kind, what, func(s *span) { s.least++; s.most++ })
}

// perhapsCounted: it may be there once more.
func (l *ledger) perhapsCounted(kind fleet.Kind, what string) {
	l.change(kind, what, func(s *span) { s.most++ })
}

// factName is the name of a fact in the ledger; "" for one that is not in it.
func factName(f fleet.Fact) string {
	switch f.Kind {
	case fleet.KindEnrollmentTokenCreated, fleet.KindEnrollmentTokenRevoked, fleet.KindAgentEnrolled, fleet.KindAssignmentDeleted:
		return string(f.Kind) + " " + f.Object
	case fleet.KindOrderRequested, fleet.KindOrderIssued:
		return string(f.Kind) + " " + f.Agent + "/" + f.Object
	case fleet.KindAssignmentCreated, fleet.KindAssignmentChanged:
		var detail struct{ Selector string }
		if err := json.Unmarshal(f.Detail, &detail); err != nil {
			return string(f.Kind) + " unreadable: " + err.Error()
		}
		return string(fleet.KindAssignmentChanged) + " " + f.Object + " " + detail.Selector
	}
	return ""
}

// compare holds facts against the ledger. It returns which acknowledged facts
// are missing, and which are there too often, or although nobody asked.
func (l *ledger) compare(facts []fleet.Fact) (missing, excess []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	counted := map[string]int{}
	for _, f := range facts {
		if name := factName(f); name != "" {
			counted[name]++
		}
	}
	for name, want := range l.facts {
		if counted[name] < want.least {
			missing = append(missing, fmt.Sprintf("%s: %d of %d", name, counted[name], want.least))
		}
	}
	for name, n := range counted {
		if want := l.facts[name]; want == nil || n > want.most {
			excess = append(excess, fmt.Sprintf("%s: %d times", name, n))
		}
	}
	return missing, excess
}

// len is how many different facts clients were told of.
func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, s := range l.facts {
		n += s.least
	}
	return n
}

// orderName takes the name of an order in a history apart.
func orderName(object string) (agent, id string) {
	agent, id, _ = strings.Cut(object, "/")
	return agent, id
}
