package store

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/wire"
)

// Removed is what is kept of a certificate that is not configured any more. It
// is in no schedule, in no inventory and in no horizon.
type Removed struct {
	Certificate *Certificate `json:"certificate"`
	At          time.Time    `json:"at"` // when it was removed
}

// Retire sets records aside, in one synced transaction: each leaves the schedule
// and the inventory, in which a removal stands for it, and is kept as it is for
// Restore or Forget. fact, which must be quick, makes the fact that is stored
// with it. Names without a record are passed over.
func (s *Store) Retire(names []string, at time.Time, fact func(*Certificate) wire.Event) error {
	return s.write(commitRetired, func(c *change) error {
		for _, name := range names {
			record, err := getJSON[Certificate](c.tx, bucketCertificates, []byte(name))
			if err != nil {
				return err
			}
			if record == nil {
				continue
			}
			if err := c.retire(record, at); err != nil {
				return err
			}
			if err := c.emit([]wire.Event{fact(record)}); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *change) retire(record *Certificate, at time.Time) error {
	key := []byte(record.Name)
	row, err := getJSON[storedRow](c.tx, bucketRows, key)
	if err != nil {
		return err
	}
	if row == nil {
		return damage("certificate %q has no row", record.Name)
	}
	if err := c.dropRow(record.Name, *row); err != nil {
		return err
	}
	if _, err := c.tx.CreateBucketIfNotExists([]byte(bucketRemoved)); err != nil {
		return fmt.Errorf("make %s: %w", bucketRemoved, err)
	}
	c.counters.Revision++
	removal := numberKey(c.counters.Revision)
	return errors.Join(
		c.remove(bucketCertificates, key),
		c.remove(bucketRows, key),
		c.move(bucketSchedule, record.Name, record.NextAction, time.Time{}),
		c.move(bucketExpiry, record.Name, record.serviceEnd(), time.Time{}),
		c.put(bucketRemovals, removal, seal(bucketRemovals, removal, key)),
		c.putJSON(bucketRemoved, key, Removed{Certificate: record, At: at}),
	)
}

// Restore puts records that were set aside back to where they were, in one
// synced transaction. Names of which nothing was set aside are passed over, and
// so are those that have a record, which is of an earlier version of the agent
// that ran meanwhile, and newer: what was set aside stays for Forget.
func (s *Store) Restore(names []string) error {
	return s.write(commitRestored, func(c *change) error {
		for _, name := range names {
			removed, err := removedOf(c.tx, name)
			if err != nil {
				return err
			}
			if removed == nil || has(c.tx.Bucket([]byte(bucketCertificates)), []byte(name)) {
				continue
			}
			if err := c.remove(bucketRemoved, []byte(name)); err != nil {
				return err
			}
			if err := c.storeCertificate(places{}, removed.Certificate, true); err != nil {
				return err
			}
		}
		return nil
	})
}

// Removed returns everything that was set aside, ordered by name.
func (s *Store) Removed() ([]Removed, error) {
	var list []Removed
	err := s.view(func(tx *bolt.Tx) error {
		return eachRemoved(tx, func(r *Removed) error {
			list = append(list, *r)
			return nil
		})
	})
	return list, err
}

// Forget deletes what was set aside of a certificate, and the orders that the
// store holds of it, in one synced transaction with the facts. It returns what
// was deleted; nil, with nothing stored, when nothing was set aside.
func (s *Store) Forget(name string, facts ...wire.Event) (forgotten *Removed, err error) {
	err = s.write(commitForgotten, func(c *change) error {
		if forgotten, err = removedOf(c.tx, name); err != nil || forgotten == nil {
			return err
		}
		var orders []Order
		if isRemoved(c.tx, name) { // and not managed again under the same name
			if orders, err = ordersOf(c.tx, name); err != nil {
				return err
			}
		}
		for _, order := range orders {
			if err := c.remove(bucketOrders, []byte(order.Request.ID)); err != nil {
				return err
			}
		}
		return errors.Join(c.remove(bucketRemoved, []byte(name)), c.emit(facts))
	})
	if err != nil {
		return nil, err
	}
	return forgotten, nil
}

func removedOf(tx *bolt.Tx, name string) (*Removed, error) {
	if tx.Bucket([]byte(bucketRemoved)) == nil {
		return nil, nil
	}
	return getJSON[Removed](tx, bucketRemoved, []byte(name))
}

// isRemoved reports whether a certificate was set aside and has no record.
func isRemoved(tx *bolt.Tx, name string) bool {
	b := tx.Bucket([]byte(bucketRemoved))
	return b != nil && has(b, []byte(name)) && !has(tx.Bucket([]byte(bucketCertificates)), []byte(name))
}

// eachRemoved calls fn with everything that was set aside, ordered by name.
func eachRemoved(tx *bolt.Tx, fn func(*Removed) error) error {
	b := tx.Bucket([]byte(bucketRemoved))
	if b == nil {
		return nil
	}
	return b.ForEach(func(key, value []byte) error {
		removed := new(Removed)
		if err := decode(bucketRemoved, key, value, removed); err != nil {
			return err
		}
		if removed.Certificate == nil || !bytes.Equal([]byte(removed.Certificate.Name), key) {
			return damage("what was removed as %s is of another name", quoteKey(key))
		}
		return fn(removed)
	})
}
