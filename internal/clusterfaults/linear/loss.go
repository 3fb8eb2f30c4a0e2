package linear

import "maps"

// Place is where in the log a change stands that was acknowledged, or what a read
// has seen: in one of the entries behind After, up to Upto. Nobody is told the
// very entry.
type Place struct {
	// Command is the change's id, the same however often it was proposed.
	Command     [16]byte
	After, Upto uint64
}

// Loss is a part of the log that a cluster does not have any more: the entries
// behind After and before Before. It goes on with the state that it had at After.
// The entry Before is what undid them, and some that stood before it there.
type Loss struct {
	After, Before uint64
	// Kept are changes that may stand somewhere else in the log too, in a part
	// that nobody had acknowledged.
	Kept map[[16]byte]bool
}

// Fate is what became of an acknowledged change.
type Fate int

// Fates.
const (
	Kept Fate = iota
	Gone
	Unsure
)

// Fate says what became of what was acknowledged at a place.
func (l Loss) Fate(p Place) Fate {
	switch {
	case p.Upto <= l.After || p.After >= l.Before:
		return Kept
	case p.After >= l.After && p.Upto < l.Before && !l.Kept[p.Command]:
		return Gone
	default:
		return Unsure
	}
}

// Lose takes a loss into account: whatever was answered by what is lost did not
// happen. It returns the history of before, which is to be checked by itself and
// in which what is under way has an unknown outcome.
func (h *History) Lose(loss Loss) (before *History) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before = &History{begun: h.begun, open: map[*Pending]bool{}, clients: h.clients}
	before.notes = append(before.notes, h.notes...)
	for p := range maps.Keys(h.open) {
		before.unknownOf(p.unknown())
	}
	var rest, unsure []operation
	for _, op := range h.ops {
		if _, ok := op.Output.(unknown); ok {
			before.ops = append(before.ops, op)
			rest = append(rest, op)
			continue
		}
		switch {
		case op.place.Upto < loss.Before:
			before.ops = append(before.ops, op)
		case op.place.After < loss.Before:
			before.unknownOf(op)
		}
		switch loss.Fate(op.place) {
		case Kept:
			rest = append(rest, op)
		case Unsure:
			unsure = append(unsure, op)
		}
	}
	before.unknown += h.unknown
	h.ops = rest
	for _, op := range unsure {
		h.unknownOf(op)
	}
	return before
}

// unknownOf adds an operation that may have happened, or not. It is that of a
// client of its own, since nothing says when it ended.
func (h *History) unknownOf(op operation) {
	h.clients++
	h.unknown++
	op.ClientId, op.Output, op.Return, op.place = h.clients, unknown{}, 0, Place{}
	h.ops = append(h.ops, op)
}
