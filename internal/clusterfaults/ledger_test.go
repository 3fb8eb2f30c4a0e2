package clusterfaults

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/internal/clusterfaults/linear"
)

// ledger is which facts must and may be in the journals, by what clients asked
// and were told.
type ledger struct {
	mu    sync.Mutex
	facts map[string]*entry
}

// entry is what is known of one fact.
type entry struct {
	// counted is set for what may happen many times, and is there as often.
	counted bool
	// claims are those who may have made it: they were not answered, or not yet.
	claims int
	told   []linear.Place // where it stands, for each who was told that it is there
	denied []linear.Place // where those stand who were told that they have not made it
}

// least and most are how often the fact must and may be there.
func (e *entry) bounds() (least, most int) {
	least, most = len(e.told), len(e.told)+e.claims
	if !e.counted {
		least, most = min(least, 1), min(most, 1)
	}
	return least, most
}

func newLedger() *ledger { return &ledger{facts: map[string]*entry{}} }

// claim is one who wants a fact to be there. It is ended by told or by refused,
// and stays for good if neither is known.
type claim struct {
	ledger *ledger
	entry  *entry
}

// once begins a claim to a fact that is there once, however many claim it.
func (l *ledger) once(kind fleet.Kind, what string) *claim { return l.claim(kind, what, false) }

// count begins a claim to a fact that is there once more for it.
func (l *ledger) count(kind fleet.Kind, what string) *claim { return l.claim(kind, what, true) }

func (l *ledger) claim(kind fleet.Kind, what string, counted bool) *claim {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := string(kind) + " " + what
	if l.facts[name] == nil {
		l.facts[name] = &entry{counted: counted}
	}
	l.facts[name].claims++
	return &claim{ledger: l, entry: l.facts[name]}
}

// told: the fact is there. A nil claim is to nothing.
func (c *claim) told(at linear.Place) {
	if c != nil {
		c.ledger.mu.Lock()
		defer c.ledger.mu.Unlock()
		c.entry.claims--
		c.entry.told = append(c.entry.told, at)
	}
}

// denied: this one was told that it has not made it.
func (c *claim) denied(at linear.Place) {
	if c != nil {
		c.ledger.mu.Lock()
		defer c.ledger.mu.Unlock()
		c.entry.claims--
		c.entry.denied = append(c.entry.denied, at)
	}
}

// refused: this one has certainly not made it, and never will.
func (c *claim) refused() {
	if c != nil {
		c.ledger.mu.Lock()
		defer c.ledger.mu.Unlock()
		c.entry.claims--
	}
}

// lose takes a loss into account. It returns the ledger of before it, and counts
// the facts that were told and are lost.
func (l *ledger) lose(loss linear.Loss) (before *ledger, gone int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before = newLedger()
	for name, e := range l.facts {
		copied := *e
		// Whoever was told something behind the loss may have done it before the loss
		// too: what is undone is done again for who repeats it, maybe to another end.
		later := func(at linear.Place) bool {
			if at.Upto >= loss.Before && at.After < loss.Before {
				copied.claims++
			}
			return at.Upto >= loss.Before
		}
		copied.told = slices.DeleteFunc(slices.Clone(e.told), later)
		copied.denied = slices.DeleteFunc(slices.Clone(e.denied), later)
		before.facts[name] = &copied
		told := len(e.told)
		unsure := func(at linear.Place) bool {
			fate := loss.Fate(at)
			if fate == linear.Unsure {
				e.claims++
			}
			return fate != linear.Kept
		}
		claims := e.claims
		e.told = slices.DeleteFunc(e.told, unsure)
		gone += told - len(e.told) - (e.claims - claims)
		e.denied = slices.DeleteFunc(e.denied, unsure)
	}
	return before, gone
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
	counted, indexes := map[string]int{}, map[string][]uint64{}
	for _, f := range facts {
		if name := factName(f); name != "" {
			counted[name]++
			indexes[name] = append(indexes[name], f.Index)
		}
	}
	for name, e := range l.facts {
		if least, _ := e.bounds(); counted[name] < least {
			missing = append(missing, fmt.Sprintf("%s: %d of %d", name, counted[name], least))
		}
	}
	for name, n := range counted {
		most := 0
		if e := l.facts[name]; e != nil {
			_, most = e.bounds()
		}
		if n > most {
			excess = append(excess, fmt.Sprintf("%s: %d times, at most %d, of the entries %v, and told %+v", name, n, most, indexes[name], l.places(name)))
		}
	}
	return missing, excess
}

// places are those of a fact, as they were told.
func (l *ledger) places(name string) []linear.Place {
	if e := l.facts[name]; e != nil {
		return e.told
	}
	return nil
}

// objects are those of a kind of which somebody was told.
func (l *ledger) objects(kind fleet.Kind) (objects []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(l.facts)) {
		if object, ok := strings.CutPrefix(name, string(kind)+" "); ok && len(l.facts[name].told) > 0 {
			objects = append(objects, object)
		}
	}
	return objects
}

// len is how many facts clients were told of.
func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.facts {
		least, _ := e.bounds()
		n += least
	}
	return n
}

// orderName takes the name of an order in a history apart.
func orderName(object string) (agent, id string) {
	agent, id, _ = strings.Cut(object, "/")
	return agent, id
}
