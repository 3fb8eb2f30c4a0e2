package tables

import (
	"fmt"
	"slices"
	"sync"
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

// Tables are all records at one moment.
type Tables struct {
	layout *layout
	trees  [][]tree // by table and index
}

// New makes empty tables.
func New(schema Schema) *Tables {
	l := &layout{schema: schema, places: map[string]place{}}
	t := &Tables{layout: l}
	for i, table := range schema {
		p := place{table: i, indexes: map[string]int{}}
		trees := make([]tree, len(table.Indexes))
		for j, index := range table.Indexes {
			p.indexes[index.Name] = j
			trees[j] = newTree(index.Whole)
		}
		l.places[table.Name] = p
		t.trees = append(t.trees, trees)
	}
	return t
}

// Read is a transaction that reads.
func (t *Tables) Read() *Txn { return &Txn{layout: t.layout, trees: t.trees} }

// Write is a transaction that reads and writes. What it writes shows in what
// [Txn.Commit] returns, and to itself.
func (t *Tables) Write() *Txn {
	txn := &Txn{layout: t.layout, trees: make([][]tree, len(t.trees)), own: make([][]bool, len(t.trees))}
	for i, trees := range t.trees {
		txn.trees[i] = slices.Clone(trees)
		txn.own[i] = make([]bool, len(trees))
	}
	return txn
}

// Txn reads tables, and may change them.
type Txn struct {
	layout *layout
	trees  [][]tree
	// own says which trees are copies of the transaction's own, which it may change.
	own [][]bool // nil if it only reads
}

// Commit returns the tables as the transaction leaves them. It is not used any
// more afterwards.
func (x *Txn) Commit() *Tables {
	t := &Tables{layout: x.layout, trees: x.trees}
	x.trees, x.own = nil, nil
	return t
}

func (x *Txn) find(table, index string) (i, j int) {
	p, ok := x.layout.places[table]
	j, known := p.indexes[index]
	if !ok || !known {
		panic(fmt.Sprintf("tables: there is no index %s of a table %s", index, table))
	}
	return p.table, j
}

// change is a tree to change.
func (x *Txn) change(i, j int) tree {
	if !x.own[i][j] {
		x.layout.copying.Lock()
		defer x.layout.copying.Unlock()
		x.trees[i][j], x.own[i][j] = x.trees[i][j].copy(), true
	}
	return x.trees[i][j]
}

// First is the record with a key, nil if there is none.
func (x *Txn) First(table, index string, key []byte) any {
	i, j := x.find(table, index)
	if r := x.trees[i][j].get(string(key)); r != nil {
		return r.record
	}
	return nil
}

// FirstPrefix is the first record whose key begins with prefix, nil if there is
// none.
func (x *Txn) FirstPrefix(table, index string, prefix []byte) any {
	i, j := x.find(table, index)
	it := newIterator(x.trees[i][j], x.layout.schema[i].Indexes[j].Whole, string(prefix))
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
	i, j := x.find(table, index)
	t := x.trees[i][j]
	if x.own != nil && x.own[i][j] {
		t = t.copy() // keeps what is there now
	}
	return newIterator(t, x.layout.schema[i].Indexes[j].Whole, string(from))
}

// Insert stores a record, in place of the one with the same id.
func (x *Txn) Insert(table string, record any) error {
	i := x.table(table)
	indexes := x.layout.schema[i].Indexes
	made := &row{id: string(indexes[0].Keys(record)[0]), record: record}
	old := x.trees[i][0].get(made.id)
	if old != nil {
		made.id = old.id // one string for all that it is stored in
	}
	for j, index := range indexes {
		t := x.change(i, j)
		keys := index.Keys(record)
		if old != nil && j > 0 {
			for _, k := range index.Keys(old.record) {
				if !slices.ContainsFunc(keys, func(kept []byte) bool { return string(kept) == string(k) }) {
					t.remove(string(k))
				}
			}
		}
		for _, k := range keys {
			prefix := len(k)
			if !index.Whole {
				if prefix -= len(made.id); prefix < 0 || string(k[prefix:]) != made.id {
					return fmt.Errorf("tables: a key of the index %s of %s does not end with the record's id", index.Name, table)
				}
			}
			t.put(string(k), prefix, made)
		}
	}
	return nil
}

// Delete removes the record with the id of this one.
func (x *Txn) Delete(table string, record any) error {
	i := x.table(table)
	indexes := x.layout.schema[i].Indexes
	old := x.trees[i][0].get(string(indexes[0].Keys(record)[0]))
	if old == nil {
		return fmt.Errorf("tables: %s has no such record to delete", table)
	}
	for j, index := range indexes {
		t := x.change(i, j)
		for _, k := range index.Keys(old.record) {
			t.remove(string(k))
		}
	}
	return nil
}

func (x *Txn) table(name string) int {
	p, ok := x.layout.places[name]
	if !ok || x.own == nil {
		panic("tables: no table " + name + ", or a transaction that only reads")
	}
	return p.table
}
