package fleet

import (
	"fmt"
	"strings"

	"github.com/certctl/certctl/shared/wire"
)

// Result is what a command came to. A refusal by the rules of the domain is a
// result like any other, equal on every node, and changes nothing. Results are
// plain data: they are remembered in the state and cross the network.
type Result struct {
	Code   wire.Code `cbor:"1,keyasint,omitempty"` // "" is success
	Field  string    `cbor:"2,keyasint,omitempty"`
	Detail string    `cbor:"3,keyasint,omitempty"`
	Mend   string    `cbor:"4,keyasint,omitempty"`
	// Data is the encoded outcome of a command that has one; see [Result.Decode].
	Data []byte `cbor:"5,keyasint,omitempty"`
}

// OK reports success.
func (r Result) OK() bool { return r.Code == "" }

// Decode reads the outcome into the struct that the command's documentation names.
func (r Result) Decode(outcome any) error {
	if !r.OK() {
		return r.Err()
	}
	if err := decoder.Unmarshal(r.Data, outcome); err != nil {
		return fmt.Errorf("decode the outcome of a command: %w", err)
	}
	return nil
}

// Err is nil on success, and else a *RejectedError.
func (r Result) Err() error {
	if r.OK() {
		return nil
	}
	return &RejectedError{Code: r.Code, Field: r.Field, Detail: r.Detail, Mend: r.Mend}
}

// RejectedError is a refusal by the rules of the domain.
type RejectedError struct {
	Code   wire.Code
	Field  string
	Detail string
	Mend   string
}

// Error reads as one line.
func (e *RejectedError) Error() string {
	text := e.Detail
	if e.Field != "" {
		text += " (field " + e.Field + ")"
	}
	text += " [" + string(e.Code) + "]"
	if e.Mend != "" {
		text += "; " + e.Mend
	}
	return text
}

func refuse(code wire.Code, field, detail, mend string) Result {
	// Details may quote what was sent; a result has to survive its encoding.
	return Result{Code: code, Field: field, Detail: strings.ToValidUTF8(detail, "\uFFFD"), Mend: mend}
}
