package store

import (
	"bytes"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Due returns the names of the certificates whose NextAction is not after now,
// the oldest first, at most limit of them (all if limit is 0 or less). It costs
// in proportion to what it returns, however many certificates there are. A
// certificate with a zero NextAction is never due.
func (s *Store) Due(now time.Time, limit int) ([]string, error) {
	var names []string
	// No name begins with this octet, since names are UTF-8.
	end := momentKey(now, "\xff")
	err := s.view(func(tx *bolt.Tx) error {
		cursor := tx.Bucket([]byte(bucketSchedule)).Cursor()
		for key, _ := cursor.First(); key != nil && bytes.Compare(key, end) < 0; key, _ = cursor.Next() {
			if limit > 0 && len(names) == limit {
				return nil
			}
			_, name, err := splitMoment(key)
			if err != nil {
				return damage("%s %s: %w", bucketSchedule, quoteKey(key), err)
			}
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

// NextDue is the earliest NextAction; false when no certificate has one.
func (s *Store) NextDue() (time.Time, bool, error) {
	return s.earliest(bucketSchedule)
}

// SafeUntil is the offline horizon of the host: the earliest expiry of anything
// that is served, which is when the first expired certificate would be served if
// nothing were renewed any more (see Certificate.Horizon). Nil when nothing is
// in service. That something is served everywhere it should be is another fact.
func (s *Store) SafeUntil() (*time.Time, error) {
	at, ok, err := s.earliest(bucketExpiry)
	if err != nil || !ok {
		return nil, err
	}
	return &at, nil
}

func (s *Store) earliest(bucket string) (at time.Time, ok bool, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		key, _ := tx.Bucket([]byte(bucket)).Cursor().First()
		if key == nil {
			return nil
		}
		var err error
		if at, _, err = splitMoment(key); err != nil {
			return damage("%s %s: %w", bucket, quoteKey(key), err)
		}
		ok = true
		return nil
	})
	return at, ok, err
}
