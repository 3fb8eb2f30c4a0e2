package tables

import "strings"

// An Iterator goes through an index in the order of its keys, as it was when the
// iterator was made. One goroutine uses it.
type Iterator struct {
	tree   tree
	prefix string
	// path leads to the leaf that is read; next is the entry to come in it.
	path []step
	leaf *node
	next int
}

type step struct {
	node  *node
	child int
}

// seek goes to the first entry at or above a key.
func (it *Iterator) seek(k string) {
	n := it.tree.root
	if n == nil {
		return
	}
	for !n.leaf() {
		i := n.child(k)
		it.path = append(it.path, step{n, i})
		n = n.children[i]
	}
	it.leaf = n
	it.next, _ = it.tree.search(n, k)
}

// Next is the next record, nil at the end.
func (it *Iterator) Next() any {
	for it.leaf != nil && it.next == len(it.leaf.entries) {
		it.nextLeaf()
	}
	if it.leaf == nil {
		return nil
	}
	e := &it.leaf.entries[it.next]
	if !it.tree.hasPrefix(e, it.prefix) {
		it.leaf = nil
		return nil
	}
	it.next++
	return e.row.record
}

func (it *Iterator) nextLeaf() {
	for len(it.path) > 0 {
		last := &it.path[len(it.path)-1]
		if last.child++; last.child == len(last.node.children) {
			it.path = it.path[:len(it.path)-1]
			continue
		}
		n := last.node.children[last.child]
		for !n.leaf() {
			it.path = append(it.path, step{n, 0})
			n = n.children[0]
		}
		it.leaf, it.next = n, 0
		return
	}
	it.leaf = nil
}

// hasPrefix reports whether an entry's key begins so.
func (t *tree) hasPrefix(e *entry, prefix string) bool {
	if len(prefix) <= len(e.prefix) {
		return strings.HasPrefix(e.prefix, prefix)
	}
	return !t.whole && strings.HasPrefix(prefix, e.prefix) && strings.HasPrefix(e.row.id, prefix[len(e.prefix):])
}
