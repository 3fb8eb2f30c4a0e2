package peer

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
)

// records is a log that a test reads.
type records struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *records) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(line)
}

func (r *records) logger() *slog.Logger { return slog.New(slog.NewTextHandler(r, nil)) }

func (r *records) with(message string) (lines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range strings.Lines(r.text.String()) {
		if strings.Contains(line, message) {
			lines = append(lines, line)
		}
	}
	return lines
}

func addressOf(r *resident) raft.ServerAddress { return raft.ServerAddress(r.address) }

func TestTheSameRefusalIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := new(records)
		r := &refusals{log: logged.logger()}
		count := func() int { return len(logged.with("between nodes")) }
		for range 3 {
			r.note(reasonNotMember, "b", "", "", nil)
			r.note(reasonNotMember, "c", "", "", nil)
			r.note(reasonBusy, "c", "", "", nil)
		}
		assert.Equal(t, 3, count())
		time.Sleep(refusalGap - time.Nanosecond)
		r.note(reasonNotMember, "b", "", "", nil)
		assert.Equal(t, 3, count())
		time.Sleep(time.Nanosecond)
		r.note(reasonNotMember, "b", "", "", nil)
		assert.Equal(t, 4, count())

		// A crowd of strangers neither fills the log nor the memory.
		for i := range 10 * maxRefusals {
			r.note(reasonHandshake, strings.Repeat("x", i), "", "", nil)
		}
		assert.Len(t, r.last, maxRefusals)
		time.Sleep(refusalGap)
		r.note(reasonHandshake, "y", "", "", nil)
		assert.Len(t, r.last, 1)
	})
}
