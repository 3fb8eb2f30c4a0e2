package tables

import (
	"strings"

	"github.com/tidwall/btree"
)

// degree makes nodes of up to 31 entries: large enough to be few, small enough
// to be copied for each change.
const degree = 16

// A row is a record with the key of its id.
type row struct {
	id     string
	record any
}

// An entry is one key of an index. The key is prefix, then the row's id, but in
// an index with whole keys, where it is prefix alone. What is looked for is an
// entry without a row.
type entry struct {
	prefix string
	row    *row
}

// id is only looked up where it counts: it is somewhere else in memory.
func (e entry) id() string {
	if e.row == nil {
		return ""
	}
	return e.row.id
}

// A tree is one index. Reading one that is published touches nothing in it;
// before it is changed it is copied, which costs nothing until then.
type tree struct {
	*btree.BTreeG[entry]
}

func newTree(whole bool) tree {
	less := func(a, b entry) bool { return compare(a, b) < 0 }
	if whole {
		less = func(a, b entry) bool { return a.prefix < b.prefix }
	}
	return tree{btree.NewBTreeGOptions(less, btree.Options{Degree: degree, NoLocks: true})}
}

// copy shares everything with the tree until one of them is changed.
func (t tree) copy() tree { return tree{t.BTreeG.Copy()} }

// compare orders two keys of two parts each as if they were in one piece.
func compare(a, b entry) int {
	n := min(len(a.prefix), len(b.prefix))
	if c := strings.Compare(a.prefix[:n], b.prefix[:n]); c != 0 {
		return c
	}
	if n < len(b.prefix) {
		return -compareRest(b.prefix[n:], b, a)
	}
	return compareRest(a.prefix[n:], a, b)
}

// compareRest orders what is left of a, rest and its id, and b's id.
func compareRest(rest string, a, b entry) int {
	id := b.id()
	n := min(len(rest), len(id))
	if c := strings.Compare(rest[:n], id[:n]); c != 0 {
		return c
	}
	if n < len(rest) {
		return 1
	}
	return strings.Compare(a.id(), id[n:])
}

// get is the row with a key, nil if there is none.
func (t tree) get(k string) *row {
	e, _ := t.Get(entry{prefix: k})
	return e.row
}

// put stores a row under a key, in place of the one that has it. prefixLen is the
// length of the entry's prefix, the start of the key: it is kept as the equal one
// of the entry before, or else as a copy.
func (t tree) put(k string, prefixLen int, r *row) {
	e := entry{k[:prefixLen], r}
	if prefixLen > 0 {
		shared := false
		t.Descend(e, func(before entry) bool {
			if shared = before.prefix == e.prefix; shared {
				e.prefix = before.prefix
			}
			return false
		})
		if !shared {
			e.prefix = strings.Clone(e.prefix)
		}
	}
	t.Set(e)
}

// remove takes a key out, if it is there.
func (t tree) remove(k string) {
	if t.get(k) != nil { // so that nothing is copied for nothing
		t.Delete(entry{prefix: k})
	}
}
