package store

import (
	"bytes"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Due returns the names of the certificates whose NextAction is not after now,
// the oldest first, at most limit of them (all if limit is 0 or less). It costs
// in proportion to what it returns, however many certificates there are. A
// certificate with a zero NextAction is never due.
func (s *Store) Due(now time.Time, limit int) (names []string, err error) {
	err = s.view(func(tx *bolt.Tx) (err error) {
		names, err = upTo(tx, bucketSchedule, now, limit, &s.looked)
		return err
	})
	return names, err
}

// Looked counts the keys of the schedule that Due has looked at since Open.
func (s *Store) Looked() uint64 { return s.looked.Load() }

// countedCursor counts its steps: they are what a look at the schedule costs, on
// a busy machine and on an idle one.
type countedCursor struct {
	cursor *bolt.Cursor
	steps  *atomic.Uint64
}

func (c countedCursor) first() []byte {
	c.steps.Add(1)
	key, _ := c.cursor.First()
	return key
}

func (c countedCursor) next() []byte {
	c.steps.Add(1)
	key, _ := c.cursor.Next()
	return key
}

// NextDue is the earliest NextAction; false when no certificate has one.
func (s *Store) NextDue() (at time.Time, ok bool, err error) {
	err = s.view(func(tx *bolt.Tx) (err error) {
		at, ok, err = earliest(tx, bucketSchedule)
		return err
	})
	return at, ok, err
}

// upTo returns the names in a time-ordered index whose moments are not after a
// time, the oldest first, at most limit of them (all if limit is 0 or less).
// It adds the keys that it looks at to looked.
func upTo(tx *bolt.Tx, bucket string, at time.Time, limit int, looked *atomic.Uint64) ([]string, error) {
	var names []string
	// No name begins with this octet, since names are UTF-8.
	end := momentKey(at, "\xff")
	cursor := countedCursor{tx.Bucket([]byte(bucket)).Cursor(), looked}
	for key := cursor.first(); key != nil && bytes.Compare(key, end) < 0; key = cursor.next() {
		if limit > 0 && len(names) == limit {
			break
		}
		_, name, err := splitMoment(key)
		if err != nil {
			return nil, damage("%s %s: %w", bucket, quoteKey(key), err)
		}
		names = append(names, name)
	}
	return names, nil
}

// earliest is the first moment of a time-ordered index; false when it is empty.
func earliest(tx *bolt.Tx, bucket string) (at time.Time, ok bool, err error) {
	key, _ := tx.Bucket([]byte(bucket)).Cursor().First()
	if key == nil {
		return time.Time{}, false, nil
	}
	if at, _, err = splitMoment(key); err != nil {
		return time.Time{}, false, damage("%s %s: %w", bucket, quoteKey(key), err)
	}
	return at, true, nil
}
