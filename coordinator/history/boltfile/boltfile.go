// Package boltfile keeps damaged bbolt files from ending the program: bbolt
// trusts the pages that it maps, and a file that was cut short or overwritten
// makes it panic, or fault where nothing can be recovered. What is refused here
// is left as it is.
package boltfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"runtime/debug"
)

var (
	// ErrDamaged says that a file is a bbolt file and is damaged.
	ErrDamaged = errors.New("the file is damaged")
	// ErrForeign says that a file is no bbolt file.
	ErrForeign = errors.New("the file is not a bbolt database")
)

// Layout of a meta page, of which a file has two, at its first two pages. The
// file's own byte order is that of the machine; all that Go runs this program
// on are little endian.
const (
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	pageHeader  = 16
	metaLen     = 64
	metaSummed  = 56 // bytes before the checksum
	minPage     = 1 << 10
	maxPage     = 64 << 10
)

// Check reads a file's meta pages and compares them with its size. It returns
// nil, an error that wraps ErrDamaged or ErrForeign, or that of reading.
func Check(path string) (err error) {
	f, err := os.Open(path) // the caller's own file
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	stat, err := f.Stat()
	if err != nil {
		return err
	}
	return check(f, stat.Size())
}

type meta struct {
	pageSize, highWater, txid uint64
}

func check(r io.ReaderAt, size int64) error {
	if size == 0 {
		return fmt.Errorf("%w: it is empty", ErrDamaged)
	}
	newest, marked, err := readMetas(r)
	switch {
	case err != nil:
		return err
	case newest == nil && marked:
		return fmt.Errorf("%w: neither of its headers is whole", ErrDamaged)
	case newest == nil:
		return ErrForeign
	}
	pages := uint64(size) / newest.pageSize // sizes are not negative
	if newest.highWater > pages {
		return fmt.Errorf("%w: it is cut short, at %d of %d pages", ErrDamaged, pages, newest.highWater)
	}
	return nil
}

// readMetas finds the newest valid meta page. The second one's place depends on
// the page size, which the first may be too damaged to tell.
func readMetas(r io.ReaderAt) (newest *meta, marked bool, err error) {
	offsets := []int64{0}
	for size := int64(minPage); size <= maxPage; size *= 2 {
		offsets = append(offsets, size)
	}
	for _, offset := range offsets {
		var page [pageHeader + metaLen]byte
		if _, err := r.ReadAt(page[:], offset); err != nil {
			if errors.Is(err, io.EOF) {
				continue
			}
			return nil, false, err
		}
		m, magic := parseMeta(page[pageHeader:])
		marked = marked || magic
		if m == nil || offset != 0 && uint64(offset) != m.pageSize {
			continue
		}
		if newest == nil || m.txid > newest.txid {
			newest = m
		}
	}
	return newest, marked, nil
}

// parseMeta reads one meta page; nil if it is none or damaged.
func parseMeta(b []byte) (m *meta, magic bool) {
	le := binary.LittleEndian
	if le.Uint32(b[0:]) != metaMagic {
		return nil, false
	}
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaSummed])
	pageSize := uint64(le.Uint32(b[8:]))
	if le.Uint32(b[4:]) != metaVersion || sum.Sum64() != le.Uint64(b[metaSummed:]) ||
		pageSize < minPage || pageSize > maxPage || pageSize&(pageSize-1) != 0 {
		return nil, true
	}
	return &meta{pageSize: pageSize, highWater: le.Uint64(b[40:]), txid: le.Uint64(b[48:])}, true
}

// Guard calls fn, which reads or writes a bbolt file, and turns a panic or a
// fault of the mapped memory into an error that wraps ErrDamaged.
func Guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, value)
		}
	}()
	return fn()
}
