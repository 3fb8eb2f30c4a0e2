package jitter

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"time"
)

// Spread returns the place of key in a period: a phase in [0, period) that is
// the same on every machine, in every process and in every version, and that is
// spread evenly over the keys. It is 0 if period is not positive.
//
// Phases scale with the period: a key that stands at a third of one minute
// stands at a third of five minutes too, so a fleet whose pace is changed stays
// in the same order.
func Spread(key string, period time.Duration) time.Duration {
	if period <= 0 {
		return 0
	}
	// A cryptographic hash because its leading bits are even for keys that
	// differ in one digit (web1, web2, …); faster hashes need a finisher for
	// that. The high word of the product maps 64 bits to the period without the
	// bias of a remainder.
	sum := sha256.Sum256([]byte(key))
	phase, _ := bits.Mul64(binary.BigEndian.Uint64(sum[:8]), uint64(period))
	return time.Duration(phase)
}
