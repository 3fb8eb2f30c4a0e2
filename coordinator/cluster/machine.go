package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/fleet"
)

// A machine is what Raft applies entries to: the fleet's state, and behind it
// the writer of the journal. Raft calls Apply, Snapshot and Restore from one
// goroutine.
type machine struct {
	state   *fleet.State
	writer  *journalWriter
	members *configurations
	log     *slog.Logger
	took    histogram // to apply an entry

	// opened is set once the node's own snapshot is restored: another one comes
	// from a leader, or is restored on purpose.
	opened atomic.Bool

	mu      sync.Mutex
	failure error         // guarded by mu; once set, nothing is applied any more
	failed  chan struct{} // closed when failure is set
	applied chan struct{} // guarded by mu; closed and replaced at each entry, nil if nobody waits
}

func newMachine(state *fleet.State, writer *journalWriter, members *configurations, log *slog.Logger) *machine {
	return &machine{state: state, writer: writer, members: members, log: log, failed: make(chan struct{})}
}

// An applied entry is what Apply answers to Raft, and Raft to the proposer.
type appliedEntry struct {
	results []fleet.Result
	err     error
}

// Apply implements raft.FSM. An entry that cannot be applied fails the machine:
// it stands still from then on, and the node ends.
func (m *machine) Apply(entry *raft.Log) any {
	if err := m.err(); err != nil {
		return appliedEntry{err: err}
	}
	began := time.Now()
	results, facts, err := m.state.Apply(entry.Index, entry.Data)
	if err != nil {
		m.fail(err)
		return appliedEntry{err: err}
	}
	// Waits when the journal does not keep up: that slows the proposers down.
	if err := m.writer.add(entry.Index, facts); err != nil {
		m.fail(err)
		return appliedEntry{err: err}
	}
	m.took.add(time.Since(began))
	m.wake()
	return appliedEntry{results: results}
}

// StoreConfiguration implements raft.ConfigurationStore: the configuration is
// committed.
func (m *machine) StoreConfiguration(index uint64, configuration raft.Configuration) {
	m.members.store(index, configuration.Servers)
}

func (m *machine) err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failure
}

func (m *machine) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure == nil {
		m.failure = err
		close(m.failed)
	}
}

func (m *machine) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.applied != nil {
		close(m.applied)
		m.applied = nil
	}
}

// waitIndex returns when the state has reached a log index.
func (m *machine) waitIndex(ctx context.Context, index uint64) error {
	for {
		m.mu.Lock()
		if m.state.Index() >= index {
			m.mu.Unlock()
			return nil
		}
		if m.applied == nil {
			m.applied = make(chan struct{})
		}
		applied := m.applied
		m.mu.Unlock()
		select {
		case <-applied:
		case <-m.failed:
			return m.err()
		case <-ctx.Done():
			return fmt.Errorf("wait for log entry %d: %w", index, ctx.Err())
		}
	}
}

// Snapshot implements raft.FSM. It pins the state and returns at once.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.err(); err != nil {
		return nil, err
	}
	return &machineSnapshot{snapshot: m.state.Snapshot(), writer: m.writer}, nil
}

// Restore implements raft.FSM. A failure is kept: Raft would try an older
// snapshot next, and the log may not reach back to it.
func (m *machine) Restore(source io.ReadCloser) error {
	defer func() { _ = source.Close() }()
	if err := m.err(); err != nil {
		return err
	}
	if err := m.state.Restore(source); err != nil {
		m.fail(err)
		return err
	}
	if err := m.writer.restored(m.state.Index()); err != nil {
		m.fail(err)
		return err
	}
	// Raft tells of configurations in the log, and not of those in snapshots.
	if meta := metaOf(source); meta != nil {
		if m.opened.Load() {
			m.members.install(meta.ConfigurationIndex, meta.Configuration.Servers)
		} else {
			m.members.store(meta.ConfigurationIndex, meta.Configuration.Servers)
		}
	}
	m.wake()
	return nil
}

// machineSnapshot is a pinned state on its way to disk.
type machineSnapshot struct {
	snapshot *fleet.Snapshot
	writer   *journalWriter
}

// Persist implements raft.FSMSnapshot. A snapshot lets the log be cut, and
// until facts are in the journal the log is where they are durable: so the
// journal goes first.
func (s *machineSnapshot) Persist(sink raft.SnapshotSink) error {
	err := s.writer.wait(context.Background(), s.snapshot.Index())
	if err == nil {
		err = s.snapshot.Persist(sink)
	}
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot; the garbage collector does the work.
func (s *machineSnapshot) Release() {}
