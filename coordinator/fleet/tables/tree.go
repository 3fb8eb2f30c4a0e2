package tables

import (
	"slices"
	"strings"
)

// Sizes of nodes. One that falls below a quarter joins a neighbour if both fit.
const (
	maxEntries  = 32
	maxChildren = 32
)

// An owner is the transaction that made a node and may change it in place.
type owner struct{ _ byte } // not empty: each has an address of its own

// A row is a record with the key of its id.
type row struct {
	id     string
	record any
}

// An entry is one key of an index. The key is prefix, then the row's id, but in
// an index with whole keys, where it is prefix alone.
type entry struct {
	prefix string
	row    *row
}

// A node is a leaf, with entries in the order of their keys, or has children:
// what is at or above seps[i] is in children[i+1], what is below in those before.
type node struct {
	owner    *owner
	entries  []entry
	seps     []string
	children []*node
}

func (n *node) leaf() bool { return n.children == nil }

// A tree is one index while it is read or changed. Nil is the empty root.
type tree struct {
	root  *node
	owner *owner // nil: it is not to be changed
	whole bool
}

// compare orders an entry and a key.
func (t *tree) compare(e *entry, k string) int {
	n := min(len(e.prefix), len(k))
	if c := strings.Compare(e.prefix[:n], k[:n]); c != 0 {
		return c
	}
	switch {
	case len(k) < len(e.prefix):
		return 1
	case t.whole && len(k) == len(e.prefix):
		return 0
	case t.whole:
		return -1
	}
	return strings.Compare(e.row.id, k[n:])
}

// key is an entry's whole key.
func (t *tree) key(e *entry) string {
	if t.whole {
		return e.prefix
	}
	return e.prefix + e.row.id
}

// search finds the first entry of a leaf that is at or above a key.
func (t *tree) search(n *node, k string) (at int, found bool) {
	low, high := 0, len(n.entries)
	for low < high {
		middle := int(uint(low+high) >> 1)
		switch c := t.compare(&n.entries[middle], k); {
		case c == 0:
			return middle, true
		case c < 0:
			low = middle + 1
		default:
			high = middle
		}
	}
	return low, false
}

