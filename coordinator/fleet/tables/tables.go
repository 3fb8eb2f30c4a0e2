package tables

import (
	"fmt"
	"slices"
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
}

type place struct {
	table   int
	indexes map[string]int
}

// Tables are all records at one moment.
type Tables struct {
	layout *layout
	roots  [][]*node // by table and index
}

// New makes empty tables.
func New(schema Schema) *Tables {
	l := &layout{schema: schema, places: map[string]place{}}
	t := &Tables{layout: l}
	for i, table := range schema {
		p := place{table: i, indexes: map[string]int{}}
		for j, index := range table.Indexes {
			p.indexes[index.Name] = j
		}
		l.places[table.Name] = p
		t.roots = append(t.roots, make([]*node, len(table.Indexes)))
	}
	return t
}

// Read is a transaction that reads.
func (t *Tables) Read() *Txn { return &Txn{layout: t.layout, roots: t.roots} }

// Write is a transaction that reads and writes. What it writes shows in what
// [Txn.Commit] returns, and to itself.
func (t *Tables) Write() *Txn {
	txn := &Txn{layout: t.layout, roots: make([][]*node, len(t.roots)), owners: make([][]*owner, len(t.roots))}
	first := new(owner)
	for i, roots := range t.roots {
		txn.roots[i] = slices.Clone(roots)
		txn.owners[i] = slices.Repeat([]*owner{first}, len(roots))
	}
	return txn
}

// Txn reads tables, and may change them.
type Txn struct {
	layout *layout
	roots  [][]*node
	owners [][]*owner // nil if it only reads
}

// Commit returns the tables as the transaction leaves them. It is not used any
// more afterwards.
func (x *Txn) Commit() *Tables {
	t := &Tables{layout: x.layout, roots: x.roots}
	x.roots, x.owners = nil, nil
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

func (x *Txn) tree(i, j int) tree {
	t := tree{root: x.roots[i][j], whole: x.layout.schema[i].Indexes[j].Whole}
	if x.owners != nil {
		t.owner = x.owners[i][j]
	}
	return t
}

// First is the record with a key, nil if there is none.
func (x *Txn) First(table, index string, key []byte) any {
	t := x.tree(x.find(table, index))
	if r := t.get(string(key)); r != nil {
		return r.record
	}
	return nil
}

// FirstPrefix is the first record whose key begins with prefix, nil if there is
// none.
func (x *Txn) FirstPrefix(table, index string, prefix []byte) any {
	it := Iterator{tree: x.tree(x.find(table, index)), prefix: string(prefix)}
	it.seek(it.prefix)
	return it.Next()
}

// Scan goes through the records whose key in an index begins with prefix.
func (x *Txn) Scan(table, index string, prefix []byte) *Iterator {
	it := x.iterate(table, index)
	it.prefix = string(prefix)
	it.seek(it.prefix)
	return it
}

// ScanFrom goes through the records whose key in an index is at or above from.
func (x *Txn) ScanFrom(table, index string, from []byte) *Iterator {
	it := x.iterate(table, index)
	it.seek(string(from))
	return it
}

func (x *Txn) iterate(table, index string) *Iterator {
	i, j := x.find(table, index)
	it := &Iterator{tree: x.tree(i, j)}
	if x.owners != nil {
		// The iterator keeps what is there now: from here on it is copied to be
		// changed.
		x.owners[i][j] = new(owner)
	}
	return it
}

// Insert stores a record, in place of the one with the same id.
func (x *Txn) Insert(table string, record any) error {
	i := x.table(table)
	indexes := x.layout.schema[i].Indexes
	ids := x.tree(i, 0)
	made := &row{id: string(indexes[0].Keys(record)[0]), record: record}
	old := ids.get(made.id)
	if old != nil {
		made.id = old.id // one string for all that it is stored in
	}
	for j, index := range indexes {
		t := x.tree(i, j)
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
		x.roots[i][j] = t.root
	}
	return nil
}

// Delete removes the record with the id of this one.
func (x *Txn) Delete(table string, record any) error {
	i := x.table(table)
	indexes := x.layout.schema[i].Indexes
	ids := x.tree(i, 0)
	old := ids.get(string(indexes[0].Keys(record)[0]))
	if old == nil {
		return fmt.Errorf("tables: %s has no such record to delete", table)
	}
	for j, index := range indexes {
		t := x.tree(i, j)
		for _, k := range index.Keys(old.record) {
			t.remove(string(k))
		}
		x.roots[i][j] = t.root
	}
	return nil
}

func (x *Txn) table(name string) int {
	p, ok := x.layout.places[name]
	if !ok || x.owners == nil {
		panic("tables: no table " + name + ", or a transaction that only reads")
	}
	return p.table
}
