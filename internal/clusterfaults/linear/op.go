package linear

import (
	"fmt"

	"github.com/certctl/certctl/shared/wire"
)

// Kind is what an operation does.
type Kind string

// Kinds of operations.
const (
	CreateToken Kind = "create token" // Limit is how many uses it has, 0 for no limit
	RevokeToken Kind = "revoke token"
	UseToken    Kind = "use token" // Value is the key that is enrolled
	ReadToken   Kind = "read token"

	PlaceOrder    Kind = "place order"
	CompleteOrder Kind = "complete order" // Value is the serial number
	CollectOrder  Kind = "collect order"
	ReadOrder     Kind = "read order"

	PutAssignment    Kind = "put assignment" // Value is its content
	DeleteAssignment Kind = "delete assignment"
	ReadAssignment   Kind = "read assignment"
)

// table is the part of the state that an operation is about.
func (k Kind) table() string {
	switch k {
	case CreateToken, RevokeToken, UseToken, ReadToken:
		return "token"
	case PlaceOrder, CompleteOrder, CollectOrder, ReadOrder:
		return "order"
	default:
		return "assignment"
	}
}

// Input is an operation on one object.
type Input struct {
	Kind   Kind
	Object string
	Value  string
	Limit  uint64
	// IfRevision makes a put or a delete conditional: the object must have the
	// revision Previous, 0 for one that does not exist.
	IfRevision bool
	Previous   uint64
}

func (in Input) String() string {
	text := fmt.Sprintf("%s %s", in.Kind, in.Object)
	if in.Value != "" {
		text += " " + in.Value
	}
	if in.Limit != 0 {
		text += fmt.Sprintf(" limit %d", in.Limit)
	}
	if in.IfRevision {
		text += fmt.Sprintf(" if %d", in.Previous)
	}
	return text
}

// Output is what an operation was answered.
type Output struct {
	Code wire.Code // of a refusal by the rules; "" is success
	// Exists is whether the object of a read is there.
	Exists bool
	// State is that of an order, "revoked" for such a token.
	State string
	// Value is the serial number of an order, the content of an assignment.
	Value string
	// Number is the revision of an assignment, the uses of a token.
	Number uint64
	// Repeated says that a key was enrolled before.
	Repeated bool
}

func (out Output) String() string {
	if out.Code != "" {
		return string(out.Code)
	}
	type plain Output // without this method
	return fmt.Sprintf("%+v", plain(out))
}
