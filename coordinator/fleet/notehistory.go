package fleet

import (
	"time"

	"github.com/certctl/certctl/shared/wire"
)

// NotePrune puts into the audit trail that a person has old months of routine facts
// dropped from the database. It comes before they are.
//
// Codes: CodeInvalid.
type NotePrune struct {
	Actor  string    `cbor:"1,keyasint,omitempty"`
	Before time.Time `cbor:"2,keyasint"`
	// Months are how many go, from First to Last, with Facts in them.
	Months uint32 `cbor:"3,keyasint"`
	First  string `cbor:"4,keyasint"`
	Last   string `cbor:"5,keyasint"`
	Facts  uint64 `cbor:"6,keyasint"`
}

func (NotePrune) commandType() Type { return TypeNotePrune }

// maxMonthText bounds the name of a month.
const maxMonthText = 10

func notePrune(c *change, p *NotePrune) Result {
	if p.Before.IsZero() {
		return refuse(wire.CodeInvalid, "before", "no moment is given", "")
	}
	if refusal := checkText("first", p.First, 0, maxMonthText); !refusal.OK() {
		return refusal
	}
	if refusal := checkText("last", p.Last, 0, maxMonthText); !refusal.OK() {
		return refusal
	}
	c.audit(Fact{Kind: KindHistoryPruned, Actor: p.Actor, Object: "history"}, map[string]any{
		"before": p.Before, "months": p.Months, "first": p.First, "last": p.Last, "facts": p.Facts,
	})
	return Result{}
}
