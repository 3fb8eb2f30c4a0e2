package tables

import (
	"strings"

	"github.com/tidwall/btree"
)

// An Iterator goes through an index in the order of its keys, as it was when the
// iterator was made. One goroutine uses it.
type Iterator struct {
	entries btree.IterG[entry]
	whole   bool
	prefix  string
	more    bool // there is a current entry, the one to come
}

// newIterator begins at the first entry at or above a key. The tree must not
// change while the iterator is used.
func newIterator(t tree, whole bool, from string) *Iterator {
	it := &Iterator{whole: whole}
	it.entries.Init(t.BTreeG, false)
	it.more = it.entries.Seek(entry{prefix: from})
	return it
}

// Next is the next record, nil at the end.
func (it *Iterator) Next() any {
	if !it.more {
		return nil
	}
	e := it.entries.Item()
	if !e.hasPrefix(it.prefix, it.whole) {
		it.more = false
		return nil
	}
	it.more = it.entries.Next()
	return e.row.record
}

// hasPrefix reports whether an entry's key begins so.
func (e entry) hasPrefix(prefix string, whole bool) bool {
	if len(prefix) <= len(e.prefix) {
		return strings.HasPrefix(e.prefix, prefix)
	}
	return !whole && strings.HasPrefix(prefix, e.prefix) && strings.HasPrefix(e.row.id, prefix[len(e.prefix):])
}
