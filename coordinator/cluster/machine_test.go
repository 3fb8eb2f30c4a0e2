package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
)

// memoryJournal is a Journal that can be told to fail, before or after it has
// stored, and that checks the order of what it gets.
type memoryJournal struct {
	t  *testing.T
	mu sync.Mutex

	facts      []fleet.Fact
	through    uint64
	skipped    uint64
	failBefore error
	failAfter  error
	appends    int
}

func (j *memoryJournal) Append(through uint64, facts []fleet.Fact) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.appends++
	if err := j.failBefore; err != nil {
		return err
	}
	for _, fact := range facts {
		if fact.Index <= j.through {
			continue
		}
		assert.LessOrEqual(j.t, fact.Index, through)
		if n := len(j.facts); n > 0 {
			assert.GreaterOrEqual(j.t, fact.Index, j.facts[n-1].Index)
		}
		j.facts = append(j.facts, fact)
	}
	j.through = max(j.through, through)
	err := j.failAfter
	j.failAfter = nil
	return err
}

func (j *memoryJournal) Through() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.through
}

func (j *memoryJournal) Skip(index uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.skipped, j.through = index, index
	return nil
}

func (j *memoryJournal) Status() (history.Status, error) {
	return history.Status{Through: j.Through()}, nil
}

func (j *memoryJournal) Chunk(history.Gap, int) (*history.Chunk, error) {
	return nil, history.ErrNotHere
}

func (j *memoryJournal) Backfill(*history.Chunk) error { return history.ErrNonsense }

func (j *memoryJournal) set(before, after error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failBefore, j.failAfter = before, after
}

func (j *memoryJournal) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.facts)
}

func testMachine(t *testing.T, journal Journal) *machine {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	return newMachine(state, newJournalWriter(journal, log), &configurations{}, log)
}

func tokenEntry(t *testing.T, ids ...string) []byte {
	t.Helper()
	var commands []fleet.Command
	for _, id := range ids {
		command, err := fleet.NewCommand(time.Now(), fleet.CreateEnrollmentToken{ID: id})
		require.NoError(t, err)
		commands = append(commands, command)
	}
	entry, err := fleet.EncodeEntry(commands)
	require.NoError(t, err)
	return entry
}

func TestAnUnknownCommandStopsTheMachine(t *testing.T) {
	m := testMachine(t, &memoryJournal{t: t})
	command, err := fleet.NewCommand(time.Now(), fleet.CreateEnrollmentToken{ID: "a"})
	require.NoError(t, err)
	command.Type = 250
	entry, err := fleet.EncodeEntry([]fleet.Command{command})
	require.NoError(t, err)

	applied := m.Apply(&raft.Log{Index: 1, Data: entry}).(appliedEntry)
	require.ErrorIs(t, applied.err, fleet.ErrUnknownCommand)
	<-m.failed
	require.ErrorContains(t, m.err(), "upgrade this node")

	applied = m.Apply(&raft.Log{Index: 2, Data: tokenEntry(t, "b")}).(appliedEntry)
	require.ErrorIs(t, applied.err, fleet.ErrUnknownCommand, "nothing is applied behind the gap")
	assert.Zero(t, m.state.View().Rows(fleet.TableEnrollmentTokens))
	_, err = m.Snapshot()
	require.Error(t, err, "a snapshot would let the log be cut that a newer version can apply")
}

func TestTheJournalWriterRetriesUntilItCanAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := &memoryJournal{t: t, failBefore: errors.New("disk full")}
		m := testMachine(t, journal)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { m.writer.run(ctx); close(ended) }()

		for i := range uint64(10) {
			m.Apply(&raft.Log{Index: i + 1, Data: tokenEntry(t, string(rune('a'+i)))})
		}
		synctest.Wait()
		require.Error(t, m.writer.health())
		<-time.After(time.Minute) // fake: the writer goes on trying
		assert.Equal(t, JournalLag{Entries: 10, Facts: 10, Since: time.Minute}, m.writer.lag(10))
		journal.set(nil, errors.New("stored, and the answer was lost"))
		<-time.After(time.Minute)
		synctest.Wait()
		require.NoError(t, m.writer.health())
		assert.Equal(t, 10, journal.count(), "each fact once, although one step was repeated")
		require.NoError(t, m.writer.wait(t.Context(), 10))
		assert.Zero(t, m.writer.lag(10))
		assert.NotZero(t, m.writer.lag(11), "an entry whose facts are not handed over yet")
		cancel()
		<-ended
	})
}

