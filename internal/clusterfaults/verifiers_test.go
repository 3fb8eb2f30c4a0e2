package clusterfaults

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/internal/clusterfaults/linear"
)

func at(index uint64) linear.Place { return linear.Place{After: index - 1, Upto: index} }

func revoked(index uint64, token string) fleet.Fact {
	return fleet.Fact{Index: index, Kind: fleet.KindEnrollmentTokenRevoked, Object: token}
}

func deleted(index uint64) fleet.Fact {
	return fleet.Fact{Index: index, Kind: fleet.KindAssignmentDeleted, Object: "web"}
}

// What the verifiers of facts must not let pass. That of the order of operations
// is in package linear.
func TestTheVerifiersOfFacts(t *testing.T) {
	once := func(l *ledger) *claim { return l.once(fleet.KindEnrollmentTokenRevoked, "t") }
	counted := func(l *ledger) *claim { return l.count(fleet.KindAssignmentDeleted, "web") }
	for name, c := range map[string]struct {
		told            func(l *ledger)
		facts           []fleet.Fact
		missing, excess int
	}{
		"nothing":                          {func(*ledger) {}, nil, 0, 0},
		"told, and there":                  {func(l *ledger) { once(l).told(at(1)) }, []fleet.Fact{revoked(1, "t")}, 0, 0},
		"told twice, and there once":       {func(l *ledger) { once(l).told(at(1)); once(l).told(at(2)) }, []fleet.Fact{revoked(1, "t")}, 0, 0},
		"told, and lost":                   {func(l *ledger) { once(l).told(at(1)) }, nil, 1, 0},
		"told, and there twice":            {func(l *ledger) { once(l).told(at(1)) }, []fleet.Fact{revoked(1, "t"), revoked(2, "t")}, 0, 1},
		"nobody asked":                     {func(*ledger) {}, []fleet.Fact{revoked(1, "t")}, 0, 1},
		"not known, and there":             {func(l *ledger) { once(l) }, []fleet.Fact{revoked(1, "t")}, 0, 0},
		"not known, and not there":         {func(l *ledger) { once(l) }, nil, 0, 0},
		"not known, and there twice":       {func(l *ledger) { once(l) }, []fleet.Fact{revoked(1, "t"), revoked(2, "t")}, 0, 1},
		"refused, and there":               {func(l *ledger) { once(l).refused() }, []fleet.Fact{revoked(1, "t")}, 0, 1},
		"denied, and there":                {func(l *ledger) { once(l).denied(at(1)) }, []fleet.Fact{revoked(1, "t")}, 0, 1},
		"as often as told":                 {func(l *ledger) { counted(l).told(at(1)); counted(l).told(at(2)) }, []fleet.Fact{deleted(1), deleted(2)}, 0, 0},
		"less often than told":             {func(l *ledger) { counted(l).told(at(1)); counted(l).told(at(2)) }, []fleet.Fact{deleted(1)}, 1, 0},
		"more often than told":             {func(l *ledger) { counted(l).told(at(1)) }, []fleet.Fact{deleted(1), deleted(2)}, 0, 1},
		"more often, which may be":         {func(l *ledger) { counted(l).told(at(1)); counted(l) }, []fleet.Fact{deleted(1), deleted(2)}, 0, 0},
		"more often than may be":           {func(l *ledger) { counted(l).told(at(1)); counted(l) }, []fleet.Fact{deleted(1), deleted(2), deleted(3)}, 0, 1},
		"of something that nobody follows": {func(*ledger) {}, []fleet.Fact{{Index: 1, Kind: fleet.KindStateRestored}}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			c.told(l)
			missing, excess := l.compare(c.facts)
			assert.Len(t, missing, c.missing)
			assert.Len(t, excess, c.excess)
		})
	}
}

// A loss of what stands behind entry 10 and before entry 20 is looked at from both
// sides.
func TestTheVerifiersOfFactsKnowWhatIsLost(t *testing.T) {
	loss := linear.Loss{After: 10, Before: 20, Kept: map[[16]byte]bool{{1}: true}}
	for name, c := range map[string]struct {
		at            linear.Place
		gone          int
		before, after [2]int // the least and the most of facts
	}{
		"before it":                     {at(10), 0, [2]int{1, 1}, [2]int{1, 1}},
		"in it":                         {at(11), 1, [2]int{1, 1}, [2]int{0, 0}},
		"in it, and in what is kept":    {linear.Place{Command: [16]byte{1}, After: 10, Upto: 11}, 0, [2]int{1, 1}, [2]int{0, 1}},
		"before it or in it":            {linear.Place{After: 9, Upto: 11}, 0, [2]int{1, 1}, [2]int{0, 1}},
		"in it or behind it":            {linear.Place{After: 18, Upto: 20}, 0, [2]int{0, 1}, [2]int{0, 1}},
		"behind it or in its end":       {at(20), 0, [2]int{0, 1}, [2]int{0, 1}},
		"behind it":                     {at(21), 0, [2]int{0, 0}, [2]int{1, 1}},
		"nobody knows whether it is in": {linear.Place{Upto: 30}, 0, [2]int{0, 1}, [2]int{0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			l.once(fleet.KindEnrollmentTokenRevoked, "t").told(c.at)
			before, gone := l.lose(loss)
			assert.Equal(t, c.gone, gone)
			for _, side := range []struct {
				ledger *ledger
				want   [2]int
			}{{before, c.before}, {l, c.after}} {
				least, most := side.ledger.facts[string(fleet.KindEnrollmentTokenRevoked)+" t"].bounds()
				assert.Equal(t, side.want, [2]int{least, most})
			}
		})
	}
}

// Two nodes that won the same term are noticed, by what Raft writes.
func TestTheVerifierOfLeaders(t *testing.T) {
	leads := newLeads()
	won := func(node string, term uint64) {
		slog.New(&watcher{leads: leads, node: node}).Info("election won", "term", term, "tally", 2)
	}
	won("a", 1)
	won("b", 2)
	won("b", 2)
	terms, twice := leads.counted()
	assert.Equal(t, 2, terms)
	assert.Zero(t, twice)
	won("c", 2)
	terms, twice = leads.counted()
	assert.Equal(t, 2, terms)
	assert.Equal(t, 1, twice)
}