// child is where a key belongs.
func (n *node) child(k string) int {
	low, high := 0, len(n.seps)
	for low < high {
		middle := int(uint(low+high) >> 1)
		if n.seps[middle] <= k {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// get is the row with a key, nil if there is none.
func (t *tree) get(k string) *row {
	n := t.root
	if n == nil {
		return nil
	}
	for !n.leaf() {
		n = n.children[n.child(k)]
	}
	at, found := t.search(n, k)
	if !found {
		return nil
	}
	return n.entries[at].row
}

// mine is a node that may be changed: n, or a copy of it.
func (t *tree) mine(n *node) *node {
	if n.owner == t.owner {
		return n
	}
	copied := &node{owner: t.owner}
	if n.leaf() {
		copied.entries = append(make([]entry, 0, maxEntries), n.entries...)
		return copied
	}
	copied.seps = append(make([]string, 0, maxChildren), n.seps...)
	copied.children = append(make([]*node, 0, maxChildren), n.children...)
	return copied
}

// put stores a row under a key, in place of the one that has it. prefixLen is the
// length of the entry's prefix, the start of the key.
func (t *tree) put(k string, prefixLen int, r *row) {
	if t.root == nil {
		t.root = &node{owner: t.owner, entries: append(make([]entry, 0, maxEntries), entry{strings.Clone(k[:prefixLen]), r})}
		return
	}
	root, right, sep := t.putIn(t.root, k, prefixLen, r)
	if right != nil {
		root = &node{owner: t.owner, seps: append(make([]string, 0, maxChildren), sep), children: append(make([]*node, 0, maxChildren), root, right)}
	}
	t.root = root
}

// putIn returns the node with the row, and, if it had to be split, the node to its
// right and the first key of that.
func (t *tree) putIn(n *node, k string, prefixLen int, r *row) (_, right *node, sep string) {
	n = t.mine(n)
	if !n.leaf() {
		i := n.child(k)
		below, beside, first := t.putIn(n.children[i], k, prefixLen, r)
		n.children[i] = below
		if beside == nil {
			return n, nil, ""
		}
		n.seps = slices.Insert(n.seps, i, first)
		n.children = slices.Insert(n.children, i+1, beside)
		if len(n.children) < maxChildren {
			return n, nil, ""
		}
		return t.splitInner(n, i+1 == len(n.children)-1)
	}
	at, found := t.search(n, k)
	if found {
		n.entries[at].row = r
		return n, nil, ""
	}
	n.entries = slices.Insert(n.entries, at, entry{n.prefix(at, k[:prefixLen]), r})
	if len(n.entries) < maxEntries {
		return n, nil, ""
	}
	return t.splitLeaf(n, at == len(n.entries)-1)
}

// prefix is the string itself, or the equal one of a neighbour of a place.
func (n *node) prefix(at int, text string) string {
	switch {
	case at > 0 && n.entries[at-1].prefix == text:
		return n.entries[at-1].prefix
	case at < len(n.entries) && n.entries[at].prefix == text:
		return n.entries[at].prefix
	}
	return strings.Clone(text)
}

// splitLeaf cuts a full leaf in two: in its middle, or near its end if it grows
// there, as it does when records come in order.
func (t *tree) splitLeaf(n *node, atEnd bool) (_, right *node, sep string) {
	cut := len(n.entries) / 2
	if atEnd {
		cut = len(n.entries) - 1
	}
	right = &node{owner: t.owner, entries: append(make([]entry, 0, maxEntries), n.entries[cut:]...)}
	clear(n.entries[cut:])
	n.entries = n.entries[:cut]
	return n, right, t.key(&right.entries[0])
}

func (t *tree) splitInner(n *node, atEnd bool) (_, right *node, sep string) {
	cut := len(n.children) / 2
	if atEnd {
		cut = len(n.children) - 2 // a node has two children at least
	}
	sep = n.seps[cut-1]
	right = &node{
		owner: t.owner, seps: append(make([]string, 0, maxChildren), n.seps[cut:]...),
		children: append(make([]*node, 0, maxChildren), n.children[cut:]...),
	}
	clear(n.seps[cut-1:])
	clear(n.children[cut:])
	n.seps, n.children = n.seps[:cut-1], n.children[:cut]
	return n, right, sep
}

// remove takes a key out. It reports whether it was there.
func (t *tree) remove(k string) bool {
	if t.get(k) == nil {
		return false // so that nothing is copied for nothing
	}
	root := t.removeIn(t.root, k)
	for !root.leaf() && len(root.children) == 1 {
		root = root.children[0]
	}
	if root.leaf() && len(root.entries) == 0 {
		root = nil
	}
	t.root = root
	return true
}

func (t *tree) removeIn(n *node, k string) *node {
	n = t.mine(n)
	if n.leaf() {
		at, _ := t.search(n, k)
		n.entries = slices.Delete(n.entries, at, at+1)
		return n
	}
	i := n.child(k)
	below := t.removeIn(n.children[i], k)
	n.children[i] = below
	switch {
	case below.size() == 0:
		n.children = slices.Delete(n.children, i, i+1)
		n.seps = slices.Delete(n.seps, max(0, i-1), max(0, i-1)+min(1, len(n.seps)))
	case below.size() < maxEntries/4 && len(n.children) > 1:
		t.join(n, min(i, len(n.children)-2))
	}
	return n
}

// size is how much of its room a node takes.
func (n *node) size() int { return len(n.entries) + len(n.children) }

// join makes one of the children i and i+1, if they fit in one.
func (t *tree) join(n *node, i int) {
	left, right := n.children[i], n.children[i+1]
	if left.size()+right.size() > maxEntries*3/4 {
		return
	}
	left = t.mine(left)
	if left.leaf() {
		left.entries = append(left.entries, right.entries...)
	} else {
		left.seps = append(append(left.seps, n.seps[i]), right.seps...)
		left.children = append(left.children, right.children...)
	}
	n.children[i] = left
	n.children = slices.Delete(n.children, i+1, i+2)
	n.seps = slices.Delete(n.seps, i, i+1)
}
