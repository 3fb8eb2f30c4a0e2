package trail

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
)

// Kinds of facts that mean something to the chain.
const (
	// KindBegun is the first fact of the chain.
	KindBegun = "audit.chain_begun"
	// KindRestored may leave out numbers: those of the trail that belongs to the state
	// that was restored.
	KindRestored = "state.restored"
)

// Fault is what is wrong with a number.
type Fault string

// Faults.
const (
	FaultAltered  Fault = "altered"   // its content does not give its hash
	FaultMissing  Fault = "missing"   // it is not there
	FaultOrder    Fault = "reordered" // it stands behind one that comes after it
	FaultTwice    Fault = "twice"
	FaultUnlinked Fault = "unlinked" // it was written after another fact than the one that stands before it
	FaultNoHash   Fault = "no_hash"  // it has none, and the chain had begun
	FaultAnchor   Fault = "anchor"   // it is not the fact that is known from elsewhere
	FaultUnread   Fault = "unread"   // where it should be is something that cannot be read
)

// A Break is a place at which the trail is not what was written.
type Break struct {
	Fault  Fault  `json:"fault"`
	Number uint64 `json:"number"`
	// Last is the last one of a range of missing numbers; equal to Number otherwise.
	Last   uint64 `json:"last"`
	Detail string `json:"detail"`
}

// maxBreaks bounds how many are told: one that was found makes all the others doubtful.
const maxBreaks = 100

// An Anchor is the hash of a number as somebody knows it from elsewhere.
type Anchor struct {
	Number uint64
	Hash   Hash
	From   string // who says so
}

// A Jump is where the numbers of the trail leave some out, because the state was
// replaced by one whose trail had them.
type Jump struct {
	After  uint64 `json:"after"`
	Number uint64 `json:"number"`
}

// Report is what came of a verification.
type Report struct {
	// First and Last are the first and the last number, 0 if there was no fact.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	Hash  Hash   `json:"hash"` // of the last one
	Facts uint64 `json:"facts"`
	// NotChained counts the facts of before the chain, at the beginning; ChainedFrom is
	// the first number that the chain covers, 0 if it covers none.
	NotChained  uint64 `json:"not_chained,omitempty"`
	ChainedFrom uint64 `json:"chained_from,omitempty"`
	// Open says that the chain goes on before the first fact, which was not looked at.
	Open    bool     `json:"open,omitempty"`
	Jumps   []Jump   `json:"jumps,omitempty"`
	Anchors []uint64 `json:"anchors,omitempty"` // numbers whose hash is as it is known from elsewhere
	Breaks  []Break  `json:"breaks,omitempty"`
	// MoreBreaks counts those that are not told.
	MoreBreaks uint64 `json:"more_breaks,omitempty"`
}

// Broken reports whether something is wrong.
func (r *Report) Broken() bool { return len(r.Breaks) > 0 }

// A Verifier is given the facts of a trail one after the other, the oldest first, and
// finds what is wrong with them. It keeps nothing but the last one, and what is wrong.
type Verifier struct {
	from    uint64
	anchors []Anchor // by number
	report  Report
	last    Record // of the highest number so far
	missing []Break
}

// NewVerifier makes a verifier of a trail that has to begin with a number; 0 lets it
// begin anywhere. Anchors are looked at as the trail comes to them.
func NewVerifier(from uint64, anchors ...Anchor) *Verifier {
	anchors = slices.Clone(anchors)
	slices.SortStableFunc(anchors, func(a, b Anchor) int { return cmp.Compare(a.Number, b.Number) })
	return &Verifier{from: from, anchors: anchors}
}

