package history

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
)

// A Batch is the oldest facts of a range of log indexes, on their way to where they
// are kept for good.
type Batch struct {
	// Range is what Facts are all of. It begins later than what was asked for where
	// the journal has a gap.
	Range Gap
	Facts []fleet.Fact
	// Floor is that of the journal; see [Status]. Routine facts up to there may be
	// missing.
	Floor uint64
}

// Batch gives the oldest facts of a range of log indexes, about limit of them and
// about size octets, all of whole entries. The end of the range may lie beyond
// that of the journal. It is ErrNotHere if the journal has nothing of the range.
func (j *Journal) Batch(asked Gap, limit, size int) (*Batch, error) {
	out := new(Batch)
	err := j.view(func(b buckets) error {
		sum, err := b.ledger()
		if err != nil {
			return err
		}
		gaps, err := b.listGaps()
		if err != nil {
			return err
		}
		there := Union(Gap{max(asked.From, 1), min(asked.To, sum.Through)}).Minus(gaps)
		if len(there) == 0 {
			return fmt.Errorf("%d to %d: %w", asked.From, asked.To, ErrNotHere)
		}
		out.Range, out.Floor = there[0], sum.floor()
		walk := newMerge(b, Query{}, indexEnd(out.Range.From-1))
		for total := 0; ; {
			k, v := walk.next()
			if k == nil {
				return nil
			}
			index := binary.BigEndian.Uint64(k)
			if index > out.Range.To {
				return nil
			}
			n := len(out.Facts)
			if n > 0 && index != out.Facts[n-1].Index && (n >= limit || total >= size) {
				out.Range.To = out.Facts[n-1].Index
				return nil
			}
			fact, err := decodeFact(v)
			if err != nil {
				return err
			}
			out.Facts = append(out.Facts, fact)
			total += len(v)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("journal %s: take out facts: %w", j.config.Path, err)
	}
	return out, nil
}

// Backlog is what of the journal is not kept elsewhere yet.
type Backlog struct {
	Facts int
	// More tells that there are more than were counted.
	More   bool
	Oldest time.Time // the time of the first of them; zero if there is none
}

// Backlog counts the facts after a log index, up to a bound.
func (j *Journal) Backlog(after uint64, bound int) (out Backlog, err error) {
	err = j.view(func(b buckets) error {
		for walk := newMerge(b, Query{}, indexEnd(after)); ; out.Facts++ {
			k, v := walk.next()
			if k == nil {
				return nil
			}
			if out.Facts == bound {
				out.More = true
				return nil
			}
			if out.Facts == 0 {
				fact, err := decodeFact(v)
				if err != nil {
					return err
				}
				out.Oldest = fact.Time
			}
		}
	})
	if err != nil {
		return Backlog{}, fmt.Errorf("journal %s: count: %w", j.config.Path, err)
	}
	return out, nil
}
