package tables

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	"github.com/tidwall/btree"
)

// Schema describes tables. Names are unique.
type Schema []Table

// Table describes one table. Its first index is that of the record's id: every
// record has exactly one key in it.
type Table struct {
	Name    string
	Indexes []Index
}

// Index describes the keys by which records are found. Keys are unique: those of
// an index end with the key of the record's id, unless they are Whole, in which
// case their maker sees to it.
type Index struct {
	Name string
	// Keys of a record; none leaves it out of the index. They depend on the record
	// alone, which does not change while it is stored.
	Keys  func(record any) [][]byte
	Whole bool
	// Same, when it is set, reports that two records with one id have the same keys,
	// which spares making them. It may be false although they have.
	Same func(a, b any) bool
}

// A layout is where tables and indexes are by their names.
type layout struct {
	schema Schema
	places map[string]place
	// copying is held while a tree is copied: the library notes in it that there is
	// a copy, and any number of transactions may begin with the same tables. Who
	// reads does not look at that note.
	copying sync.Mutex
}

type place struct {
	table   int
	indexes map[string]int
}

// content is what one table holds.
type content struct {
	rows    rows
	indexes []entries // from the second on
	// own says which trees are copies of the transaction's own, which it may change,
	// in the order of the schema's indexes; nil if it only reads.
	own []bool
}

// Tables are all records at one moment.
type Tables struct {
	layout *layout
	tables []content
}

// New makes empty tables.
func New(schema Schema) *Tables {
	l := &layout{schema: schema, places: map[string]place{}}
	t := &Tables{layout: l}
	for i, table := range schema {
		p := place{table: i, indexes: map[string]int{}}
		c := content{rows: newRows()}
		for j, index := range table.Indexes {
			p.indexes[index.Name] = j
			if j > 0 {
				c.indexes = append(c.indexes, newEntries(index.Whole))
			}
		}
		l.places[table.Name] = p
		t.tables = append(t.tables, c)
	}
	return t
}

// Read is a transaction that reads.
func (t *Tables) Read() *Txn { return &Txn{layout: t.layout, tables: t.tables} }

// Write is a transaction that reads and writes. What it writes shows in what
// [Txn.Commit] returns, and to itself.
func (t *Tables) Write() *Txn {
	return &Txn{layout: t.layout, tables: slices.Clone(t.tables), writes: true}
}

// Txn reads tables, and may change them.
type Txn struct {
	layout *layout
	tables []content
	writes bool
}

// Commit returns the tables as the transaction leaves them. It is not used any
// more afterwards.
func (x *Txn) Commit() *Tables {
	t := &Tables{layout: x.layout, tables: x.tables}
	for i := range t.tables {
		t.tables[i].own = nil
	}
	x.tables, x.writes = nil, false
	return t
}

func (x *Txn) find(table, index string) (c *content, j int) {
	p, ok := x.layout.places[table]
	j, known := p.indexes[index]
	if !ok || !known {
		panic(fmt.Sprintf("tables: there is no index %s of a table %s", index, table))
	}
	return &x.tables[p.table], j
}

// changing is a table to change, and its indexes.
func (x *Txn) changing(table string) (*content, []Index) {
	p, ok := x.layout.places[table]
	if !ok || !x.writes {
		panic("tables: no table " + table + ", or a transaction that only reads")
	}
	c := &x.tables[p.table]
	if c.own == nil {
		c.own, c.indexes = make([]bool, 1+len(c.indexes)), slices.Clone(c.indexes)
	}
	return c, x.layout.schema[p.table].Indexes
}

// ownRows are a table's rows to change.
func (x *Txn) ownRows(c *content) rows {
	if !c.own[0] {
		x.layout.copying.Lock()
		defer x.layout.copying.Unlock()
		c.rows, c.own[0] = c.rows.copy(), true
	}
	return c.rows
}

// ownIndex is one of a table's further indexes to change.
func (x *Txn) ownIndex(c *content, j int) entries {
	if !c.own[j] {
		x.layout.copying.Lock()
		defer x.layout.copying.Unlock()
		c.indexes[j-1], c.own[j] = c.indexes[j-1].copy(), true
	}
	return c.indexes[j-1]
}

