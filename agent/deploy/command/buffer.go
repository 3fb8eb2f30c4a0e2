package command

import (
	"fmt"
	"strings"
	"sync"
)

// The beginning of an output says what was done, its end how it failed.
const (
	headSize = 1 << 10
	tailSize = 3 << 10
)

// buffer keeps the first and the last octets of what is written to it and
// counts what it drops in between. exec writes to it from one goroutine, which
// may outlive the call of a command that left a child behind: hence the lock.
type buffer struct {
	mu      sync.Mutex
	head    []byte
	tail    []byte // the last octets after head; up to twice tailSize between cuts
	dropped int64
}

// Write never fails, so that a talkative command is not stopped by it.
func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(p)
	if room := headSize - len(b.head); room > 0 {
		take := min(room, len(p))
		b.head = append(b.head, p[:take]...)
		p = p[take:]
	}
	if extra := len(p) - tailSize; extra > 0 {
		b.dropped += int64(extra)
		p = p[extra:]
	}
	b.tail = append(b.tail, p...)
	if len(b.tail) > 2*tailSize {
		b.cut()
	}
	return n, nil
}

func (b *buffer) cut() {
	if extra := len(b.tail) - tailSize; extra > 0 {
		b.dropped += int64(extra)
		b.tail = append(b.tail[:0], b.tail[extra:]...)
	}
}

// String returns what was kept as valid UTF-8 without surrounding space.
func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut()
	text := string(b.head) + string(b.tail)
	if b.dropped > 0 {
		text = fmt.Sprintf("%s\n[%d octets left out]\n%s", b.head, b.dropped, b.tail)
	}
	return strings.TrimSpace(strings.ToValidUTF8(text, "\uFFFD"))
}
