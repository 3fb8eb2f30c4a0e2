package fleet

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// The encoding of commands, results and snapshots is CBOR (RFC 8949) in its
// core deterministic form (section 4.2.1): equal values have equal bytes on
// every node. Decoding is strict, because a node that reads over what it does
// not understand drifts away from the others without anybody noticing.
var (
	encoder = mustEncMode()
	decoder = mustDecMode()
)

// Bounds of one decoded value. They hold for anything that a valid proposer
// sends and keep garbage from costing memory.
const (
	maxElements = 1 << 17
	maxPairs    = 1 << 12
	maxNesting  = 16
)

func mustEncMode() cbor.EncMode {
	opts := cbor.CoreDetEncOptions()
	opts.Time = cbor.TimeRFC3339NanoUTC
	mode, err := opts.EncMode()
	if err != nil {
		panic(fmt.Sprintf("fleet: encoding options: %v", err))
	}
	return mode
}

func mustDecMode() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		MaxArrayElements:  maxElements,
		MaxMapPairs:       maxPairs,
		MaxNestedLevels:   maxNesting,
	}.DecMode()
	if err != nil {
		panic(fmt.Sprintf("fleet: decoding options: %v", err))
	}
	return mode
}
