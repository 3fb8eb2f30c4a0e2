package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt trusts its pages: in a damaged file it panics, reads beyond the file, or
// worse, writes. So the pages are checked here first, on plain bytes. The layout
// is that of bbolt's format version 2, in the byte order of the machine.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageHeader  = 16 // id uint64, flags uint16, count uint16, overflow uint32
	pageElement = 16 // of both branch and leaf pages
	metaLength  = 64
	bucketValue = 16 // root uint64, sequence uint64

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10

	elementBucket = 0x01

	noFreelist = ^uint64(0)
	maxDepth   = 64
)

// fullCheckLimit is the size up to which Open checks every page. In a larger
// file it checks the meta pages and the length here, and every value and index
// through bbolt, where a damaged page is met as a panic or a fault in memory
// (guard).
const fullCheckLimit = 64 << 20

var native = binary.NativeEndian

// boltMeta is the root of a bbolt file.
type boltMeta struct {
	pageSize, root, freelist, highWater, txid uint64
}

// checkFile checks the pages of the state file without mapping or changing it.
func (s *source) checkFile() error {
	f, err := os.Open(s.path)
	if err != nil {
		return s.access(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return s.access(err)
	}
	if !info.Mode().IsRegular() {
		return s.foreign()
	}
	if err := checkPages(f, info.Size()); err != nil {
		return s.refusal(err)
	}
	return nil
}

// checkPages checks that the newest state of a bbolt file is one whole tree: each
// page is what the reference to it says, is referred to once or free, and its
// keys are in order.
func checkPages(r io.ReaderAt, size int64) error {
	if size == 0 {
		return damage("it is empty")
	}
	meta, err := readMeta(r, size)
	if err != nil {
		return err
	}
	if meta.highWater > uint64(size)/meta.pageSize {
		return damage("it is cut short: %d octets where %d pages of %d are in use", size, meta.highWater, meta.pageSize)
	}
	if meta.highWater < 4 || meta.root < 2 || meta.root >= meta.highWater {
		return damage("its root page %d is not among its %d pages", meta.root, meta.highWater)
	}
	if size > fullCheckLimit {
		return nil
	}
	c := &pageCheck{r: r, meta: meta, seen: make([]bool, meta.highWater)}
	c.seen[0], c.seen[1] = true, true
	if err := c.freelist(); err != nil {
		return err
	}
	if err := c.tree(meta.root, nil, nil, 0); err != nil {
		return err
	}
	if meta.freelist == noFreelist {
		return nil
	}
	for id, seen := range c.seen {
		if !seen {
			return damage("page %d is neither in use nor free", id)
		}
	}
	return nil
}

// readMeta returns the newer of the two meta pages that are whole. One that is
// not may be the trace of a power cut during a commit that was never reported as
// done: the other one then is the state before it.
func readMeta(r io.ReaderAt, size int64) (boltMeta, error) {
	var newest boltMeta
	found, marked := false, false
	consider := func(at int64) {
		var page [pageHeader + metaLength]byte
		// Of a file that is cut short, at least the mark may be left.
		if n, err := r.ReadAt(page[:], at); n < pageHeader+4 || err != nil && !errors.Is(err, io.EOF) {
			return
		}
		m, ok, mark := parseMeta(page[pageHeader:])
		marked = marked || mark
		if !ok || at != 0 && uint64(at) != m.pageSize || found && m.txid <= newest.txid {
			return
		}
		newest, found = m, true
	}
	consider(0)
	for at := int64(512); at <= 64<<10 && at < size; at *= 2 {
		consider(at)
	}
	switch {
	case found:
		return newest, nil
	case marked:
		return newest, damage("neither of its two meta pages is whole")
	}
	return newest, fmt.Errorf("%w: it is not a bbolt file at all", ErrForeign)
}

// parseMeta also reports whether b at least has the mark of a meta page.
func parseMeta(b []byte) (m boltMeta, ok, marked bool) {
	marked = native.Uint32(b) == boltMagic
	h := fnv.New64a()
	_, _ = h.Write(b[:56]) // never fails
	if !marked || native.Uint32(b[4:]) != boltVersion || native.Uint64(b[56:]) != h.Sum64() {
		return m, false, marked
	}
	m = boltMeta{
		pageSize:  uint64(native.Uint32(b[8:])),
		root:      native.Uint64(b[16:]),
		freelist:  native.Uint64(b[32:]),
		highWater: native.Uint64(b[40:]),
		txid:      native.Uint64(b[48:]),
	}
	return m, m.pageSize >= 512 && m.pageSize <= 64<<10 && m.pageSize&(m.pageSize-1) == 0, marked
}

type pageCheck struct {
	r    io.ReaderAt
	meta boltMeta
	seen []bool
}

// page reads a page with its overflow and takes note of it.
func (c *pageCheck) page(id uint64) ([]byte, error) {
	if id < 2 || id >= c.meta.highWater {
		return nil, damage("a reference leads to page %d, outside the file's %d", id, c.meta.highWater)
	}
	header := make([]byte, pageHeader)
	if _, err := c.r.ReadAt(header, int64(id*c.meta.pageSize)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	overflow := uint64(native.Uint32(header[12:]))
	if native.Uint64(header) != id || overflow >= c.meta.highWater-id {
		return nil, damage("page %d is not what it should be", id)
	}
	if err := c.note(id, overflow+1); err != nil {
		return nil, err
	}
	data := make([]byte, (overflow+1)*c.meta.pageSize)
	if _, err := c.r.ReadAt(data, int64(id*c.meta.pageSize)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return data, nil
}

func (c *pageCheck) note(id, count uint64) error {
	for ; count > 0; id, count = id+1, count-1 {
		if c.seen[id] {
			return damage("page %d is used twice", id)
		}
		c.seen[id] = true
	}
	return nil
}

func (c *pageCheck) freelist() error {
	if c.meta.freelist == noFreelist {
		return nil
	}
	data, err := c.page(c.meta.freelist)
	if err != nil {
		return err
	}
	if native.Uint16(data[8:]) != flagFreelist {
		return damage("its list of free pages is not one")
	}
	count, ids := uint64(native.Uint16(data[10:])), data[pageHeader:]
	if count == 0xFFFF { // then the first entry is the count
		count, ids = native.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids))/8 {
		return damage("its list of free pages is longer than its page")
	}
	for i := range count {
		id := native.Uint64(ids[i*8:])
		if id < 2 || id >= c.meta.highWater {
			return damage("free page %d is outside the file", id)
		}
		if err := c.note(id, 1); err != nil {
			return err
		}
	}
	return nil
}
