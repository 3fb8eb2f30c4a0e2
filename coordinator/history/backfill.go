package history

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/certctl/certctl/shared/durable"
)

// StepBackfill is one transaction of [Journal.Backfill].
const StepBackfill durable.Step = "journal.backfill"

// Chunk gives the newest facts of a range of log indexes, about size octets of
// them, and the part of the range that they are all of. It is ErrNotHere if this
// journal has a gap in the range, or has not come to its end yet.
func (j *Journal) Chunk(asked Gap, size int) (*Chunk, error) {
	c := &Chunk{From: asked.From, To: asked.To}
	err := j.view(func(b buckets) error {
		sum, err := b.ledger()
		if err != nil {
			return err
		}
		gaps, err := b.listGaps()
		if err != nil {
			return err
		}
		if asked.From == 0 || asked.From > asked.To || asked.To > sum.Through || len(gaps.And(Gaps{asked})) > 0 {
			return fmt.Errorf("%d to %d: %w", asked.From, asked.To, ErrNotHere)
		}
		c.Floor = sum.floor()
		walk := newMerge(b, Query{NewestFirst: true}, indexEnd(asked.To))
		total, last := 0, uint64(0)
		for {
			k, v := walk.next()
			if k == nil {
				break
			}
			index := binary.BigEndian.Uint64(k)
			if index < asked.From {
				break
			}
			if index != last && total >= size {
				c.From = last
				break
			}
			c.Facts = append(c.Facts, slices.Clone(v))
			total += len(v)
			last = index
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("journal %s: give facts: %w", j.config.Path, err)
	}
	slices.Reverse(c.Facts)
	c.Sum = c.sum()
	return c, nil
}

// Backfill takes facts that this journal never had from another one: all of the
// indexes of a chunk, which have to lie in a gap, and makes the gap smaller by
// them. It is one synced transaction: after an error nothing is taken. An error
// that wraps ErrNonsense is about the chunk.
//
// Routine facts that retention would have dropped here are left out.
func (j *Journal) Backfill(c *Chunk) error {
	facts, err := c.decode()
	if err != nil {
		return err
	}
	var sum ledger
	err = j.config.Hook.Around(StepBackfill, j.config.Path, func() error {
		return j.update(func(b buckets) error {
			if sum, err = b.ledger(); err != nil {
				return err
			}
			gaps, err := b.listGaps()
			if err != nil {
				return err
			}
			if !gaps.covers(c.Range()) {
				return fmt.Errorf("%w: not all of the log indexes %d to %d are missing here", ErrNonsense, c.From, c.To)
			}
			before, err := b.auditBefore(c.From, gaps)
			if err != nil {
				return err
			}
			for i, fact := range facts {
				if fact.Audit > 0 {
					if !before.joins(fact) {
						return fmt.Errorf("%w: number %d of the audit trail is not the one that comes after %d", ErrNonsense, fact.Audit, before.number)
					}
					before = linkOf(fact)
				} else if fact.Index <= sum.Floor {
					continue
				}
				if err := b.addEncoded(&sum, fact, c.Facts[i]); err != nil {
					return err
				}
			}
			if err := b.checkAfter(c.To, before, gaps); err != nil {
				return err
			}
			// What the other journal had dropped of these is not here either.
			if c.Floor >= c.From {
				sum.Inherited = max(sum.Inherited, min(c.Floor, c.To))
			}
			if err := b.setGaps(gaps.Minus(Gaps{c.Range()})); err != nil {
				return err
			}
			if err := b.shrink(&sum, j.config.MaxBytes); err != nil {
				return err
			}
			return b.setLedger(sum)
		})
	})
	if err != nil {
		return fmt.Errorf("journal %s: take facts of another node: %w", j.config.Path, err)
	}
	j.warn(sum)
	return nil
}

// auditBefore is the last fact of the audit trail before an index, unknown if there is
// none or there are gaps between the two.
func (b buckets) auditBefore(index uint64, gaps Gaps) (link, error) {
	cursor := b.audit.Cursor()
	before := cursor.Prev
	if k, _ := cursor.Seek(indexKey(index)); k == nil {
		before = cursor.Last
	}
	k, v := before()
	if k == nil || len(gaps.And(Gaps{{binary.BigEndian.Uint64(k), index - 1}})) > 0 {
		return link{}, nil
	}
	fact, err := decodeFact(v)
	return linkOf(fact), err
}

// checkAfter refuses an end of the audit trail that does not join up with what
// comes after an index here, if that is known.
func (b buckets) checkAfter(index uint64, end link, gaps Gaps) error {
	k, v := b.audit.Cursor().Seek(indexEnd(index))
	if k == nil || end.number == 0 || len(gaps.And(Gaps{{index + 1, binary.BigEndian.Uint64(k)}})) > 0 {
		return nil
	}
	fact, err := decodeFact(v)
	if err != nil {
		return err
	}
	if !end.joins(fact) {
		return fmt.Errorf("%w: their last number of the audit trail is %d, and %d, which comes after it here, does not follow it", ErrNonsense, end.number, fact.Audit)
	}
	return nil
}

func (b buckets) listGaps() (Gaps, error) {
	var list []Gap
	err := b.gaps.ForEach(func(k, v []byte) error {
		if len(k) != 8 || len(v) != 8 {
			return fmt.Errorf("%w: a gap cannot be read", ErrDamaged)
		}
		list = append(list, Gap{From: binary.BigEndian.Uint64(k), To: binary.BigEndian.Uint64(v)})
		return nil
	})
	return Union(list...), err
}

// setGaps replaces the list of gaps, which is short.
func (b buckets) setGaps(gaps Gaps) error {
	var stale [][]byte
	if err := b.gaps.ForEach(func(k, _ []byte) error {
		stale = append(stale, slices.Clone(k))
		return nil
	}); err != nil {
		return err
	}
	for _, k := range stale {
		if err := b.gaps.Delete(k); err != nil {
			return err
		}
	}
	for _, gap := range gaps {
		if err := b.gaps.Put(indexKey(gap.From), indexKey(gap.To)); err != nil {
			return err
		}
	}
	return nil
}

// indexEnd sorts behind all facts of an index, and before those of the next.
func indexEnd(index uint64) []byte { return append(indexKey(index), 0xff, 0xff, 0xff, 0xff, 0) }

// floorOf is the log index up to which routine facts may have been dropped, for a
// journal of a version that did not put it down.
func (b buckets) floorOf(sum *ledger) uint64 {
	if sum.Floor > 0 || sum.Dropped+sum.Expired == 0 {
		return sum.Floor
	}
	if k, _ := b.routine.Cursor().First(); len(k) == factKeyLen {
		return binary.BigEndian.Uint64(k)
	}
	return sum.Through
}
