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

// rows are the records of a table, by id. Reading a tree that is published touches
// nothing in it; before it is changed it is copied, which costs nothing until then.
type rows struct {
	*btree.BTreeG[row]
}

func newRows() rows {
	less := func(a, b row) bool { return a.id < b.id }
	return rows{btree.NewBTreeGOptions(less, btree.Options{Degree: degree, NoLocks: true})}
}

// copy shares everything with the tree until one of them is changed.
func (t rows) copy() rows { return rows{t.BTreeG.Copy()} }

// get is the row with an id. Calls for ids that lie together are cheaper with one
// hint.
func (t rows) get(id string, hint *btree.PathHint) (row, bool) {
	return t.GetHint(row{id: id}, hint)
}

// A name is what the entries of a record say which one it is. They do not refer to
// the record itself: those whose keys stay stay when it is changed.
type name struct {
	id string
}

// An entry is one key of a further index. The key is prefix, then the record's id,
// but in an index with whole keys, where it is prefix alone. What is looked for is
// an entry without a name.
type entry struct {
	prefix string
	name   *name
}

// id is only looked up where it counts: it is somewhere else in memory.
func (e entry) id() string {
	if e.name == nil {
		return ""
	}
	return e.name.id
}

// entries are a further index, and are copied as rows are.
type entries struct {
	*btree.BTreeG[entry]
	whole bool
}

func newEntries(whole bool) entries {
	less := func(a, b entry) bool { return compare(a, b) < 0 }
	if whole {
		less = func(a, b entry) bool { return a.prefix < b.prefix }
	}
	return entries{btree.NewBTreeGOptions(less, btree.Options{Degree: degree, NoLocks: true}), whole}
}

func (t entries) copy() entries { return entries{t.BTreeG.Copy(), t.whole} }

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

// put stores a key. prefixLen is the length of the entry's prefix, the start of the
// key: it is kept as the equal one of the entry before, or else as a copy. Keys that
// lie together are put in more quickly with one hint.
func (t entries) put(k string, prefixLen int, of *name, hint *btree.PathHint) {
	e := entry{k[:prefixLen], of}
	shared := false
	if !t.whole && prefixLen > 0 {
		t.DescendHint(e, func(before entry) bool {
			if shared = before.prefix == e.prefix; shared {
				e.prefix = before.prefix
			}
			return false
		}, hint)
	}
	if !shared {
		e.prefix = strings.Clone(e.prefix)
	}
	t.SetHint(e, hint)
}

// remove takes a key out.
func (t entries) remove(k string) { t.Delete(entry{prefix: k}) }
