package store

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/wire"
)

// maxChangesBytes bounds one page of changes, so that with events and orders it
// stays below wire.MaxSyncBody.
const maxChangesBytes = 3 << 20

// rowOverhead is about what a row costs in a request beside its name and data.
const rowOverhead = 64

// Changes is one page of what changed in the inventory since a revision.
type Changes struct {
	Rows    []wire.Row
	Removed []wire.Removal
	// Upto is the revision that the receiver has reached with this page, and
	// Head the newest one; they are equal when this page is the last.
	Upto, Head uint64
	// Digest covers the whole inventory at Head.
	Digest wire.Digest
}

// Changes returns the rows and removals with revisions above after, in the order
// of their revisions, at most limit of them together (wire.MaxRows if limit is 0
// or less, or more than that), and about 3 MiB. After 0 it begins the full
// inventory, which removals need not be part of.
func (s *Store) Changes(after uint64, limit int) (Changes, error) {
	if limit <= 0 || limit > wire.MaxRows {
		limit = wire.MaxRows
	}
	var page Changes
	err := s.view(func(tx *bolt.Tx) error {
		c, err := loadCounters(tx)
		if err != nil {
			return err
		}
		page = Changes{Upto: c.Revision, Head: c.Revision, Digest: c.Digest}
		if after >= c.Revision {
			return nil
		}
		return page.fill(tx, after, limit)
	})
	if err != nil {
		return Changes{}, err
	}
	return page, nil
}

// fill merges the two indexes by revision.
func (p *Changes) fill(tx *bolt.Tx, after uint64, limit int) error {
	rows := tx.Bucket([]byte(bucketRevisions)).Cursor()
	removals := tx.Bucket([]byte(bucketRemovals)).Cursor()
	rowKey, rowName := rows.Seek(numberKey(after + 1))
	removedKey, removedValue := removals.Seek(numberKey(after + 1))
	reached, size := after, 0
	for n := 0; rowKey != nil || removedKey != nil; n++ {
		if n == limit {
			p.Upto = reached
			return nil
		}
		if rowKey == nil || removedKey != nil && binary.BigEndian.Uint64(removedKey) < binary.BigEndian.Uint64(rowKey) {
			removedName, err := unseal(bucketRemovals, removedKey, removedValue)
			if err != nil {
				return err
			}
			reached = binary.BigEndian.Uint64(removedKey)
			size += len(removedName) + rowOverhead
			p.Removed = append(p.Removed, wire.Removal{Name: string(removedName), Revision: reached})
			removedKey, removedValue = removals.Next()
			continue
		}
		stored, err := getJSON[storedRow](tx, bucketRows, rowName)
		if err != nil {
			return err
		}
		if stored == nil || stored.Revision != binary.BigEndian.Uint64(rowKey) {
			return damage("revision %d names the row %q, which has another one", binary.BigEndian.Uint64(rowKey), rowName)
		}
		if size += len(rowName) + len(stored.Data) + rowOverhead; size > maxChangesBytes && n > 0 {
			p.Upto = reached
			return nil
		}
		reached = stored.Revision
		p.Rows = append(p.Rows, stored.row(string(rowName)))
		rowKey, rowName = rows.Next()
	}
	return nil
}

// SyncState is what SaveSyncState was last given; zero before.
func (s *Store) SyncState() (SyncState, error) {
	var state SyncState
	err := s.view(func(tx *bolt.Tx) error {
		stored, err := getJSON[SyncState](tx, bucketMeta, []byte(metaSync))
		if stored != nil {
			state = *stored
		}
		return err
	})
	return state, err
}

// ClockMark is what SaveClockMark was last given; zero before.
func (s *Store) ClockMark() (ClockMark, error) {
	var mark ClockMark
	err := s.view(func(tx *bolt.Tx) error {
		stored, err := getJSON[ClockMark](tx, bucketMeta, []byte(metaClock))
		if stored != nil {
			mark = *stored
		}
		return err
	})
	return mark, err
}

// SaveClockMark replaces the mark.
func (s *Store) SaveClockMark(mark ClockMark) error {
	return s.write(commitClockMark, func(c *change) error { return c.putJSON(bucketMeta, []byte(metaClock), mark) })
}

// SaveSyncState stores the state and forgets the removals that the coordinator
// has acknowledged. When it has acknowledged more than was ever given here,
// which happens after the state file was restored from an old copy, the
// following revisions are above that, or they would be taken for repetitions.
func (s *Store) SaveSyncState(state SyncState) error {
	if state.AckedRevision > maxCounter {
		return fmt.Errorf("acknowledged revision %d is beyond any possible one; check the coordinator", state.AckedRevision)
	}
	return s.write(commitSyncState, func(c *change) error {
		var acked [][]byte
		cursor := c.tx.Bucket([]byte(bucketRemovals)).Cursor()
		for key, _ := cursor.First(); key != nil && binary.BigEndian.Uint64(key) <= state.AckedRevision; key, _ = cursor.Next() {
			acked = append(acked, append([]byte(nil), key...))
		}
		for _, key := range acked {
			if err := c.remove(bucketRemovals, key); err != nil {
				return err
			}
		}
		if state.AckedRevision > c.counters.Revision {
			c.counters.Revision = state.AckedRevision
			c.dirty = true
		}
		return c.putJSON(bucketMeta, []byte(metaSync), state)
	})
}
