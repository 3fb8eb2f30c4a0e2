package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/wire"
)

// CertificateTx is what Update hands to its function. It is valid only until
// that returns.
type CertificateTx struct {
	// Record may be changed at will, its Name excepted; it is never nil.
	Record *Certificate
	// New is true when no record of this name is stored. The record then has
	// its Name, is idle, and is stored only if it is changed.
	New bool

	events []wire.Event
}

// Emit puts a fact into the outbox, in the same transaction. The store gives it
// its Sequence and, where At is zero, the time. Text beyond the limits of the
// wire is cut.
func (tx *CertificateTx) Emit(e wire.Event) { tx.events = append(tx.events, e) }

// Update is the one write of a certificate. It loads or makes the record, calls
// fn, and stores, in one synced transaction, the record with its place in the
// schedule, its row in the inventory (with a new revision only if the row
// changed) and the facts that fn emitted.
//
// When fn returns an error, nothing is stored and that error is returned as it
// is. When fn changes nothing, nothing is written. Updates are serialised: fn
// must be quick and must not write to the store itself.
func (s *Store) Update(name string, fn func(tx *CertificateTx) error) error {
	if err := checkName("certificate name", name); err != nil {
		return err
	}
	return s.write(commitCertificate, func(c *change) error { return c.update(name, fn) })
}

// UpdateAll is Update for several certificates in one synced transaction: all of
// it is stored or nothing, and nothing is written if nothing changed. fn is
// called once for each name, in their order.
func (s *Store) UpdateAll(names []string, fn func(tx *CertificateTx) error) error {
	for _, name := range names {
		if err := checkName("certificate name", name); err != nil {
			return err
		}
	}
	return s.write(commitCertificates, func(c *change) error {
		for _, name := range names {
			if err := c.update(name, fn); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *change) update(name string, fn func(tx *CertificateTx) error) error {
	record, err := getJSON[Certificate](c.tx, bucketCertificates, []byte(name))
	if err != nil {
		return err
	}
	ctx := &CertificateTx{Record: record, New: record == nil}
	if record == nil {
		ctx.Record = blank(name)
	}
	before := placesOf(ctx.Record)
	if err := fn(ctx); err != nil {
		return err
	}
	if ctx.Record == nil || ctx.Record.Name != name {
		return fmt.Errorf("update of certificate %q changed its name; remove it and make another", name)
	}
	if err := c.storeCertificate(before, ctx.Record, ctx.New); err != nil {
		return err
	}
	return c.emit(ctx.events)
}

// Names returns the names of all certificates that have a record, in order.
func (s *Store) Names() ([]string, error) {
	var names []string
	err := s.view(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucketCertificates)).ForEach(func(key, _ []byte) error {
			names = append(names, string(key))
			return nil
		})
	})
	return names, err
}

// blank is the record of a certificate of which nothing is known.
func blank(name string) *Certificate { return &Certificate{Name: name, Phase: PhaseIdle} }

// places are where the time-ordered indexes have a record.
type places struct{ action, end time.Time }

func placesOf(record *Certificate) places {
	return places{action: record.NextAction, end: record.serviceEnd()}
}

func (c *change) storeCertificate(before places, after *Certificate, isNew bool) error {
	key := []byte(after.Name)
	payload, err := json.Marshal(after)
	if err != nil {
		return fmt.Errorf("store certificate %q: %w", after.Name, err)
	}
	if isNew {
		unchanged, err := json.Marshal(blank(after.Name))
		if err != nil {
			return fmt.Errorf("store certificate %q: %w", after.Name, err)
		}
		if bytes.Equal(unchanged, payload) {
			return nil
		}
	}
	if err := c.put(bucketCertificates, key, seal(bucketCertificates, key, payload)); err != nil {
		return err
	}
	if err := c.move(bucketSchedule, after.Name, before.action, after.NextAction); err != nil {
		return err
	}
	if err := c.move(bucketExpiry, after.Name, before.end, after.serviceEnd()); err != nil {
		return err
	}
	return c.storeRow(after)
}

