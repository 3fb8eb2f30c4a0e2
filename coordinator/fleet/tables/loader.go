package tables

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/tidwall/btree"
)

// A Loader fills empty tables with records that come table by table, in the order
// of their ids, which is the quickest way there is. It is used by one goroutine, and
// works on several: each index is filled by itself.
type Loader struct {
	tables *Tables
	turns  chan struct{} // held by who works
}

// NewLoader begins with empty tables.
func NewLoader(schema Schema) *Loader {
	return &Loader{tables: New(schema), turns: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// Add adds records of a table. None of them may have the id of another.
func (l *Loader) Add(table string, records []any) error {
	p, ok := l.tables.layout.places[table]
	if !ok {
		panic("tables: no table " + table)
	}
	c, indexes := &l.tables.tables[p.table], l.tables.layout.schema[p.table].Indexes
	names := make([]*name, len(records))
	for i, record := range records {
		names[i] = &name{id: string(indexes[0].Keys(record)[0])}
		if _, taken := c.rows.Load(row{id: names[i].id, record: record}); taken {
			return fmt.Errorf("tables: %s has two records of one id", table)
		}
	}
	failures := make([]error, len(indexes))
	var fill sync.WaitGroup
	for j := 1; j < len(indexes); j++ {
		fill.Go(func() {
			l.turns <- struct{}{}
			defer func() { <-l.turns }()
			failures[j] = c.indexes[j-1].fill(&indexes[j], table, records, names)
		})
	}
	fill.Wait()
	return errors.Join(failures...)
}

// Tables are what was loaded. The Loader is not used any more afterwards.
func (l *Loader) Tables() *Tables { return l.tables }

// fill puts the keys of records into an index.
func (t entries) fill(index *Index, table string, records []any, names []*name) error {
	var hint btree.PathHint
	for i, record := range records {
		for _, k := range index.Keys(record) {
			prefix, err := index.prefixOf(k, table, names[i].id)
			if err != nil {
				return err
			}
			t.put(string(k), prefix, names[i], &hint)
		}
	}
	return nil
}

// prefixOf is how much of a key of a record stands before its id.
func (x *Index) prefixOf(k []byte, table, id string) (int, error) {
	if x.Whole {
		return len(k), nil
	}
	prefix := len(k) - len(id)
	if prefix < 0 || string(k[prefix:]) != id {
		return 0, fmt.Errorf("tables: a key of the index %s of %s does not end with the record's id", x.Name, table)
	}
	return prefix, nil
}
