package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Further states of an order: those at an authority that takes its time. There is a
// table of the steps between them, [orderSteps].
const (
	// OrderPlacing is claimed by a leader that is about to place it, or has.
	OrderPlacing OrderState = "placing"
	// OrderPending is at the authority, which works on it.
	OrderPending OrderState = "pending"
	// OrderNeedsPerson is at the authority, and somebody has to act.
	OrderNeedsPerson OrderState = "needs_person"
	// OrderUnknown was placed or not: nobody knows yet.
	OrderUnknown OrderState = "unknown_outcome"
	// OrderReady is issued by the authority, and the certificate not fetched yet.
	OrderReady OrderState = "ready"
	// OrderCancelled was taken back.
	OrderCancelled OrderState = "cancelled"
)

// Stage is where an order stands in the words that people see.
type Stage string

// Stages of an order.
const (
	StageRequested   Stage = "requested"
	StagePlacing     Stage = "placing"
	StagePending     Stage = "pending"
	StageNeedsPerson Stage = "needs_person"
	StageUnknown     Stage = "unknown_outcome"
	StageIssued      Stage = "issued"    // by the authority
	StageCollected   Stage = "collected" // by the coordinator
	StageDelivered   Stage = "delivered" // to the agent
	StageRejected    Stage = "rejected"
	StageCancelled   Stage = "cancelled"
)

// stages are the stages of the stored states; that of a collected order depends on
// how it ended.
var stages = map[OrderState]Stage{
	OrderRequested: StageRequested, OrderPlacing: StagePlacing, OrderPending: StagePending, OrderNeedsPerson: StageNeedsPerson,
	OrderUnknown: StageUnknown, OrderReady: StageIssued, OrderIssued: StageCollected, OrderRejected: StageRejected, OrderCancelled: StageCancelled,
}

// Stages lists all stages, in the order in which an order goes through them.
func Stages() []Stage {
	return []Stage{
		StageRequested, StagePlacing, StagePending, StageNeedsPerson, StageUnknown,
		StageIssued, StageCollected, StageDelivered, StageRejected, StageCancelled,
	}
}

// Stage is where the order stands in the words that people see.
//
// An order that its authority does not take before somebody has done something waits
// for a person like one that it has taken.
func (o *Order) Stage() Stage {
	switch {
	case o.State == OrderRequested && o.Brokering != nil && o.Brokering.Mend != "":
		return StageNeedsPerson
	case o.State != OrderCollected:
		return stages[o.State]
	}
	switch {
	case o.Problem != nil && o.Brokering != nil && !o.Brokering.CancelledAt.IsZero():
		return StageCancelled
	case o.Problem != nil:
		return StageRejected
	case o.Brokering != nil && o.Brokering.DeliveredAt.IsZero():
		return StageCollected // and its agent was retired before it came for it
	}
	return StageDelivered
}

// Brokered reports whether the order is at an issuer other than the built-in CA.
func (o *Order) Brokered() bool { return o.Issuer != builtinIssuer && o.Issuer != "" }

// Ended reports whether nothing more is to be done at the authority for the order.
func (o *Order) Ended() bool { return ended(o.State) }

func ended(s OrderState) bool {
	return s == OrderIssued || s == OrderRejected || s == OrderCancelled || s == OrderCollected
}

// Bounds of what is kept of an order at an authority.
const (
	MaxOrderRaw        = 64  // bytes of an authority's word for a state
	MaxOrderText       = 512 // bytes of a detail, a mend, an error or a note
	MaxOrderHandle     = 256 // bytes of each part of a handle
	MaxOrderCandidates = 10
)

// AbsenceSearches is how many searches that find nothing prove that an order of
// unknown outcome was not placed. The engine sees to it that they lie far enough
// apart.
const AbsenceSearches = 2

// OrderHandle is how an authority names an order; see connector.Handle, whose fields
// these are.
type OrderHandle struct {
	Order       string `cbor:"1,keyasint,omitempty"`
	Certificate string `cbor:"2,keyasint,omitempty"`
	Request     string `cbor:"3,keyasint,omitempty"`
}

// IsZero reports whether nothing is known.
func (h OrderHandle) IsZero() bool { return h == OrderHandle{} }

// OrderClaim says which leader places an order. Nobody else does.
type OrderClaim struct {
	Node string    `cbor:"1,keyasint,omitempty"`
	Term uint64    `cbor:"2,keyasint,omitempty"`
	At   time.Time `cbor:"3,keyasint,omitzero"`
}

// IsZero reports whether there is no claim.
func (c OrderClaim) IsZero() bool { return c == OrderClaim{} }

// OrderCancel is somebody's wish that an order be taken back.
type OrderCancel struct {
	By   string    `cbor:"1,keyasint,omitempty"`
	Note string    `cbor:"2,keyasint,omitempty"`
	At   time.Time `cbor:"3,keyasint"`
}