// First is the record with a key, nil if there is none.
func (x *Txn) First(table, index string, key []byte) any {
	c, j := x.find(table, index)
	id := string(key)
	if j > 0 {
		e, ok := c.indexes[j-1].Get(entry{prefix: id})
		if !ok {
			return nil
		}
		id = e.name.id
	}
	r, _ := c.rows.get(id, nil)
	return r.record
}

// FirstPrefix is the first record whose key begins with prefix, nil if there is
// none.
func (x *Txn) FirstPrefix(table, index string, prefix []byte) any {
	c, j := x.find(table, index)
	var it *Iterator
	if j == 0 {
		it = iterateRows(c.rows, string(prefix))
	} else {
		it = iterateEntries(c.indexes[j-1], c.rows, string(prefix))
	}
	it.prefix = string(prefix)
	return it.Next()
}

// Scan goes through the records whose key in an index begins with prefix.
func (x *Txn) Scan(table, index string, prefix []byte) *Iterator {
	it := x.ScanFrom(table, index, prefix)
	it.prefix = string(prefix)
	return it
}

// ScanFrom goes through the records whose key in an index is at or above from.
func (x *Txn) ScanFrom(table, index string, from []byte) *Iterator {
	records, keys, further := x.present(table, index)
	if !further {
		return iterateRows(records, string(from))
	}
	return iterateEntries(keys, records, string(from))
}

// ScanBack goes through the records whose key in an index is below a key, from the last
// one back; through all of them if below is nil.
func (x *Txn) ScanBack(table, index string, below []byte) *Iterator {
	records, keys, further := x.present(table, index)
	if !further {
		it, cursor := seekRow(records, string(below))
		it.more = it.more && below != nil
		return it.turn(cursor.rows.Last)
	}
	it, cursor := seekEntry(keys, records, string(below))
	it.more = it.more && below != nil
	return it.turn(cursor.entries.Last)
}

// present is a table and its index as they are now, whatever the transaction goes on to
// change; further is false for the index by id, which the table itself is.
func (x *Txn) present(table, index string) (records rows, keys entries, further bool) {
	c, j := x.find(table, index)
	records = c.rows
	if c.own != nil && c.own[0] {
		records = records.copy()
	}
	if j == 0 {
		return records, entries{}, false
	}
	keys = c.indexes[j-1]
	if c.own != nil && c.own[j] {
		keys = keys.copy()
	}
	return records, keys, true
}

// Insert stores a record, in place of the one with the same id.
func (x *Txn) Insert(table string, record any) error {
	c, indexes := x.changing(table)
	var hint btree.PathHint
	made := row{id: string(indexes[0].Keys(record)[0]), record: record}
	old, replaces := c.rows.get(made.id, &hint)
	if replaces {
		made.id = old.id // one string for all that it is stored in
	}
	x.ownRows(c).SetHint(made, &hint)
	var called *name
	for j := 1; j < len(indexes); j++ {
		index := &indexes[j]
		if replaces && index.Same != nil && index.Same(old.record, record) {
			continue
		}
		keys := index.Keys(record)
		var before [][]byte
		if replaces {
			before = index.Keys(old.record)
		}
		for _, k := range before {
			if !contains(keys, k) {
				x.ownIndex(c, j).remove(string(k))
			}
		}
		for _, k := range keys {
			if contains(before, k) {
				continue
			}
			prefix, err := index.prefixOf(k, table, made.id)
			if err != nil {
				return err
			}
			if called == nil {
				called = &name{id: made.id}
			}
			x.ownIndex(c, j).put(string(k), prefix, called, new(btree.PathHint))
		}
	}
	return nil
}

func contains(keys [][]byte, k []byte) bool {
	for _, other := range keys {
		if bytes.Equal(other, k) {
			return true
		}
	}
	return false
}

// Delete removes the record with the id of this one.
func (x *Txn) Delete(table string, record any) error {
	c, indexes := x.changing(table)
	old, ok := c.rows.get(string(indexes[0].Keys(record)[0]), nil)
	if !ok {
		return fmt.Errorf("tables: %s has no such record to delete", table)
	}
	x.ownRows(c).Delete(old)
	for j := 1; j < len(indexes); j++ {
		for _, k := range indexes[j].Keys(old.record) {
			x.ownIndex(c, j).remove(string(k))
		}
	}
	return nil
}
