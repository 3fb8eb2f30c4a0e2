package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Digest stands for a whole inventory: the exclusive or of the hashes of its
// rows. It is updated in constant time when a row comes, changes or goes, and
// does not depend on their order. It finds divergence by accident; it is no
// defence against an agent that lies about its own rows, which could as well
// send other rows.
//
// The zero Digest is that of an empty inventory.
type Digest [sha256.Size]byte

// Hash is the contribution of a row: SHA-256 over its name, revision and data.
func (r Row) Hash() Digest {
	h := sha256.New()
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(r.Name)))
	h.Write(n[:])
	h.Write([]byte(r.Name))
	binary.BigEndian.PutUint64(n[:], r.Revision)
	h.Write(n[:])
	h.Write(r.Data)
	return Digest(h.Sum(nil))
}

// Toggle adds a row that is not in the inventory, or takes out one that is.
func (d *Digest) Toggle(row Digest) {
	for i := range d {
		d[i] ^= row[i]
	}
}

// String is lower-case hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return fmt.Errorf("digest has %d characters; expected %d of hex", len(text), hex.EncodedLen(len(d)))
	}
	if _, err := hex.Decode(d[:], text); err != nil {
		return fmt.Errorf("digest is not hex: %w", err)
	}
	return nil
}
