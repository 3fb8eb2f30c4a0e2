package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/durable"
)

// change is one write transaction.
type change struct {
	store    *Store
	tx       *bolt.Tx
	counters counters
	dirty    bool
	dropped  []Dropped
}

// write runs fn in the one write transaction and commits it if fn changed
// something; otherwise nothing is written and nothing synced. step is of the
// caller alone. An error of fn is returned as it is, and nothing is stored.
func (s *Store) write(step durable.Step, fn func(*change) error) error {
	dropped, err := s.writeLocked(step, fn)
	if err != nil {
		return err
	}
	if s.onDrop != nil {
		for _, d := range dropped {
			s.onDrop(d)
		}
	}
	return nil
}

func (s *Store) writeLocked(step durable.Step, fn func(*change) error) ([]Dropped, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unknown != nil {
		return nil, s.unknown
	}
	tx, err := s.db.Begin(true)
	if err != nil {
		return nil, s.source.access(err)
	}
	id := tx.ID()
	// After a commit this does nothing; after an error or a panic of fn it
	// leaves the file as it was.
	defer func() { _ = tx.Rollback() }()
	c := &change{store: s, tx: tx}
	if c.counters, err = loadCounters(tx); err != nil {
		return nil, s.source.damaged(err)
	}
	if err := fn(c); err != nil {
		return nil, s.found(err)
	}
	if !c.dirty {
		return nil, nil
	}
	if err := c.putJSON(bucketMeta, []byte(metaCounters), c.counters); err != nil {
		return nil, err
	}
	if err := s.hook.Around(step, s.source.path, tx.Commit); err != nil {
		return nil, s.commitError(id, err)
	}
	s.commits.Add(1)
	return c.dropped, nil
}

// commitError tells the two kinds of failed commits apart. bbolt writes the
// pages, syncs, writes one meta page, syncs. Before the meta page is written,
// the change has not happened and never will. Once it is written readers see the
// change, but whether it survives a power cut is unknown: what was told to
// nobody may be lost, or may come true, and only the disk knows.
//
// Only a disk that is full or read-only is trusted again at the next write. One
// that fails in any other way may have lost what it took before, and says so
// once only: a later sync that succeeds proves nothing.
func (s *Store) commitError(id int, err error) error {
	visible := false
	viewErr := s.db.View(func(tx *bolt.Tx) error {
		visible = tx.ID() >= id
		return nil
	})
	if !visible && viewErr == nil && (durable.IsFull(err) || durable.IsReadOnly(err)) {
		return s.source.access(err)
	}
	s.unknown = &Error{File: s.source.path, Mend: "check the disk and start certctl-agent again",
		Err: fmt.Errorf("%w: %w", ErrStateUnknown, errors.Join(err, viewErr))}
	return s.unknown
}

// view runs fn in a read transaction.
func (s *Store) view(fn func(*bolt.Tx) error) error {
	if err := guard(func() error { return s.db.View(fn) }); err != nil {
		return s.found(err)
	}
	return nil
}

// found adds file and mend to damage that was met while the store was open.
func (s *Store) found(err error) error {
	if _, ok := errors.AsType[*Error](err); !ok && errors.Is(err, ErrDamaged) {
		return s.source.damaged(err)
	}
	return err
}

func (c *change) get(bucket string, key []byte) []byte {
	return c.tx.Bucket([]byte(bucket)).Get(key)
}

// put stores value, unless it is there already.
func (c *change) put(bucket string, key, value []byte) error {
	b := c.tx.Bucket([]byte(bucket))
	// Not Get, which returns nil for some empty values.
	if k, old := b.Cursor().Seek(key); bytes.Equal(k, key) && bytes.Equal(old, value) {
		return nil
	}
	c.dirty = true
	if err := b.Put(key, value); err != nil {
		return fmt.Errorf("store %s %s: %w", bucket, quoteKey(key), err)
	}
	return nil
}

func (c *change) putJSON(bucket string, key []byte, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("store %s %s: %w", bucket, quoteKey(key), err)
	}
	return c.put(bucket, key, seal(bucket, key, payload))
}

// remove deletes a key; it need not be there.
func (c *change) remove(bucket string, key []byte) error {
	b := c.tx.Bucket([]byte(bucket))
	if !has(b, key) {
		return nil
	}
	c.dirty = true
	if err := b.Delete(key); err != nil {
		return fmt.Errorf("delete %s %s: %w", bucket, quoteKey(key), err)
	}
	return nil
}

// getJSON reads a sealed value into a new T; nil if it is not there.
func getJSON[T any](tx *bolt.Tx, bucket string, key []byte) (*T, error) {
	value := tx.Bucket([]byte(bucket)).Get(key)
	if value == nil {
		return nil, nil
	}
	v := new(T)
	if err := decode(bucket, key, value, v); err != nil {
		return nil, err
	}
	return v, nil
}
