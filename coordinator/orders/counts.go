package orders

import (
	"cmp"
	"slices"
)

// Call is what an authority is asked.
type Call string

// Calls.
const (
	CallPlace       Call = "place"
	CallStatus      Call = "status"
	CallSearch      Call = "search"
	CallCollect     Call = "collect"
	CallChanges     Call = "changes"
	CallCancel      Call = "cancel"
	CallRevoke      Call = "revoke"
	CallValidations Call = "validations"
	CallTest        Call = "test"
)

// OutcomeOK is the outcome of a call that was answered. The others are the classes of
// [connector.Class].
const OutcomeOK = "ok"

type outcomeOf struct {
	call    Call
	outcome string
}

// CallCount is how many calls of one kind to an issuer's authority had one outcome.
type CallCount struct {
	Issuer  string
	Call    Call
	Outcome string
	Count   uint64
}

// Counts tells what the calls of this process came to, whoever led meanwhile: by
// issuer, call and outcome. They only grow.
func (e *Engine) Counts() []CallCount {
	var list []CallCount
	for name, a := range e.accounts {
		a.mu.Lock()
		for of, count := range a.counts {
			list = append(list, CallCount{Issuer: name, Call: of.call, Outcome: of.outcome, Count: count})
		}
		a.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b CallCount) int {
		return cmp.Or(cmp.Compare(a.Issuer, b.Issuer), cmp.Compare(a.Call, b.Call), cmp.Compare(a.Outcome, b.Outcome))
	})
	return list
}
