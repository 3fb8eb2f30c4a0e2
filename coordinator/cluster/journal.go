package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/backoff"
)

const (
	// maxBuffered bounds the facts that are applied and not yet in the journal.
	// Beyond it, applying waits.
	maxBuffered = 8192
	// Writes of the journal cost syncs that the log would have for itself. They are
	// at least journalPause apart, unless so many facts wait: the log has them too.
	journalPause = 50 * time.Millisecond
	journalBatch = 1024
)

var journalRetry = backoff.Policy{Initial: 100 * time.Millisecond, Max: 10 * time.Second, Multiplier: 2, Jitter: 0.2}

// A journalWriter takes facts from the machine and writes them to the journal,
// what comes alone at once, and what comes after it in few steps.
type journalWriter struct {
	journal journalStore
	log     *slog.Logger
	gapped  func() // is told of a new gap, and returns at once; nil tells nobody

	mu      sync.Mutex
	changed *sync.Cond // something below has changed
	facts   []fleet.Fact
	since   time.Time // the first of facts was applied, or the write before it ended
	through uint64    // newest applied index; facts holds what is not in the journal of it
	flushed uint64    // newest index that the journal has
	written time.Time // the last write ended
	wanted  uint64    // somebody waits for flushed to reach this index
	err     error     // of the last attempt to write; nil when it went well
	closed  bool      // nothing is accepted any more, and nobody waits
}

func newJournalWriter(journal journalStore, log *slog.Logger) *journalWriter {
	w := &journalWriter{journal: journal, log: log, flushed: journal.Through()}
	w.changed = sync.NewCond(&w.mu)
	w.through = w.flushed
	return w
}

// add hands over the facts of one entry. It waits while too many are buffered.
// What the journal has already, because the log is replayed, is passed over.
func (w *journalWriter) add(index uint64, facts []fleet.Fact) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.facts) >= maxBuffered && !w.closed {
		w.changed.Wait()
	}
	if w.closed {
		return ErrStopped
	}
	if index <= w.through {
		return nil
	}
	w.through = index
	if len(facts) > 0 {
		if len(w.facts) == 0 {
			w.since = time.Now()
		}
		w.facts = append(w.facts, facts...)
		w.changed.Broadcast()
	}
	return nil
}

// restored tells the writer that the state was replaced by one of this index.
// Facts up to there that the journal does not have come from other members alone.
func (w *journalWriter) restored(index uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.facts) > 0 {
		w.wanted = max(w.wanted, w.through)
		w.changed.Broadcast()
	}
	for (len(w.facts) > 0 || w.flushed < w.wanted) && !w.closed {
		w.changed.Wait()
	}
	if w.closed {
		return ErrStopped
	}
	if index <= w.through {
		return nil
	}
	w.log.Info("the journal has a gap because this node received a snapshot; the other members are asked for the facts", "after", w.through, "to", index)
	if err := w.journal.Skip(index); err != nil {
		return fmt.Errorf("record a gap in the journal: %w", err)
	}
	w.through, w.flushed = index, index
	if w.gapped != nil {
		w.gapped()
	}
	w.changed.Broadcast()
	return nil
}

// wait returns when the journal has everything up to index, which was added, or
// when ctx is done.
func (w *journalWriter) wait(ctx context.Context, index uint64) error {
	stop := context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.changed.Broadcast()
	})
	defer stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = max(w.wanted, index)
	w.changed.Broadcast()
	for w.flushed < index && !w.closed && ctx.Err() == nil {
		w.changed.Wait()
	}
	switch {
	case w.flushed >= index:
		return nil
	case w.closed:
		return fmt.Errorf("the journal was not written up to log entry %d: %w", index, ErrStopped)
	}
	return fmt.Errorf("the journal was not written up to log entry %d: %w", index, errors.Join(ctx.Err(), w.err))
}

// health is the error of the last write, nil if it went well.
func (w *journalWriter) health() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// run writes until ctx is done. What is buffered then is lost here and comes
// again from the log at the next start.
func (w *journalWriter) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, w.close)
	defer stop()
	attempt := 0
	for {
		facts, through, ok := w.next()
		if !ok {
			return
		}
		err := w.journal.Append(through, facts)
		w.settle(through, len(facts), err)
		if err == nil {
			attempt = 0
			continue
		}
		attempt++
		pause := journalRetry.Delay(attempt, nil)
		w.log.Error("the journal cannot be written; changes wait until it can", "err", err, "retry_in", pause)
		if backoff.Wait(ctx, pause) != nil {
			return
		}
	}
}

// next waits for something to write, and until it is time to: facts, or only the
// mark of how far they go, which is not worth a write unless somebody waits for it.
func (w *journalWriter) next() (facts []fleet.Fact, through uint64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.flushed >= w.wanted && len(w.facts) < journalBatch && !w.closed {
		if len(w.facts) == 0 {
			w.changed.Wait()
			continue
		}
		left := time.Until(w.written.Add(journalPause))
		if left <= 0 {
			break
		}
		timer := time.AfterFunc(left, func() {
			w.mu.Lock() // or it may come before the wait that it is to end
			defer w.mu.Unlock()
			w.changed.Broadcast()
		})
		w.changed.Wait()
		timer.Stop()
	}
	if w.closed {
		return nil, 0, false
	}
	return w.facts, w.through, true
}

// settle takes what was written out of the buffer.
func (w *journalWriter) settle(through uint64, written int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	if err == nil {
		w.facts = append([]fleet.Fact(nil), w.facts[written:]...)
		w.flushed = through
		w.since = time.Now()
		w.written = w.since
	}
	w.changed.Broadcast()
}

// JournalLag is what is applied and not in the journal yet: a crash would take it
// from the log again.
type JournalLag struct {
	Entries uint64        // of the log, up to the newest with facts that wait
	Facts   int           // that wait
	Since   time.Duration // for which the oldest of them have waited
}

// lag is zero only when the journal has every fact up to the index applied.
func (w *journalWriter) lag(applied uint64) JournalLag {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.facts) == 0 && applied <= w.through {
		return JournalLag{}
	}
	if len(w.facts) == 0 {
		return JournalLag{Entries: applied - w.through} // whose facts are about to be handed over
	}
	return JournalLag{Entries: w.through - w.flushed, Facts: len(w.facts), Since: time.Since(w.since)}
}

func (w *journalWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.changed.Broadcast()
}
