package wire

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// OrderStage says what a pending order waits for. An agent shows those that it does
// not know as they are.
type OrderStage string

// Stages of a pending order, in the order in which it goes through them.
const (
	OrderRequested   OrderStage = "requested"       // it waits to be placed
	OrderPlacing     OrderStage = "placing"         // it is being placed
	OrderAtAuthority OrderStage = "pending"         // the authority works on it
	OrderNeedsPerson OrderStage = "needs_person"    // somebody has to act
	OrderUnknown     OrderStage = "unknown_outcome" // nobody knows whether the authority has it
	OrderFetching    OrderStage = "issued"          // the authority has issued it
)

// MaxProgressText bounds each text of an order's progress, in bytes.
const MaxProgressText = 512

// OrderProgress is what is known of a pending order.
type OrderProgress struct {
	Stage  OrderStage `json:"stage,omitempty"`
	Detail string     `json:"detail,omitempty"` // what the authority says
	Mend   string     `json:"mend,omitempty"`   // what somebody has to do
}

// Person reports whether the order waits for a person.
func (p OrderProgress) Person() bool {
	return p.Stage == OrderNeedsPerson || p.Stage == OrderUnknown && p.Mend != ""
}

// AtAuthority reports whether the order is where it may stay for long.
func (p OrderProgress) AtAuthority() bool {
	return p.Stage != "" && p.Stage != OrderRequested && p.Stage != OrderPlacing
}

// Parsed is the progress of a pending order, fit to be stored and shown: one line
// each, within its bound. It is zero for an order that is not pending, or of which
// nothing is said, or nothing that makes sense.
func (r *OrderResult) Parsed() OrderProgress {
	if r.State != OrderPending || !validStage(r.Stage) {
		return OrderProgress{}
	}
	return OrderProgress{Stage: r.Stage, Detail: oneLine(r.Detail), Mend: oneLine(r.Mend)}
}

func validStage(s OrderStage) bool {
	return s != "" && len(s) <= 32 && strings.Trim(string(s), "abcdefghijklmnopqrstuvwxyz_") == ""
}

// oneLine makes one line of a text, of at most MaxProgressText bytes.
func oneLine(text string) string {
	const more = "…"
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\ufffd"))
	if len(text) <= MaxProgressText {
		return text
	}
	cut := MaxProgressText - len(more)
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + more
}
