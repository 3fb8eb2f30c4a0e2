package history

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/certctl/certctl/coordinator/fleet"
)

// Facts are CBOR (RFC 8949) with times as text, to the nanosecond and in UTC.
// Unlike commands they are decoded leniently: a fact that a later version wrote
// may have more fields, and history loses nothing by leaving them out.
var encoder = mustEncMode()

func mustEncMode() cbor.EncMode {
	opts := cbor.CoreDetEncOptions()
	opts.Time = cbor.TimeRFC3339NanoUTC
	mode, err := opts.EncMode()
	if err != nil {
		panic(fmt.Sprintf("history: encoding options: %v", err))
	}
	return mode
}

func decodeFact(v []byte) (fleet.Fact, error) {
	var f fleet.Fact
	if err := cbor.Unmarshal(v, &f); err != nil {
		return f, fmt.Errorf("%w: a fact cannot be read: %w", ErrDamaged, err)
	}
	return f, nil
}
