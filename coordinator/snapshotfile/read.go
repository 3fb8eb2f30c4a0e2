package snapshotfile

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

// Reader reads a file as a stream, with bounded memory.
type Reader struct {
	// Header is what the file says of itself. It is proved, like the content,
	// when Read has returned io.EOF.
	Header Header

	in      *source
	blocks  *blockReader
	unpack  *gzip.Reader
	content int64
	done    bool // the sum is right, and nothing follows
	err     error
}

// Open reads the beginning of a file. Errors wrap one of this package's, or are
// those of r.
func Open(r io.Reader) (*Reader, error) {
	in := &source{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	header, err := in.header()
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return &Reader{Header: header, in: in, blocks: &blockReader{in: in}}, nil
}

// Read reads the content. It returns io.EOF only when the whole file was there,
// and as it was written.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	n, err := r.read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("snapshot: %w", err)
	}
	r.err = err
	return n, err
}

func (r *Reader) read(p []byte) (int, error) {
	if r.unpack == nil {
		unpack, err := gzip.NewReader(r.blocks)
		if err != nil {
			return 0, r.packing(err)
		}
		unpack.Multistream(false)
		r.unpack = unpack
	}
	n, err := r.unpack.Read(p)
	r.content += int64(n)
	switch {
	case r.content > MaxContent:
		return 0, fmt.Errorf("%w: its content is larger than %d octets", ErrDamaged, int64(MaxContent))
	case errors.Is(err, io.EOF):
		if err := r.finish(); err != nil {
			return n, err
		}
		return n, io.EOF
	case err != nil:
		return n, r.packing(err)
	}
	return n, nil
}

// packing tells what the blocks say from what is wrong with what is in them.
func (r *Reader) packing(err error) error {
	if r.blocks.err != nil && !errors.Is(r.blocks.err, io.EOF) {
		return r.blocks.err
	}
	return fmt.Errorf("%w: its packing cannot be undone: %w", ErrDamaged, err)
}

// finish reads what comes after the content, and compares.
func (r *Reader) finish() error {
	if n, err := io.Copy(io.Discard, r.blocks); err != nil {
		return err
	} else if n > 0 {
		return fmt.Errorf("%w: something follows the content", ErrDamaged)
	}
	if r.blocks.content != uint64(r.content) { // not negative
		return fmt.Errorf("%w: %d octets where %d are expected", ErrDamaged, r.content, r.blocks.content)
	}
	want := r.in.sum.Sum(nil)
	got := make([]byte, sha256.Size)
	if err := r.in.full(got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	}
	if _, err := r.in.r.ReadByte(); err == nil {
		return fmt.Errorf("%w: something follows its end", ErrDamaged)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	r.done = true
	return nil
}

// Summary is what was read. ok is false before Read has returned io.EOF.
func (r *Reader) Summary() (s Summary, ok bool) {
	if !r.done {
		return Summary{}, false
	}
	return Summary{Header: r.Header, Size: r.in.n, Content: r.content, SHA256: r.in.sumText()}, true
}

// Check reads a file to its end and returns what it is.
func Check(r io.Reader) (Summary, error) {
	file, err := Open(r)
	if err != nil {
		return Summary{}, err
	}
	if _, err := io.Copy(io.Discard, file); err != nil {
		return Summary{}, err
	}
	s, _ := file.Summary()
	return s, nil
}

// source is the file; what is read is summed up, but for the sum itself, which
// is read last.
type source struct {
	r   *bufio.Reader
	sum hash.Hash
	n   int64
}

// full reads exactly so much.
func (s *source) full(p []byte) error {
	n, err := io.ReadFull(s.r, p)
	s.n += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrCutShort
	}
	if err != nil {
		return err
	}
	return nil
}

func (s *source) summed(p []byte) error {
	if err := s.full(p); err != nil {
		return err
	}
	s.sum.Write(p)
	return nil
}

func (s *source) sumText() string { return hex.EncodeToString(s.sum.Sum(nil)) }

func (s *source) header() (Header, error) {
	// What is no snapshot at all is told from one that is cut short.
	begin, err := s.r.Peek(len(armouredMagic) + 1)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return Header{}, err
	case strings.HasPrefix(string(begin), encryptedMagic[:min(len(encryptedMagic), len(begin))]) && len(begin) > 4,
		strings.HasPrefix(string(begin), armouredMagic):
		return Header{}, ErrEncrypted
	case len(begin) == 0:
		return Header{}, fmt.Errorf("%w: it is empty", ErrCutShort)
	case !strings.HasPrefix(string(begin), magic[:min(len(magic), len(begin))]):
		return Header{}, ErrForeign
	}
	head := make([]byte, len(magic)+8)
	if err := s.summed(head); err != nil {
		return Header{}, err
	}
	version := binary.BigEndian.Uint32(head[len(magic):])
	size := binary.BigEndian.Uint32(head[len(magic)+4:])
	switch {
	case version > formatVersion:
		return Header{}, fmt.Errorf("%w: format %d, known is %d", ErrNewer, version, formatVersion)
	case version == 0 || size > MaxHeader:
		return Header{}, fmt.Errorf("%w: header", ErrDamaged)
	}
	text := make([]byte, size)
	if err := s.summed(text); err != nil {
		return Header{}, err
	}
	return decodeHeader(text)
}

// blockReader gives the octets of the blocks, and io.EOF after the last one.
type blockReader struct {
	in      *source
	block   []byte // what is left of the present one
	buffer  []byte
	n       uint64
	content uint64 // as the end says it; valid after io.EOF
	err     error
}

func (b *blockReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(b.block) == 0 && b.err == nil {
		b.err = b.next()
	}
	if b.err != nil {
		return 0, b.err
	}
	n := copy(p, b.block)
	b.block = b.block[n:]
	return n, nil
}

func (b *blockReader) next() error {
	var head [4]byte
	if err := b.in.summed(head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > MaxBlock {
		return fmt.Errorf("%w: a block of %d octets", ErrDamaged, size)
	}
	if size == 0 {
		var end [16]byte
		if err := b.in.summed(end[:]); err != nil {
			return err
		}
		if n := binary.BigEndian.Uint64(end[:8]); n != b.n {
			return fmt.Errorf("%w: %d octets in blocks where %d are expected", ErrDamaged, b.n, n)
		}
		b.content = binary.BigEndian.Uint64(end[8:])
		return io.EOF
	}
	if cap(b.buffer) < int(size) { // at most MaxBlock
		b.buffer = make([]byte, size)
	}
	b.block = b.buffer[:size]
	b.n += uint64(size)
	return b.in.summed(b.block)
}
