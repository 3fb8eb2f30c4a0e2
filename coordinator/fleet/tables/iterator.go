package tables

import (
	"strings"

	"github.com/tidwall/btree"
)

// An Iterator goes through an index in the order of its keys, or back, as it was when
// the iterator was made. One goroutine uses it.
type Iterator struct {
	cursor cursor
	prefix string
	back   bool
	more   bool // there is a current entry, the one to come
}

// A cursor stands at one entry of an index, if there is one.
type cursor interface {
	// at is the record, ok as long as the entry's key begins with prefix.
	at(prefix string) (record any, ok bool)
	next() bool
	prev() bool
}

// Next is the next record, nil at the end.
func (it *Iterator) Next() any {
	if !it.more {
		return nil
	}
	record, ok := it.cursor.at(it.prefix)
	if it.back {
		it.more = ok && it.cursor.prev()
	} else {
		it.more = ok && it.cursor.next()
	}
	return record
}

// turn has an iterator that begins at or above a key begin with the last entry below it
// instead, and go back.
func (it *Iterator) turn(last func() bool) *Iterator {
	it.back = true
	if it.more {
		it.more = it.cursor.prev()
	} else {
		it.more = last()
	}
	return it
}

// iterateRows begins at the first row at or above a key. The tree must not change
// while the iterator is used.
func iterateRows(t rows, from string) *Iterator {
	it, _ := seekRow(t, from)
	return it
}

func seekRow(t rows, from string) (*Iterator, *rowCursor) {
	c := &rowCursor{}
	c.rows.Init(t.BTreeG, false)
	return &Iterator{cursor: c, more: c.rows.Seek(row{id: from})}, c
}

type rowCursor struct {
	rows btree.IterG[row]
}

func (c *rowCursor) next() bool { return c.rows.Next() }

func (c *rowCursor) prev() bool { return c.rows.Prev() }

func (c *rowCursor) at(prefix string) (any, bool) {
	r := c.rows.Item()
	if !strings.HasPrefix(r.id, prefix) {
		return nil, false
	}
	return r.record, true
}

// iterateEntries is iterateRows along a further index.
func iterateEntries(t entries, records rows, from string) *Iterator {
	it, _ := seekEntry(t, records, from)
	return it
}

func seekEntry(t entries, records rows, from string) (*Iterator, *entryCursor) {
	c := &entryCursor{whole: t.whole, records: records}
	c.entries.Init(t.BTreeG, false)
	return &Iterator{cursor: c, more: c.entries.Seek(entry{prefix: from})}, c
}

type entryCursor struct {
	entries btree.IterG[entry]
	whole   bool
	records rows
	hint    btree.PathHint // neighbours in an index are often neighbours by id
}

func (c *entryCursor) next() bool { return c.entries.Next() }

func (c *entryCursor) prev() bool { return c.entries.Prev() }

func (c *entryCursor) at(prefix string) (any, bool) {
	e := c.entries.Item()
	if !e.hasPrefix(prefix, c.whole) {
		return nil, false
	}
	r, _ := c.records.get(e.name.id, &c.hint)
	return r.record, true
}

// hasPrefix reports whether an entry's key begins so.
func (e entry) hasPrefix(prefix string, whole bool) bool {
	if len(prefix) <= len(e.prefix) {
		return strings.HasPrefix(e.prefix, prefix)
	}
	return !whole && strings.HasPrefix(prefix, e.prefix) && strings.HasPrefix(e.name.id, prefix[len(e.prefix):])
}
