package history

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/trail"
)

// Bounds of a chunk.
const (
	// ChunkSize is about how many octets of facts a chunk has. It has whole entries
	// of the log, so that a large one makes it larger.
	ChunkSize = 256 << 10
	// MaxChunk bounds it as it is sent.
	MaxChunk = 7 << 20
	// maxChunkFacts bounds its facts: no entry has room for as many.
	maxChunkFacts = 1 << 18
)

// ErrNotHere says that a journal was asked for facts that it does not have.
var ErrNotHere = errors.New("the journal does not have the facts of all these log indexes")

// ErrNonsense says that a chunk is not what a journal gives. Nothing of it is
// taken.
var ErrNonsense = errors.New("the facts of another node were refused")

// A Chunk is the facts of a range of log indexes on their way from one journal to
// another: all that the one keeps of them.
type Chunk struct {
	From uint64 `cbor:"1,keyasint"`
	To   uint64 `cbor:"2,keyasint"`
	// Floor is that of the journal that it is from; see [Status].
	Floor uint64 `cbor:"3,keyasint,omitempty"`
	// Facts are as that journal has them, in order: one of a later version may say
	// more than is understood here.
	Facts [][]byte `cbor:"4,keyasint,omitempty"`
	// Sum is the SHA-256 of the rest.
	Sum []byte `cbor:"5,keyasint"`
}

var chunkDecoder = mustChunkDecoder()

func mustChunkDecoder() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxArrayElements: maxChunkFacts, MaxMapPairs: 64, MaxNestedLevels: 4,
	}.DecMode()
	if err != nil {
		panic(fmt.Sprintf("history: decoding options: %v", err))
	}
	return mode
}

// DecodeChunk reads a chunk that was sent as an answer for the indexes asked, and
// checks all that can be without a journal: a chunk has the newest of what was
// asked for, and facts of its own range, in order and each once. Errors wrap
// ErrNonsense.
func DecodeChunk(data []byte, asked Gap) (*Chunk, error) {
	if len(data) > MaxChunk {
		return nil, fmt.Errorf("%w: %d octets, at most %d are accepted", ErrNonsense, len(data), MaxChunk)
	}
	c := new(Chunk)
	if err := chunkDecoder.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("%w: they cannot be read: %w", ErrNonsense, err)
	}
	if c.To != asked.To || c.From < asked.From || c.From > c.To {
		return nil, fmt.Errorf("%w: they are of the log indexes %d to %d, and %d to %d were asked for", ErrNonsense, c.From, c.To, asked.From, asked.To)
	}
	if !bytes.Equal(c.Sum, c.sum()) {
		return nil, fmt.Errorf("%w: their checksum is wrong", ErrNonsense)
	}
	if _, err := c.decode(); err != nil {
		return nil, err
	}
	return c, nil
}

// Range is what the chunk is of.
func (c *Chunk) Range() Gap { return Gap{c.From, c.To} }

func (c *Chunk) sum() []byte {
	sum := sha256.New()
	number := func(n uint64) { _, _ = sum.Write(binary.BigEndian.AppendUint64(nil, n)) } // never fails
	number(c.From)
	number(c.To)
	number(c.Floor)
	for _, fact := range c.Facts {
		number(uint64(len(fact)))
		_, _ = sum.Write(fact)
	}
	return sum.Sum(nil)
}

// decode reads the facts, and checks their order.
func (c *Chunk) decode() ([]fleet.Fact, error) {
	facts := make([]fleet.Fact, 0, len(c.Facts))
	var audit link // of the last fact of the audit trail
	for i, data := range c.Facts {
		fact, err := decodeFact(data)
		if err != nil {
			return nil, fmt.Errorf("%w: one of them cannot be read", ErrNonsense)
		}
		if fact.Index < c.From || fact.Index > c.To {
			return nil, fmt.Errorf("%w: one is of log index %d, outside of %d to %d", ErrNonsense, fact.Index, c.From, c.To)
		}
		if i > 0 && string(factKey(facts[i-1])) >= string(factKey(fact)) {
			return nil, fmt.Errorf("%w: they are out of order at log index %d", ErrNonsense, fact.Index)
		}
		if fact.Audit > 0 {
			if !audit.joins(fact) {
				return nil, fmt.Errorf("%w: number %d of the audit trail is not the one that comes after %d", ErrNonsense, fact.Audit, audit.number)
			}
			if record := fact.Record(); !record.Hash.IsZero() {
				if sum, err := record.Sum(); err != nil || sum != record.Hash {
					return nil, fmt.Errorf("%w: number %d of the audit trail does not have its own hash", ErrNonsense, fact.Audit)
				}
			}
			audit = linkOf(fact)
		}
		facts = append(facts, fact)
	}
	return facts, nil
}

// A link is the end of a piece of the audit trail, to which the next one has to join up;
// the zero one is not known.
type link struct {
	number uint64
	hash   trail.Hash
}

func linkOf(f fleet.Fact) link { return link{f.Audit, f.Hash} }

// joins says whether a fact is the one that comes next in the audit trail. Only the
// restore of a state leaves numbers out, and goes on beyond those of both states.
func (l link) joins(f fleet.Fact) bool {
	return l.number == 0 ||
		(f.Audit == l.number+1 || f.Kind == fleet.KindStateRestored && f.Audit > l.number) && f.Prev == l.hash
}