// Add looks at the next fact.
func (v *Verifier) Add(r Record) {
	v.report.Facts++
	if r.Number == 0 {
		v.fail(FaultAltered, 0, fmt.Sprintf("the fact of log entry %d.%d has no number", r.Index, r.Ordinal))
		return
	}
	if v.last.Number == 0 {
		v.first(&r)
		return
	}
	switch {
	case r.Number == v.last.Number:
		v.fail(FaultTwice, r.Number, "it is there twice")
		return
	case r.Number < v.last.Number:
		v.late(&r)
		return
	}
	linked := true
	if r.Number > v.last.Number+1 {
		if r.Kind == KindRestored && r.Prev == v.last.Hash {
			v.report.Jumps = append(v.report.Jumps, Jump{After: v.last.Number, Number: r.Number})
		} else {
			v.found(&v.missing, Break{Fault: FaultMissing, Number: v.last.Number + 1, Last: r.Number - 1,
				Detail: fmt.Sprintf("number %d comes after number %d", r.Number, v.last.Number)})
			linked = false // not to what is here
		}
	}
	if r.Index < v.last.Index || r.Index == v.last.Index && r.Ordinal <= v.last.Ordinal {
		v.fail(FaultOrder, r.Number, fmt.Sprintf("it is of log entry %d.%d, and number %d before it of %d.%d", r.Index, r.Ordinal, v.last.Number, v.last.Index, v.last.Ordinal))
	}
	v.chain(&r, linked)
	v.last = r
}

// first looks at the fact that the trail begins with.
func (v *Verifier) first(r *Record) {
	v.report.First = r.Number
	if v.from > 0 && r.Number > v.from && r.follows() >= v.from {
		v.found(&v.missing, Break{Fault: FaultMissing, Number: v.from, Last: r.Number - 1,
			Detail: fmt.Sprintf("the trail begins with number %d", r.Number)})
	}
	if v.from > 0 && r.Number < v.from {
		v.fail(FaultOrder, r.Number, fmt.Sprintf("the facts from number %d on were asked for", v.from))
	}
	v.chain(r, false)
	v.last = *r
}

// follows is the number of the fact before, 0 if there was none. A restore that is in the
// chain says which one that was; of one that came before the chain, nobody knows.
func (r *Record) follows() uint64 {
	if r.Kind != KindRestored {
		return r.Number - 1
	}
	if r.Hash.IsZero() {
		return 0
	}
	var before struct {
		Number *uint64 `json:"audit_number"`
	}
	if err := json.Unmarshal(r.Before, &before); err != nil || before.Number == nil {
		return r.Number - 1
	}
	return *before.Number
}

// late looks at a fact that stands behind one with a higher number.
func (v *Verifier) late(r *Record) {
	at := slices.IndexFunc(v.missing, func(b Break) bool { return b.Number <= r.Number && r.Number <= b.Last })
	if at < 0 {
		v.fail(FaultTwice, r.Number, fmt.Sprintf("it is there again behind number %d", v.last.Number))
		return
	}
	gap := v.missing[at]
	var parts []Break
	if gap.Number < r.Number {
		parts = append(parts, Break{gap.Fault, gap.Number, r.Number - 1, gap.Detail})
	}
	if r.Number < gap.Last {
		parts = append(parts, Break{gap.Fault, r.Number + 1, gap.Last, gap.Detail})
	}
	if len(v.missing)+len(parts)-1 <= maxBreaks { // else the gap stays whole: enough is wrong
		v.missing = slices.Replace(v.missing, at, at+1, parts...)
	}
	v.fail(FaultOrder, r.Number, fmt.Sprintf("it stands behind number %d", v.last.Number))
	v.content(r)
}

