package history

import (
	"cmp"
	"slices"
)

// Gap is a range of log indexes whose facts a journal does not have, with both
// ends.
type Gap struct {
	From, To uint64
}

// Gaps are ranges of log indexes, in order, with at least one index between any
// two. The functions below take and give nothing else; see [Union].
type Gaps []Gap

// Union is what is in any of some ranges, which may touch, overlap and be in any
// order. Those whose end is before their beginning hold nothing.
func Union(ranges ...Gap) Gaps {
	sorted := slices.DeleteFunc(slices.Clone(ranges), func(g Gap) bool { return g.From > g.To })
	slices.SortFunc(sorted, func(a, b Gap) int { return cmp.Compare(a.From, b.From) })
	var out Gaps
	for _, g := range sorted {
		// One that begins at 0 is the first, or begins where the last one does.
		if n := len(out); n > 0 && (g.From <= out[n-1].To || g.From-1 == out[n-1].To) {
			out[n-1].To = max(out[n-1].To, g.To)
			continue
		}
		out = append(out, g)
	}
	return out
}

// Count is how many indexes are in g.
func (g Gaps) Count() (n uint64) {
	for _, one := range g {
		n += one.To - one.From + 1
	}
	return n
}

// And is what is in g and in other.
func (g Gaps) And(other Gaps) (both Gaps) {
	for len(g) > 0 && len(other) > 0 {
		if from, to := max(g[0].From, other[0].From), min(g[0].To, other[0].To); from <= to {
			both = append(both, Gap{from, to})
		}
		if g[0].To < other[0].To {
			g = g[1:]
		} else {
			other = other[1:]
		}
	}
	return both
}

// Minus is what is in g and not in other.
func (g Gaps) Minus(other Gaps) (rest Gaps) {
	for _, one := range g {
		for len(other) > 0 && other[0].To < one.From {
			other = other[1:]
		}
		left := true // of one, from its present beginning on
		for _, taken := range other {
			if taken.From > one.To {
				break
			}
			if taken.From > one.From {
				rest = append(rest, Gap{one.From, taken.From - 1})
			}
			if left = taken.To < one.To; !left {
				break
			}
			one.From = taken.To + 1
		}
		if left {
			rest = append(rest, one)
		}
	}
	return rest
}

// covers says whether all of one is in g.
func (g Gaps) covers(one Gap) bool {
	return slices.ContainsFunc(g, func(gap Gap) bool { return gap.From <= one.From && one.To <= gap.To })
}

// Loss is what would be lost of the history of a cluster without one of its nodes.
type Loss struct {
	Entries uint64 // of the log, whose facts no other node has that answers
	// Answers tells that the node said itself that it has them. Else it may.
	Answers bool
	Silent  []string // other nodes, which may have them too
}
