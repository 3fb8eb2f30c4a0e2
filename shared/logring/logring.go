// Package logring keeps the newest lines of a program's log in memory, so that
// they can be looked at after the fact: by whoever asks for help, without access
// to the host.
package logring

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
)

// Bounds of what is kept.
const (
	Lines   = 1000
	Bytes   = 1 << 20
	maxLine = 8 << 10 // of one line; the rest of it is cut off
)

var cut = []byte("[cut]\n")

// A Ring keeps the newest lines, at most [Lines] of them and [Bytes] in all. It is
// safe for concurrent use. The zero value is empty and ready.
type Ring struct {
	mu      sync.Mutex
	lines   [Lines][]byte // guarded by mu; each ends with a line feed
	first   int           // guarded by mu; the oldest
	count   int           // guarded by mu
	size    int           // guarded by mu; of all lines
	dropped uint64        // guarded by mu; lines that were kept and are not any more
}

// Write keeps one line. It is what a slog handler calls once for each record.
func (r *Ring) Write(line []byte) (int, error) {
	kept := bytes.Clone(line)
	if len(kept) > maxLine {
		kept = append(kept[:maxLine:maxLine], cut...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.count == Lines || r.count > 0 && r.size+len(kept) > Bytes {
		r.size -= len(r.lines[r.first])
		r.lines[r.first] = nil
		r.first = (r.first + 1) % Lines
		r.count--
		r.dropped++
	}
	r.lines[(r.first+r.count)%Lines] = kept
	r.count++
	r.size += len(kept)
	return len(line), nil
}

// Text is what is kept, oldest first, and how many lines came before it.
func (r *Ring) Text() (text []byte, dropped uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text = make([]byte, 0, r.size)
	for i := range r.count {
		text = append(text, r.lines[(r.first+i)%Lines]...)
	}
	return text, r.dropped
}

// Tee makes a handler that hands records to next, and keeps as JSON in the ring
// what next handles.
func (r *Ring) Tee(next slog.Handler) slog.Handler {
	return &tee{next: next, ring: slog.NewJSONHandler(r, &slog.HandlerOptions{Level: lowest})}
}

// lowest lets everything through: next decides.
const lowest = slog.Level(-1 << 20)

type tee struct{ next, ring slog.Handler }

// Enabled implements slog.Handler.
func (t *tee) Enabled(ctx context.Context, level slog.Level) bool { return t.next.Enabled(ctx, level) }

// Handle implements slog.Handler.
func (t *tee) Handle(ctx context.Context, record slog.Record) error {
	return errors.Join(t.next.Handle(ctx, record.Clone()), t.ring.Handle(ctx, record))
}

// WithAttrs implements slog.Handler.
func (t *tee) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &tee{next: t.next.WithAttrs(attrs), ring: t.ring.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (t *tee) WithGroup(name string) slog.Handler {
	return &tee{next: t.next.WithGroup(name), ring: t.ring.WithGroup(name)}
}
