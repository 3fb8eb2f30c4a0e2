package fleet

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/certctl/certctl/shared/wire"
)

// OrderChange is the outcome of the commands about orders at authorities: where the
// order stands, and the revision by which the next command finds it unchanged.
type OrderChange struct {
	ID        string        `cbor:"1,keyasint"`
	State     OrderState    `cbor:"2,keyasint"` // "" if the order is gone, as its agent is
	Revision  uint64        `cbor:"3,keyasint"`
	Problem   *wire.Problem `cbor:"4,keyasint,omitempty"`
	Attempt   uint32        `cbor:"5,keyasint,omitempty"`
	Reference string        `cbor:"6,keyasint,omitempty"`
}

// ClaimOrder gives an order to the leader that is about to place it, and begins an
// attempt: requested becomes placing. Of a revision, and
// so of an attempt, there is one claim. With Again it takes an order of unknown
// outcome that [AbsenceSearches] have not found. The outcome is an OrderChange.
//
// Codes: CodeNotFound, CodeConflict, CodeInvalid, CodeAgentRetired.
type ClaimOrder struct {
	Agent    string      `cbor:"1,keyasint"`
	ID       string      `cbor:"2,keyasint"`
	Revision uint64      `cbor:"3,keyasint"` // the order's ModifyIndex
	Node     string      `cbor:"4,keyasint"`
	Term     uint64      `cbor:"5,keyasint"`
	Again    bool        `cbor:"6,keyasint,omitempty"`
	Renews   OrderHandle `cbor:"7,keyasint,omitzero"`
}

// RecordOrder stores what a leader has learnt of an order. Which steps there are is
// said by [orderSteps]. The texts of Brokering are cut to their bounds when the
// command is made. The outcome is an OrderChange; its State is another one than that
// of the command where somebody has asked to take the order back meanwhile.
//
// Codes: CodeNotFound, CodeConflict, CodeInvalid.
type RecordOrder struct {
	Agent     string     `cbor:"1,keyasint"`
	ID        string     `cbor:"2,keyasint"`
	Revision  uint64     `cbor:"3,keyasint"` // the order's ModifyIndex
	State     OrderState `cbor:"4,keyasint"`
	Brokering Brokering  `cbor:"5,keyasint"`
	// Problem is why the order was rejected, and may say why it was cancelled.
	Problem *wire.Problem `cbor:"6,keyasint,omitempty"`
	// Of OrderIssued.
	ChainPEM    string    `cbor:"7,keyasint,omitempty"`
	Serial      string    `cbor:"8,keyasint,omitempty"`
	Fingerprint string    `cbor:"9,keyasint,omitempty"`
	NotAfter    time.Time `cbor:"10,keyasint,omitzero"`
}

// CancelOrder takes an order back: at once if it was not placed, else the leader is
// asked to do it. Asking again changes nothing. The outcome is an OrderChange.
//
// Codes: CodeNotFound, CodeConflict, CodeInvalid.
type CancelOrder struct {
	Actor string `cbor:"1,keyasint,omitempty"`
	Agent string `cbor:"2,keyasint"`
	ID    string `cbor:"3,keyasint"`
	Note  string `cbor:"4,keyasint,omitempty"`
}

// RetryOrder has an order at an authority looked after now, with a new budget. The
// outcome is an OrderChange.
//
// Codes: CodeNotFound, CodeConflict.
type RetryOrder struct {
	Actor string `cbor:"1,keyasint,omitempty"`
	Agent string `cbor:"2,keyasint"`
	ID    string `cbor:"3,keyasint"`
}

// ResolveAction is what an operator says of an order of unknown outcome.
type ResolveAction string

// Actions.
const (
	ResolveAdopt      ResolveAction = "adopt"       // the authority has it, as Handle
	ResolvePlaceAgain ResolveAction = "place_again" // the authority does not have it
	ResolveGiveUp     ResolveAction = "give_up"     // it is not wanted any more, wherever it is
)

// ResolveOrder is an operator's word on an order of unknown outcome. The outcome is
// an OrderChange.
//
// Codes: CodeNotFound, CodeConflict, CodeInvalid.
type ResolveOrder struct {
	Actor  string        `cbor:"1,keyasint,omitempty"`
	Agent  string        `cbor:"2,keyasint"`
	ID     string        `cbor:"3,keyasint"`
	Action ResolveAction `cbor:"4,keyasint"`
	Handle OrderHandle   `cbor:"5,keyasint,omitzero"` // of ResolveAdopt
	Note   string        `cbor:"6,keyasint,omitempty"`
}

func (ClaimOrder) commandType() Type   { return TypeClaimOrder }
func (RecordOrder) commandType() Type  { return TypeRecordOrder }
func (CancelOrder) commandType() Type  { return TypeCancelOrder }
func (RetryOrder) commandType() Type   { return TypeRetryOrder }
func (ResolveOrder) commandType() Type { return TypeResolveOrder }

// bounded is the command with texts that can be stored: what an authority or a
// network says must not be what keeps an order from going on.
func (p RecordOrder) bounded() RecordOrder {
	b := &p.Brokering
	b.Raw, b.Detail, b.Mend, b.Failure = cutText(b.Raw, MaxOrderRaw), cutText(b.Detail, MaxOrderText), cutText(b.Mend, MaxOrderText), cutText(b.Failure, MaxOrderText)
	b.Candidates = b.Candidates[:min(len(b.Candidates), MaxOrderCandidates)]
	if p.Problem != nil {
		p.Problem = edit(p.Problem)
		p.Problem.Detail, p.Problem.Mend = cutText(p.Problem.Detail, 2*MaxOrderText), cutText(p.Problem.Mend, 2*MaxOrderText)
	}
	return p
}

// cutText makes one line of at most most bytes.
func cutText(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}
