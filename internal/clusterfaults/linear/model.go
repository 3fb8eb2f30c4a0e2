package linear

import (
	"fmt"
	"strings"

	"github.com/anishathalye/porcupine"

	"github.com/certctl/certctl/shared/wire"
)

// revoked is the state of such a token.
const revoked = "revoked"

// object is the state of one token, order or assignment, the zero value one that
// is not there. It is compared with ==.
type object struct {
	exists bool
	state  string // of an order; revoked
	value  string // serial number or content; the keys enrolled with a token, each between bars
	number uint64 // revision or uses
	limit  uint64
}

// unknown is the output of an operation whose outcome is not known.
type unknown struct{}

// apply says what an operation answers and leaves behind.
func apply(o object, in Input) (Output, object) {
	switch in.Kind.table() {
	case "token":
		return o.token(in)
	case "order":
		return o.order(in)
	default:
		return o.assignment(in)
	}
}

func (o object) token(in Input) (Output, object) {
	switch in.Kind {
	case CreateToken:
		if o.exists {
			return Output{Code: wire.CodeConflict}, o
		}
		return Output{}, object{exists: true, limit: in.Limit}
	case RevokeToken:
		if !o.exists {
			return Output{Code: wire.CodeNotFound}, o
		}
		o.state = revoked
		return Output{}, o
	case UseToken:
		key := "|" + in.Value + "|"
		switch {
		case !o.exists:
			return Output{Code: wire.CodeTokenUnknown}, o
		case strings.Contains(o.value, key):
			return Output{Repeated: true}, o
		case o.state == revoked:
			return Output{Code: wire.CodeTokenRevoked}, o
		case o.limit > 0 && o.number >= o.limit:
			return Output{Code: wire.CodeTokenUsed}, o
		}
		o.number++
		o.value += key
		return Output{}, o
	default:
		return Output{Exists: o.exists, State: o.state, Number: o.number}, o
	}
}

func (o object) order(in Input) (Output, object) {
	switch in.Kind {
	case PlaceOrder:
		if !o.exists {
			o = object{exists: true, state: "requested"}
		}
		return Output{State: o.state}, o
	case CompleteOrder:
		if !o.exists {
			return Output{Code: wire.CodeNotFound}, o
		}
		if o.state == "requested" { // the first outcome wins
			o.state, o.value = "issued", in.Value
		}
		return Output{State: o.state}, o
	case CollectOrder:
		if o.state == "issued" {
			o.state = "collected"
		}
		return Output{}, o
	default:
		return Output{Exists: o.exists, State: o.state, Value: o.value}, o
	}
}

func (o object) assignment(in Input) (Output, object) {
	conflict := in.IfRevision && in.Previous != o.number
	switch in.Kind {
	case PutAssignment:
		if conflict {
			return Output{Code: wire.CodeConflict}, o
		}
		if !o.exists || o.value != in.Value {
			o = object{exists: true, value: in.Value, number: o.number + 1}
		}
		return Output{Number: o.number}, o
	case DeleteAssignment:
		switch {
		case !o.exists:
			return Output{Code: wire.CodeNotFound}, o
		case conflict:
			return Output{Code: wire.CodeConflict}, o
		}
		return Output{}, object{}
	default:
		return Output{Exists: o.exists, Value: o.value, Number: o.number}, o
	}
}

func model() porcupine.Model {
	return porcupine.Model{
		Partition: partition,
		Init:      func() any { return object{} },
		Step: func(state, input, output any) (bool, any) {
			got, next := apply(state.(object), input.(Input))
			if _, ok := output.(unknown); ok {
				return true, next
			}
			return got == output.(Output), next
		},
		DescribeOperation: func(input, output any) string {
			if _, ok := output.(unknown); ok {
				return fmt.Sprintf("%v → ?", input)
			}
			return fmt.Sprintf("%v → %v", input, output)
		},
		DescribeState: func(state any) string { return fmt.Sprintf("%+v", state) },
	}
}

// partition takes the operations on different objects apart: they have nothing
// to do with each other.
func partition(history []porcupine.Operation) [][]porcupine.Operation {
	type name struct{ table, object string }
	place := map[name]int{}
	var parts [][]porcupine.Operation
	for _, op := range history {
		in := op.Input.(Input)
		n := name{in.Kind.table(), in.Object}
		at, ok := place[n]
		if !ok {
			at = len(parts)
			place[n] = at
			parts = append(parts, nil)
		}
		parts[at] = append(parts[at], op)
	}
	return parts
}