// chain looks at the hashes of a fact whose turn it is. linked says that the one before
// it is v.last.
func (v *Verifier) chain(r *Record, linked bool) {
	begun := v.report.ChainedFrom > 0
	switch {
	case r.Hash.IsZero() && begun:
		v.fail(FaultNoHash, r.Number, fmt.Sprintf("it has no hash, and the chain begins with number %d", v.report.ChainedFrom))
	case r.Hash.IsZero():
		v.report.NotChained++
		if !r.Prev.IsZero() {
			v.fail(FaultNoHash, r.Number, "it has no hash, and was written after a fact that has one")
		}
	default:
		if !begun {
			v.report.ChainedFrom = r.Number
			// What stands before it has no hash, or is not here.
			v.report.Open = v.last.Number == 0 && !r.Prev.IsZero()
		}
		if !v.content(r) {
			break
		}
		switch {
		case r.Prev.IsZero() != (r.Kind == KindBegun), r.Number == 1 && !r.Prev.IsZero():
			v.fail(FaultUnlinked, r.Number, "the chain begins with one fact of the kind "+KindBegun+", and no other one")
		case begun && linked && r.Prev != v.last.Hash:
			v.fail(FaultUnlinked, r.Number, fmt.Sprintf("it was written after a fact with the hash %s, and that of number %d is %s: that one or one before it was replaced",
				r.Prev, v.last.Number, v.last.Hash))
		case !begun && linked && !r.Prev.IsZero():
			v.fail(FaultNoHash, v.last.Number, fmt.Sprintf("it has no hash, and number %d was written after one that had", r.Number))
		}
	}
	for len(v.anchors) > 0 && v.anchors[0].Number <= r.Number {
		v.anchor(r)
	}
}

// content compares a fact with its hash.
func (v *Verifier) content(r *Record) bool {
	if r.Hash.IsZero() {
		return true
	}
	sum, err := r.Sum()
	switch {
	case err != nil:
		v.fail(FaultAltered, r.Number, err.Error())
	case sum != r.Hash:
		v.fail(FaultAltered, r.Number, "its content gives the hash "+sum.String()+", and it has "+r.Hash.String())
	default:
		return true
	}
	return false
}

// anchor compares the first anchor with the fact that has its number, or comes after it.
func (v *Verifier) anchor(r *Record) {
	a := v.anchors[0]
	v.anchors = v.anchors[1:]
	switch {
	case a.Number != r.Number && v.last.Number == 0:
		v.fail(FaultAnchor, a.Number, fmt.Sprintf("%s knows its hash, and the facts that were looked at begin with number %d", a.From, r.Number))
	case a.Number != r.Number:
		v.fail(FaultAnchor, a.Number, fmt.Sprintf("%s knows its hash, and there is no such number", a.From))
	case a.Hash != r.Hash:
		v.fail(FaultAnchor, a.Number, fmt.Sprintf("%s knows it with the hash %s, and here it has %s: it or one before it was replaced", a.From, a.Hash, r.Hash))
	case !slices.Contains(v.report.Anchors, a.Number):
		v.report.Anchors = append(v.report.Anchors, a.Number)
	}
}

func (v *Verifier) fail(fault Fault, number uint64, detail string) {
	v.found(&v.report.Breaks, Break{fault, number, number, detail})
}

// found keeps what is wrong, up to a bound.
func (v *Verifier) found(list *[]Break, b Break) {
	if len(*list) == maxBreaks {
		v.report.MoreBreaks++
		return
	}
	*list = append(*list, b)
}

// Unread notes that what comes next cannot be read, and why.
func (v *Verifier) Unread(why string) { v.fail(FaultUnread, v.last.Number+1, why) }

// Last is the number that the verifier has come to.
func (v *Verifier) Last() uint64 { return v.last.Number }

// End is what came of it, once there are no more facts.
func (v *Verifier) End() *Report {
	for i, a := range v.anchors { // beyond the end
		if i > 0 && a.Number == v.anchors[i-1].Number {
			continue // another one who knows it
		}
		v.found(&v.missing, Break{Fault: FaultMissing, Number: v.last.Number + 1, Last: a.Number,
			Detail: fmt.Sprintf("the trail ends with number %d, and %s knows number %d", v.last.Number, a.From, a.Number)})
	}
	v.anchors = nil
	r := v.report
	r.Last, r.Hash = v.last.Number, v.last.Hash
	breaks := slices.Concat(v.missing, r.Breaks)
	slices.SortStableFunc(breaks, func(a, b Break) int { return cmp.Compare(a.Number, b.Number) })
	if len(breaks) > maxBreaks {
		r.MoreBreaks += uint64(len(breaks) - maxBreaks)
		breaks = breaks[:maxBreaks]
	}
	r.Breaks = breaks
	return &r
}