// move changes an entry of a time-ordered index. Zero times have no entry.
func (c *change) move(bucket, name string, from, to time.Time) error {
	if from.Equal(to) && !from.IsZero() {
		return c.put(bucket, momentKey(to, name), nil)
	}
	if !from.IsZero() {
		if err := c.remove(bucket, momentKey(from, name)); err != nil {
			return err
		}
	}
	if to.IsZero() {
		return nil
	}
	return c.put(bucket, momentKey(to, name), nil)
}

// storeRow gives the row a new revision if its data changed.
func (c *change) storeRow(record *Certificate) error {
	key := []byte(record.Name)
	data, err := encodeRow(record.Summary())
	if err != nil {
		return fmt.Errorf("store certificate %q: %w", record.Name, err)
	}
	old, err := getJSON[storedRow](c.tx, bucketRows, key)
	if err != nil {
		return err
	}
	if old != nil {
		if bytes.Equal(old.Data, data) {
			return nil
		}
		if err := c.dropRow(record.Name, *old); err != nil {
			return err
		}
	} else if err := c.dropRemovals(record.Name); err != nil {
		return err
	}
	c.counters.Revision++
	row := storedRow{Revision: c.counters.Revision, Data: data}
	c.counters.Digest.Toggle(row.row(record.Name).Hash())
	if err := c.put(bucketRevisions, numberKey(row.Revision), key); err != nil {
		return err
	}
	return c.putJSON(bucketRows, key, row)
}

// dropRow takes a row out of digest and index, but leaves it in bucketRows.
func (c *change) dropRow(name string, old storedRow) error {
	c.counters.Digest.Toggle(old.row(name).Hash())
	return c.remove(bucketRevisions, numberKey(old.Revision))
}

// dropRemovals forgets that a name was removed: its new row says more.
func (c *change) dropRemovals(name string) error {
	cursor := c.tx.Bucket([]byte(bucketRemovals)).Cursor()
	for key, value := cursor.First(); key != nil; key, value = cursor.Next() {
		removed, err := unseal(bucketRemovals, key, value)
		if err != nil {
			return err
		}
		if string(removed) == name {
			return c.remove(bucketRemovals, bytes.Clone(key))
		}
	}
	return nil
}

// Certificate returns the record of that name, and whether there is one. The
// record is the caller's own.
func (s *Store) Certificate(name string) (*Certificate, bool, error) {
	var record *Certificate
	err := s.view(func(tx *bolt.Tx) (err error) {
		record, err = getJSON[Certificate](tx, bucketCertificates, []byte(name))
		return err
	})
	return record, record != nil, err
}

// Certificates returns all records, ordered by name.
func (s *Store) Certificates() ([]*Certificate, error) {
	var list []*Certificate
	err := s.view(func(tx *bolt.Tx) (err error) {
		list, err = certificates(tx)
		return err
	})
	return list, err
}

func certificates(tx *bolt.Tx) ([]*Certificate, error) {
	var list []*Certificate
	err := tx.Bucket([]byte(bucketCertificates)).ForEach(func(key, value []byte) error {
		record := new(Certificate)
		list = append(list, record)
		return decode(bucketCertificates, key, value, record)
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// checkName refuses what cannot be a key here or a name on the wire.
func checkName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s is empty; give it one", what)
	case len(name) > wire.MaxNameLen:
		return fmt.Errorf("%s %.32q... has %d octets; give it at most %d", what, name, len(name), wire.MaxNameLen)
	case !utf8.ValidString(name):
		return fmt.Errorf("%s %q is not UTF-8", what, name)
	}
	for _, r := range name {
		if unicode.IsControl(r) {
			return fmt.Errorf("%s %q contains a control character; leave it out", what, name)
		}
	}
	return nil
}