// What comes alone is written at once, what comes after it in few writes, unless
// there is much of it or somebody waits.
func TestTheJournalIsWrittenInFewSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := &memoryJournal{t: t}
		w := newJournalWriter(journal, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { w.run(ctx); close(ended) }()
		index := uint64(0)
		add := func(facts int) {
			index++
			list := make([]fleet.Fact, facts)
			for i := range list {
				list[i].Index = index
			}
			require.NoError(t, w.add(index, list))
		}
		add(1)
		synctest.Wait()
		assert.Equal(t, 1, journal.count(), "nobody waits for more")
		for range 1000 {
			add(1)
			<-time.After(time.Millisecond) // fake
		}
		<-time.After(journalPause)
		synctest.Wait()
		assert.Equal(t, 1001, journal.count())
		assert.Zero(t, w.lag(index))
		assert.LessOrEqual(t, journal.appends, 2+int(time.Second/journalPause))

		<-time.After(journalPause)
		add(1)
		synctest.Wait()
		began := time.Now()
		add(1)
		require.NoError(t, w.wait(t.Context(), index), "a snapshot waits for no pause")
		add(journalBatch)
		synctest.Wait()
		assert.Equal(t, 1003+journalBatch, journal.count())
		add(1)
		require.NoError(t, w.restored(index+1), "nor does a snapshot from elsewhere")
		assert.Equal(t, index+1, journal.skipped)
		assert.Zero(t, time.Since(began))
		cancel()
		<-ended
	})
}

func TestASnapshotWaitsForTheJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := &memoryJournal{t: t, failBefore: errors.New("disk full")}
		m := testMachine(t, journal)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { m.writer.run(ctx); close(ended) }()
		m.Apply(&raft.Log{Index: 1, Data: tokenEntry(t, "a")})
		snapshot, err := m.Snapshot()
		require.NoError(t, err)

		sink := &memorySink{}
		persisted := make(chan error, 1)
		go func() { persisted <- snapshot.Persist(sink) }()
		synctest.Wait()
		assert.Empty(t, persisted, "the snapshot must wait")
		journal.set(nil, nil)
		require.NoError(t, <-persisted)
		assert.True(t, sink.closed)
		assert.EqualValues(t, 1, journal.Through())

		// An entry without facts costs no write of its own, but a snapshot of it
		// leaves the journal complete up to there.
		before := journal.appends
		command, err := fleet.NewCommand(time.Now(), fleet.RevokeEnrollmentToken{ID: "none"})
		require.NoError(t, err)
		entry, err := fleet.EncodeEntry([]fleet.Command{command})
		require.NoError(t, err)
		m.Apply(&raft.Log{Index: 2, Data: entry})
		synctest.Wait()
		assert.Equal(t, before, journal.appends)
		snapshot, err = m.Snapshot()
		require.NoError(t, err)
		require.NoError(t, snapshot.Persist(&memorySink{}))
		assert.EqualValues(t, 2, journal.Through())

		journal.set(errors.New("disk full"), nil)
		m.Apply(&raft.Log{Index: 3, Data: tokenEntry(t, "c")})
		snapshot, err = m.Snapshot()
		require.NoError(t, err)
		sink = &memorySink{}
		go func() { persisted <- snapshot.Persist(sink) }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-persisted, ErrStopped)
		assert.True(t, sink.cancelled)
		<-ended
	})
}

func TestApplyingWaitsWhenTheJournalFallsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := &memoryJournal{t: t, failBefore: errors.New("disk full")}
		log := slog.New(slog.DiscardHandler)
		w := newJournalWriter(journal, log)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { w.run(ctx); close(ended) }()
		require.NoError(t, w.add(1, make([]fleet.Fact, maxBuffered)))
		added := make(chan error, 1)
		go func() { added <- w.add(2, make([]fleet.Fact, 1)) }()
		synctest.Wait()
		assert.Empty(t, added, "it must wait for room")
		cancel()
		require.ErrorIs(t, <-added, ErrStopped)
		<-ended
	})
}

func TestARestoreRecordsTheGapInTheJournal(t *testing.T) {
	source := testMachine(t, &memoryJournal{t: t})
	source.Apply(&raft.Log{Index: 7, Data: tokenEntry(t, "a")})
	sink := &memorySink{}
	require.NoError(t, source.state.Snapshot().Persist(sink))

	journal := &memoryJournal{t: t}
	m := testMachine(t, journal)
	require.NoError(t, m.Restore(sink.reader()))
	assert.EqualValues(t, 7, journal.skipped)
	assert.EqualValues(t, 7, m.state.Index())

	require.Error(t, m.Restore((&memorySink{}).reader()), "an empty stream")
	require.Error(t, m.Restore(sink.reader()), "after a damaged snapshot no older one is tried")
	assert.EqualValues(t, 7, m.state.Index())
}
