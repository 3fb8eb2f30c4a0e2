package store

import "bytes"

// element is one entry of a page.
type element struct {
	key, value []byte
	flags      uint32
	child      uint64 // of a branch page
}

// elements reads the entries of a branch or leaf page, which may be one that
// lies inline in a bucket's value.
func elements(page []byte) (list []element, leaf bool, err error) {
	flags, count := native.Uint16(page[8:]), int(native.Uint16(page[10:]))
	if flags != flagBranch && flags != flagLeaf {
		return nil, false, damage("a page of kind %#x stands where one with data should", flags)
	}
	leaf = flags == flagLeaf
	if pageHeader+count*pageElement > len(page) {
		return nil, false, damage("a page with %d entries is too small for them", count)
	}
	list = make([]element, count)
	for i := range list {
		at := pageHeader + i*pageElement
		head := page[at : at+pageElement]
		var e element
		var position, keySize, valueSize uint64
		if leaf {
			e.flags = native.Uint32(head)
			position, keySize, valueSize = uint64(native.Uint32(head[4:])), uint64(native.Uint32(head[8:])), uint64(native.Uint32(head[12:]))
		} else {
			position, keySize = uint64(native.Uint32(head)), uint64(native.Uint32(head[4:]))
			e.child = native.Uint64(head[8:])
		}
		begin := uint64(at) + position
		if keySize == 0 || begin+keySize+valueSize > uint64(len(page)) {
			return nil, false, damage("an entry of a page lies outside of it")
		}
		e.key = page[begin : begin+keySize]
		e.value = page[begin+keySize : begin+keySize+valueSize]
		list[i] = e
	}
	return list, leaf, nil
}

// tree checks the page and all below it. Their keys must lie from least, up to
// and without most; nil is no bound.
func (c *pageCheck) tree(id uint64, least, most []byte, depth int) error {
	if depth > maxDepth {
		return damage("its pages are nested more than %d deep", maxDepth)
	}
	page, err := c.page(id)
	if err != nil {
		return err
	}
	return c.entries(page, least, most, depth, false)
}

func (c *pageCheck) entries(page, least, most []byte, depth int, inline bool) error {
	list, leaf, err := elements(page)
	if err != nil {
		return err
	}
	if !leaf && len(list) == 0 {
		return damage("a branch page has no entries")
	}
	for i, e := range list {
		if i > 0 && bytes.Compare(list[i-1].key, e.key) >= 0 ||
			least != nil && bytes.Compare(e.key, least) < 0 || most != nil && bytes.Compare(e.key, most) >= 0 {
			return damage("the keys of a page are out of order")
		}
		switch {
		case !leaf:
			end := most
			if i+1 < len(list) {
				end = list[i+1].key
			}
			err = c.tree(e.child, e.key, end, depth+1)
		case e.flags == elementBucket && inline:
			// bbolt gives a bucket with buckets in it pages of its own. This also
			// bounds the work: inline pages are not among those that are noted.
			err = damage("a small bucket holds a bucket")
		case e.flags == elementBucket:
			err = c.bucket(e.value, depth)
		case e.flags != 0:
			err = damage("an entry of a page is of an unknown kind %#x", e.flags)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *pageCheck) bucket(value []byte, depth int) error {
	if len(value) < bucketValue {
		return damage("a bucket has no root")
	}
	if root := native.Uint64(value); root != 0 {
		return c.tree(root, nil, nil, depth+1)
	}
	inline := value[bucketValue:]
	if len(inline) < pageHeader || native.Uint16(inline[8:]) != flagLeaf {
		return damage("a small bucket's page is missing")
	}
	return c.entries(inline, nil, nil, depth, true)
}
