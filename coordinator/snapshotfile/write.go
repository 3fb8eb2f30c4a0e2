package snapshotfile

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// blockSize is what a writer gathers before it writes a block.
const blockSize = 256 << 10

// Summary says what was written or read, whole.
type Summary struct {
	Header
	Size    int64  `json:"size"`    // of the file, in octets
	Content int64  `json:"content"` // of what is in it, unpacked
	SHA256  string `json:"sha256"`  // of the file without the sum at its end, lower-case hex
}

// Write writes a file. persist writes the content, which must not be larger than
// MaxContent. After an error, what w has got is cut short.
func Write(w io.Writer, h Header, persist func(w io.Writer) error) (Summary, error) {
	text, err := h.encode()
	if err != nil {
		return Summary{}, err
	}
	out := &summing{w: w, sum: sha256.New()}
	head := append([]byte(magic), 0, 0, 0, formatVersion)
	head = binary.BigEndian.AppendUint32(head, uint32(len(text))) // at most MaxHeader
	if _, err := out.Write(append(head, text...)); err != nil {
		return Summary{}, fmt.Errorf("snapshot: write: %w", err)
	}
	blocks := &blockWriter{w: out}
	packed, err := gzip.NewWriterLevel(blocks, gzip.BestSpeed)
	if err != nil {
		return Summary{}, fmt.Errorf("snapshot: %w", err)
	}
	content := &counting{w: packed}
	if err := errors.Join(persist(content), packed.Close()); err != nil {
		return Summary{}, fmt.Errorf("snapshot: write: %w", err)
	}
	if err := blocks.end(content.n); err != nil {
		return Summary{}, fmt.Errorf("snapshot: write: %w", err)
	}
	sum := out.sum.Sum(nil)
	if _, err := w.Write(sum); err != nil {
		return Summary{}, fmt.Errorf("snapshot: write: %w", err)
	}
	return Summary{Header: h, Size: out.n + int64(len(sum)), Content: content.n, SHA256: hex.EncodeToString(sum)}, nil
}

type counting struct {
	w io.Writer
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	if c.n+int64(len(p)) > MaxContent {
		return 0, fmt.Errorf("the state is larger than %d octets", int64(MaxContent))
	}
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

type summing struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

func (s *summing) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.sum.Write(p[:n])
	s.n += int64(n)
	return n, err
}

// blockWriter gathers octets and writes them as blocks: a length, then so many
// octets. The end is a block of no length, then the number of all octets and
// that of the unpacked content.
type blockWriter struct {
	w       io.Writer
	pending []byte
	n       uint64
}

func (b *blockWriter) Write(p []byte) (int, error) {
	b.pending = append(b.pending, p...)
	for len(b.pending) >= blockSize {
		if err := b.block(b.pending[:blockSize]); err != nil {
			return 0, err
		}
		b.pending = append(b.pending[:0], b.pending[blockSize:]...)
	}
	return len(p), nil
}

func (b *blockWriter) block(data []byte) error {
	b.n += uint64(len(data))
	head := binary.BigEndian.AppendUint32(nil, uint32(len(data))) // at most blockSize
	if _, err := b.w.Write(head); err != nil {
		return err
	}
	_, err := b.w.Write(data)
	return err
}

func (b *blockWriter) end(content int64) error {
	if len(b.pending) > 0 {
		if err := b.block(b.pending); err != nil {
			return err
		}
	}
	end := make([]byte, 4, 20)
	end = binary.BigEndian.AppendUint64(end, b.n)
	end = binary.BigEndian.AppendUint64(end, uint64(content)) // not negative
	_, err := b.w.Write(end)
	return err
}