// Brokering is what is known of an order at an authority. An order that was never
// claimed has none.
//
// The first group is changed by the commands' own rules alone: what RecordOrder says
// of it counts for nothing.
type Brokering struct {
	// Reference is our name of the order at the authority; see [OrderReference].
	Reference string     `cbor:"1,keyasint,omitempty"`
	Attempt   uint32     `cbor:"2,keyasint,omitempty"` // placements begun
	Claim     OrderClaim `cbor:"3,keyasint,omitzero"`
	// Cancel is asked for, and done once the order has ended.
	Cancel           *OrderCancel `cbor:"4,keyasint,omitempty"`
	SubmittedAt      time.Time    `cbor:"5,keyasint,omitzero"` // when it was known that the authority has it
	ReadyAt          time.Time    `cbor:"6,keyasint,omitzero"`
	FetchedAt        time.Time    `cbor:"7,keyasint,omitzero"`
	DeliveredAt      time.Time    `cbor:"8,keyasint,omitzero"`
	CancelledAt      time.Time    `cbor:"9,keyasint,omitzero"`
	NeedsPersonSince time.Time    `cbor:"10,keyasint,omitzero"` // zero unless it does
	UnknownSince     time.Time    `cbor:"11,keyasint,omitzero"` // zero unless it is
	SearchedAt       time.Time    `cbor:"12,keyasint,omitzero"` // the first of Searches
	// RestoredAt is when the order came out of a backup in a state that may have been
	// overtaken: it may have been placed meanwhile.
	RestoredAt time.Time `cbor:"13,keyasint,omitzero"`

	Handle OrderHandle `cbor:"20,keyasint,omitzero"`
	// What the authority said last.
	Raw    string `cbor:"21,keyasint,omitempty"`
	Detail string `cbor:"22,keyasint,omitempty"`
	Mend   string `cbor:"23,keyasint,omitempty"`
	// Failure is our last error, "" after an answer; Failures counts those in a row.
	Failure  string    `cbor:"24,keyasint,omitempty"`
	FailedAt time.Time `cbor:"25,keyasint,omitzero"`
	Failures uint32    `cbor:"26,keyasint,omitempty"`
	// As in asyncpoll.Polling. Next is when something is to be done for the order
	// next; zero while only a person can.
	Since time.Time `cbor:"27,keyasint,omitzero"`
	Asked uint32    `cbor:"28,keyasint,omitempty"`
	Slow  bool      `cbor:"29,keyasint,omitempty"`
	Next  time.Time `cbor:"30,keyasint,omitzero"`
	Polls uint32    `cbor:"31,keyasint,omitempty"` // in all
	// Searches counts the searches for an order of unknown outcome that found nothing;
	// Candidates are what one found that found several.
	Searches   uint32        `cbor:"32,keyasint,omitempty"`
	Candidates []OrderHandle `cbor:"33,keyasint,omitempty"`
	// WrongCertificates counts those that were fetched and refused.
	WrongCertificates uint32 `cbor:"34,keyasint,omitempty"`
	// Renews is the order at the same authority that this one renews.
	Renews OrderHandle `cbor:"35,keyasint,omitzero"`
}

// OrderReference is our name of an order at its authority: 32 lower-case hex digits,
// the same wherever it is made, and at each attempt. So an authority that tells orders
// by it refuses a second one, and a search finds them all, also those of attempts that
// arrive late or that a restored state does not know of.
func OrderReference(agent, id string) string {
	sum := sha256.Sum256(key("certctl order reference", agent, id))
	return hex.EncodeToString(sum[:16])
}

// brokering is a copy of the order's Brokering to change, made a part of the order.
func (o *Order) brokering() *Brokering {
	b := &Brokering{}
	if o.Brokering != nil {
		b = edit(o.Brokering)
	}
	o.Brokering = b
	return b
}

// due is when something is to be done for the order; zero if nothing is, or not by a
// machine.
func (o *Order) due() time.Time {
	switch {
	case !o.Brokered() || o.Ended():
		return time.Time{}
	case o.Brokering == nil:
		return o.PlacedAt
	}
	return o.Brokering.Next
}

// endedFor is how long what is left of an order at an authority is kept that came to
// no certificate, so that people see what became of it.
const endedFor = 7 * 24 * time.Hour

// keptUntil is when what is left of a collected order goes.
func (o *Order) keptUntil() time.Time {
	switch {
	case o.Brokering == nil:
		return o.DoneAt.Add(collectedFor)
	case o.Fingerprint != "":
		return o.NotAfter.Add(collectedFor)
	}
	return o.DoneAt.Add(endedFor)
}

// shrink leaves of an ended order what is needed to know it again, and for one at an
// authority what is needed to revoke and renew its certificate.
func (o *Order) shrink() {
	o.CSR, o.ChainPEM = nil, ""
	if o.Brokering == nil {
		o.Names = nil
		return
	}
	b := o.brokering()
	b.Detail, b.Mend, b.Failure, b.Candidates, b.Next = "", "", "", nil, time.Time{}
}
