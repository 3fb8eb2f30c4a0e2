package history

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"

	"github.com/certctl/certctl/coordinator/fleet"
)

// Buckets of the file. Routine facts and those of the audit trail are apart, so
// that dropping the oldest routine facts never walks over the audit trail.
var (
	bucketMeta    = []byte("meta")
	bucketRoutine = []byte("routine") // index, ordinal → fact
	bucketAudit   = []byte("audit")   // index, ordinal → fact
	bucketGaps    = []byte("gaps")    // first index → last index

	keyFormat = []byte("format")
	keyLedger = []byte("ledger")
)

// formatName begins the value under keyFormat; the version follows.
const (
	formatName    = "certctl journal "
	formatVersion = 1
)

// trimStep bounds what one transaction drops by age.
const trimStep = 5000

// A ledger is the journal's count of itself, kept in step with the buckets in
// every transaction.
type ledger struct {
	Through uint64 `cbor:"1,keyasint"`
	Facts   uint64 `cbor:"2,keyasint"`
	Bytes   int64  `cbor:"3,keyasint"`
	Audit   uint64 `cbor:"4,keyasint"`
	Dropped uint64 `cbor:"5,keyasint"`
	Expired uint64 `cbor:"6,keyasint"`
	// Floor is the newest index of a routine fact that was dropped here; Inherited
	// is that of the journals whose facts were taken.
	Floor     uint64 `cbor:"7,keyasint,omitempty"`
	Inherited uint64 `cbor:"8,keyasint,omitempty"`
}

// floor is the index up to which routine facts may be missing.
func (l ledger) floor() uint64 { return max(l.Floor, l.Inherited) }

type buckets struct {
	meta, routine, audit, gaps *bbolt.Bucket
}

func openBuckets(tx *bbolt.Tx) (buckets, error) {
	b := buckets{
		meta: tx.Bucket(bucketMeta), routine: tx.Bucket(bucketRoutine),
		audit: tx.Bucket(bucketAudit), gaps: tx.Bucket(bucketGaps),
	}
	if b.meta == nil || b.routine == nil || b.audit == nil || b.gaps == nil {
		return b, fmt.Errorf("%w: a part of it is missing", ErrDamaged)
	}
	return b, nil
}

func (b buckets) ledger() (ledger, error) {
	var sum ledger
	if err := cbor.Unmarshal(b.meta.Get(keyLedger), &sum); err != nil {
		return sum, fmt.Errorf("%w: its ledger cannot be read: %w", ErrDamaged, err)
	}
	sum.Floor = b.floorOf(&sum)
	return sum, nil
}

func (b buckets) setLedger(sum ledger) error {
	data, err := encoder.Marshal(sum)
	if err != nil {
		return err
	}
	return b.meta.Put(keyLedger, data)
}

func (b buckets) add(sum *ledger, fact fleet.Fact) error {
	data, err := encoder.Marshal(fact)
	if err != nil {
		return fmt.Errorf("encode fact %d.%d: %w", fact.Index, fact.Ordinal, err)
	}
	// Facts come in the order of their keys: full pages, not half empty ones.
	b.routine.FillPercent = 1
	return b.addEncoded(sum, fact, data)
}

func (b buckets) addEncoded(sum *ledger, fact fleet.Fact, data []byte) error {
	if fact.Audit > 0 {
		sum.Audit++
		return b.audit.Put(factKey(fact), data)
	}
	sum.Facts++
	sum.Bytes += int64(factKeyLen + len(data))
	return b.routine.Put(factKey(fact), data)
}

// dropOldest removes the oldest routine fact.
func (b buckets) dropOldest(sum *ledger, k, v []byte) error {
	sum.Facts--
	sum.Bytes -= int64(len(k) + len(v))
	sum.Floor = max(sum.Floor, binary.BigEndian.Uint64(k))
	return b.routine.Delete(k)
}

// shrink drops the oldest routine facts until the rest fits.
func (b buckets) shrink(sum *ledger, maxBytes int64) error {
	for sum.Bytes > maxBytes {
		k, v := b.routine.Cursor().First()
		if k == nil {
			return fmt.Errorf("%w: it counts %d bytes of facts and has none", ErrDamaged, sum.Bytes)
		}
		if err := b.dropOldest(sum, k, v); err != nil {
			return err
		}
		sum.Dropped++
	}
	return nil
}

// expire drops routine facts from the oldest on while they are older than
// cutoff and of a log index up to through, at most trimStep of them.
func (b buckets) expire(sum *ledger, cutoff time.Time, through uint64) (int, error) {
	for dropped := range trimStep {
		k, v := b.routine.Cursor().First()
		if k == nil {
			return dropped, nil
		}
		fact, err := decodeFact(v)
		if err != nil {
			return dropped, err
		}
		if !fact.Time.Before(cutoff) || fact.Index > through {
			return dropped, nil
		}
		if err := b.dropOldest(sum, k, v); err != nil {
			return dropped, err
		}
		sum.Expired++
	}
	return trimStep, nil
}
