package history_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/trail"
	"github.com/certctl/certctl/shared/durable"
)

// life is what the log of some entries makes: every third fact is one of the audit
// trail, some entries make none. From the fourth act on the trail is a chain.
func life(entries uint64) (facts []fleet.Fact) {
	audit, prev := uint64(0), trail.Hash{}
	for index := uint64(1); index <= entries; index++ {
		for ordinal := range uint32(index % 4) {
			f := fact(index, ordinal, 0)
			if (index+uint64(ordinal))%3 == 0 {
				audit++
				f.Audit = audit
				if audit > 3 {
					f = sealed(f, prev)
					prev = f.Hash
				}
			}
			facts = append(facts, f)
		}
	}
	return facts
}

// sealed puts a fact into the chain of the audit trail.
func sealed(f fleet.Fact, prev trail.Hash) fleet.Fact {
	f.Prev = prev
	record := f.Record()
	hash, err := record.Sum()
	if err != nil {
		panic(err)
	}
	f.Hash = hash
	return f
}

func of(facts []fleet.Fact, from, to uint64) (part []fleet.Fact) {
	for _, f := range facts {
		if from <= f.Index && f.Index <= to {
			part = append(part, f)
		}
	}
	return part
}

// fill takes from a source what a journal lacks and the source has, as nodes do.
func fill(t require.TestingT, into, source *history.Journal, size int) {
	theirs, err := source.Status()
	require.NoError(t, err)
	for {
		ours, err := into.Status()
		require.NoError(t, err)
		want := ours.Gaps.Minus(theirs.Gaps).And(history.Gaps{{From: 1, To: theirs.Through}})
		if len(want) == 0 {
			return
		}
		require.NoError(t, into.Backfill(sent(t, source, want[len(want)-1], size)))
	}
}

// sent is a chunk after its way over the network.
func sent(t require.TestingT, source *history.Journal, asked history.Gap, size int) *history.Chunk {
	chunk, err := source.Chunk(asked, size)
	require.NoError(t, err)
	data, err := cbor.Marshal(chunk)
	require.NoError(t, err)
	arrived, err := history.DecodeChunk(data, asked)
	require.NoError(t, err)
	return arrived
}

// TestAJournalIsFilledFromOthers makes journals that miss parts, as those of nodes
// that got snapshots, and lets them fill up from each other: each has in the end
// what any of them had, once.
func TestAJournalIsFilledFromOthers(t *testing.T) {
	facts := life(120)
	// Each check makes several files, which the disk has to sync.
	require.NoError(t, flag.Set("rapid.checks", "15"))
	defer func() { assert.NoError(t, flag.Set("rapid.checks", "100")) }()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		require.NoError(rt, err)
		var journals []*history.Journal
		lost := history.Gaps{{From: 1, To: 120}}
		for i := range rapid.IntRange(2, 3).Draw(rt, "journals") {
			j, err := history.Create(history.Config{Path: filepath.Join(dir, fmt.Sprintf("%d.db", i)), Log: slog.New(slog.DiscardHandler)})
			require.NoError(rt, err)
			defer j.Close()
			for at := uint64(0); at < 120; {
				next := min(120, at+rapid.Uint64Range(10, 60).Draw(rt, "entries"))
				if rapid.Bool().Draw(rt, "snapshot") {
					require.NoError(rt, j.Skip(next))
				} else {
					require.NoError(rt, j.Append(next, of(facts, at+1, next)))
				}
				at = next
			}
			status, err := j.Status()
			require.NoError(rt, err)
			lost = lost.And(status.Gaps)
			journals = append(journals, j)
		}
		size := rapid.IntRange(500, 8000).Draw(rt, "size")
		for range 2 { // the second round brings nothing new
			for _, into := range journals {
				for _, source := range journals {
					fill(rt, into, source, size)
				}
			}
		}
		var want []fleet.Fact
		for _, f := range facts {
			if len(lost.And(history.Gaps{{From: f.Index, To: f.Index}})) == 0 {
				want = append(want, f)
			}
		}
		for _, j := range journals {
			status, err := j.Status()
			require.NoError(rt, err)
			require.Equal(rt, lost.Count(), status.Gaps.Count())
			require.Equal(rt, want, readAll(rt, j, history.Query{}))
			require.EqualValues(rt, len(want), status.Facts+status.AuditFacts, "the counts are kept")
		}
	})
}

// Facts that retention has dropped at the other node are no gap here, and the mark
// of how far that goes is taken over.
func TestWhatRetentionDroppedIsNoGap(t *testing.T) {
	c := config(t)
	c.MaxAge = time.Hour
	old := create(t, c)
	facts := life(100)
	require.NoError(t, old.Append(100, facts))
	_, err := old.Trim(testTime.Add(time.Hour + 60*time.Minute))
	require.NoError(t, err)
	theirs, err := old.Status()
	require.NoError(t, err)
	require.NotZero(t, theirs.Expired)
	require.InDelta(t, 59, theirs.Floor, 1)

	fresh := create(t, config(t))
	require.NoError(t, fresh.Skip(90))
	require.NoError(t, fresh.Append(100, of(facts, 91, 100)))
	fill(t, fresh, old, 500)
	ours, err := fresh.Status()
	require.NoError(t, err)
	assert.Empty(t, ours.Gaps)
	assert.Equal(t, theirs.Floor, ours.Floor)
	assert.Equal(t, readAll(t, old, history.Query{}), readAll(t, fresh, history.Query{}))
	assert.Zero(t, ours.Expired, "nothing was dropped here")

	// What lies above the mark does not bring it along.
	above := create(t, config(t))
	require.NoError(t, above.Skip(90))
	chunk, err := old.Chunk(history.Gap{From: 70, To: 90}, history.ChunkSize)
	require.NoError(t, err)
	require.NoError(t, above.Backfill(chunk))
	ours, err = above.Status()
	require.NoError(t, err)
	assert.Zero(t, ours.Floor)
}

// A journal that is smaller than the history keeps the newest of it, and all of the
// audit trail.
func TestASmallJournalKeepsTheNewest(t *testing.T) {
	var facts []fleet.Fact
	for index := uint64(1); index <= 300; index++ {
		f := fact(index, 0, 0)
		if index%10 == 0 {
			f.Audit = index / 10
		}
		f.Detail = json.RawMessage(`"` + strings.Repeat("x", 1000) + `"`)
		facts = append(facts, f)
	}
	full := create(t, config(t))
	require.NoError(t, full.Append(300, facts))
	c := config(t)
	c.MaxBytes = 64 << 10
	small := create(t, c)
	require.NoError(t, small.Skip(290))
	require.NoError(t, small.Append(300, of(facts, 291, 300)))
	fill(t, small, full, 10_000)
	status, err := small.Status()
	require.NoError(t, err)
	assert.Empty(t, status.Gaps)
	assert.EqualValues(t, 30, status.AuditFacts)
	assert.LessOrEqual(t, status.Bytes, c.MaxBytes)
	var routine []uint64
	for _, f := range readAll(t, small, history.Query{}) {
		if f.Audit == 0 {
			routine = append(routine, f.Index)
		}
	}
	require.NotEmpty(t, routine)
	assert.Greater(t, len(routine), 50)
	assert.Equal(t, of(facts, routine[0], 300), of(readAll(t, small, history.Query{}), routine[0], 300), "without a hole from there on")
	assert.LessOrEqual(t, status.Floor, routine[0])
	assert.Less(t, status.Dropped, uint64(60), "what has no room is not written first")
}

// A chunk is of whole entries, and of what was asked for.
func TestChunksAreOfWholeEntries(t *testing.T) {
	j := create(t, config(t))
	require.NoError(t, j.Append(50, life(50)))
	require.NoError(t, j.Skip(60))
	chunk, err := j.Chunk(history.Gap{From: 1, To: 50}, 1)
	require.NoError(t, err)
	assert.Equal(t, history.Gap{From: 50, To: 50}, chunk.Range())
	assert.Len(t, chunk.Facts, 2)
	chunk, err = j.Chunk(history.Gap{From: 44, To: 44}, 1)
	require.NoError(t, err)
	assert.Equal(t, history.Gap{From: 44, To: 44}, chunk.Range())
	assert.Empty(t, chunk.Facts, "an entry without facts is there too")
	chunk, err = j.Chunk(history.Gap{From: 1, To: 50}, 1<<20)
	require.NoError(t, err)
	assert.Equal(t, history.Gap{From: 1, To: 50}, chunk.Range())
	for _, asked := range []history.Gap{{From: 0, To: 3}, {From: 4, To: 3}, {From: 1, To: 51}, {From: 55, To: 56}, {From: 61, To: 61}, {From: 1, To: math.MaxUint64}} {
		_, err = j.Chunk(asked, 1)
		require.ErrorIs(t, err, history.ErrNotHere, "%v", asked)
	}
}

// signed gives a chunk the sum that it should have.
func signed(c history.Chunk) *history.Chunk {
	sum := sha256.New()
	number := func(n uint64) { sum.Write(binary.BigEndian.AppendUint64(nil, n)) }
	number(c.From)
	number(c.To)
	number(c.Floor)
	for _, f := range c.Facts {
		number(uint64(len(f)))
		sum.Write(f)
	}
	c.Sum = sum.Sum(nil)
	return &c
}

// encoded are facts as a journal has them.
func encoded(t testing.TB, facts ...fleet.Fact) (all [][]byte) {
	t.Helper()
	options := cbor.CoreDetEncOptions()
	options.Time = cbor.TimeRFC3339NanoUTC
	mode, err := options.EncMode()
	require.NoError(t, err)
	for _, f := range facts {
		data, err := mode.Marshal(f)
		require.NoError(t, err)
		all = append(all, data)
	}
	return all
}

func mustMarshal(t testing.TB, chunk *history.Chunk) []byte {
	t.Helper()
	data, err := cbor.Marshal(chunk)
	require.NoError(t, err)
	return data
}

// What a node says that lies, or has lost its mind, is refused, and nothing of it
// is taken.
func TestNonsenseIsRefused(t *testing.T) {
	facts := life(40)
	j := create(t, config(t))
	require.NoError(t, j.Append(10, of(facts, 1, 10)))
	require.NoError(t, j.Skip(30))
	require.NoError(t, j.Append(40, of(facts, 31, 40)))
	full := create(t, config(t))
	require.NoError(t, full.Append(40, facts))
	asked := history.Gap{From: 11, To: 30}
	good, err := full.Chunk(asked, 1<<20)
	require.NoError(t, err)
	honest := encoded(t, of(facts, 11, 30)...)
	without := func(audit bool) (rest []fleet.Fact) {
		left := false
		for _, f := range of(facts, 11, 30) {
			if !left && (f.Audit > 0) == audit {
				left = true
				continue
			}
			rest = append(rest, f)
		}
		return rest
	}
	lastAudit := of(facts, 11, 30)
	for lastAudit[len(lastAudit)-1].Audit == 0 {
		lastAudit = lastAudit[:len(lastAudit)-1]
	}
	lastAudit = lastAudit[:len(lastAudit)-1]
	altered := func(change func(f *fleet.Fact)) [][]byte {
		list := of(facts, 11, 30)
		at := slices.IndexFunc(list, func(f fleet.Fact) bool { return f.Audit > 0 })
		change(&list[at])
		return encoded(t, list...)
	}
	_, err = history.DecodeChunk(mustMarshal(t, signed(history.Chunk{From: 11, To: 30, Facts: honest})), asked)
	require.NoError(t, err, "the others are refused for what is wrong with them alone")
	swapped := encoded(t, of(facts, 11, 30)...)
	swapped[3], swapped[4] = swapped[4], swapped[3]
	for name, chunk := range map[string]*history.Chunk{
		"facts of another range":           signed(history.Chunk{From: 11, To: 30, Facts: encoded(t, of(facts, 9, 30)...)}),
		"facts of later entries":           signed(history.Chunk{From: 11, To: 30, Facts: encoded(t, of(facts, 11, 31)...)}),
		"a routine fact of before":         signed(history.Chunk{From: 11, To: 30, Facts: append(encoded(t, fact(10, 9, 0)), honest...)}),
		"a routine fact of after":          signed(history.Chunk{From: 11, To: 30, Facts: append(slices.Clone(honest), encoded(t, fact(31, 9, 0))...)}),
		"out of order":                     signed(history.Chunk{From: 11, To: 30, Facts: swapped}),
		"a fact twice":                     signed(history.Chunk{From: 11, To: 30, Facts: append([][]byte{honest[0]}, honest...)}),
		"no facts":                         signed(history.Chunk{From: 11, To: 30, Facts: [][]byte{{0xff}}}),
		"another checksum":                 {From: 11, To: 30, Facts: honest, Sum: make([]byte, 32)},
		"a range beyond":                   signed(history.Chunk{From: 5, To: 30, Facts: encoded(t, of(facts, 5, 30)...)}),
		"a range behind":                   signed(history.Chunk{From: 11, To: 29, Facts: encoded(t, of(facts, 11, 29)...)}),
		"a range backwards":                signed(history.Chunk{From: 31, To: 30}),
		"a hole in the audit trail":        signed(history.Chunk{From: 11, To: 30, Facts: encoded(t, without(true)...)}),
		"the end of the audit trail gone":  signed(history.Chunk{From: 11, To: 30, Facts: encoded(t, lastAudit...)}),
		"all of the audit trail gone":      signed(history.Chunk{From: 11, To: 30}),
		"an act that nobody has done":      signed(history.Chunk{From: 11, To: 30, Facts: encoded(t, append(of(facts, 11, 30), fact(30, 9, 30))...)}),
		"an act that was altered":          signed(history.Chunk{From: 11, To: 30, Facts: altered(func(f *fleet.Fact) { f.Actor = "nobody" })}),
		"an act without its hash":          signed(history.Chunk{From: 11, To: 30, Facts: altered(func(f *fleet.Fact) { f.Hash, f.Prev = trail.Hash{}, trail.Hash{} })}),
		"an act in another chain":          signed(history.Chunk{From: 11, To: 30, Facts: altered(func(f *fleet.Fact) { *f = sealed(*f, trail.Hash{1}) })}),
		"numbers of the trail from before": signed(history.Chunk{From: 11, To: 30, Facts: encoded(t, fact(20, 0, 1))}),
	} {
		t.Run(name, func(t *testing.T) {
			data, err := cbor.Marshal(chunk)
			require.NoError(t, err)
			arrived, err := history.DecodeChunk(data, asked)
			if err == nil {
				err = j.Backfill(arrived)
			}
			require.ErrorIs(t, err, history.ErrNonsense)
			status, err := j.Status()
			require.NoError(t, err)
			assert.Equal(t, history.Gaps{asked}, status.Gaps)
			assert.Equal(t, append(of(facts, 1, 10), of(facts, 31, 40)...), readAll(t, j, history.Query{}))
		})
	}
	_, err = history.DecodeChunk(make([]byte, history.MaxChunk+1), asked)
	require.ErrorIs(t, err, history.ErrNonsense)
	require.NoError(t, j.Backfill(good))
	require.ErrorIs(t, j.Backfill(good), history.ErrNonsense, "it is not missing any more")
	assert.Equal(t, facts, readAll(t, j, history.Query{}))
}

// The restore of a state goes on with the numbers of the audit trail beyond those of
// both states, and that is no hole.
func TestARestoreMayLeaveOutNumbersOfTheAuditTrail(t *testing.T) {
	restored := fact(6, 0, 40)
	restored.Kind = fleet.KindStateRestored
	facts := []fleet.Fact{fact(2, 0, 1), fact(4, 0, 2), restored, fact(8, 0, 41)}
	full, j := create(t, config(t)), create(t, config(t))
	require.NoError(t, full.Append(8, facts))
	require.NoError(t, j.Append(2, facts[:1]))
	require.NoError(t, j.Skip(7))
	require.NoError(t, j.Append(8, facts[3:]))
	fill(t, j, full, 1)
	assert.Equal(t, facts, readAll(t, j, history.Query{}))
}

// TestCrashesInTheMidstOfABackfill crashes before and after each transaction, and
// goes on from the file that is left.
func TestCrashesInTheMidstOfABackfill(t *testing.T) {
	facts := life(60)
	full := create(t, config(t))
	require.NoError(t, full.Append(60, facts))
	errCrash := errors.New("crash")
	for crash := 1; ; crash++ {
		calls := 0
		c := config(t)
		c.Hook = func(step durable.Step, _ string, _ bool) error {
			assert.Equal(t, history.StepBackfill, step)
			if calls++; calls == crash {
				return errCrash
			}
			return nil
		}
		j := create(t, c)
		require.NoError(t, j.Skip(55))
		require.NoError(t, j.Append(60, of(facts, 56, 60)))
		crashed := false
		for {
			status, err := j.Status()
			require.NoError(t, err)
			require.Equal(t, int(status.Facts+status.AuditFacts), len(readAll(t, j, history.Query{})))
			if len(status.Gaps) == 0 {
				break
			}
			err = j.Backfill(sent(t, full, status.Gaps[len(status.Gaps)-1], 600))
			if errors.Is(err, errCrash) {
				crashed = true
				require.NoError(t, j.Close())
				j, err = history.Open(c)
			}
			require.NoError(t, err)
		}
		require.NoError(t, j.Close())
		j, err := history.Open(c)
		require.NoError(t, err)
		require.Equal(t, facts, readAll(t, j, history.Query{}), "crash %d", crash)
		require.NoError(t, j.Close())
		if !crashed {
			require.Greater(t, crash, 8, "there were steps to crash in")
			return
		}
	}
}

// childEnv makes the test binary fill the journal in a directory from the one beside
// it, until it is killed.
const childEnv = "CERTCTL_HISTORY_TEST_CHILD"

func childMain() int {
	dir, log := os.Getenv(childEnv), slog.New(slog.DiscardHandler)
	full, err := history.Open(history.Config{Path: filepath.Join(dir, "full.db"), Log: log})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	j, err := history.Open(history.Config{Path: filepath.Join(dir, "journal.db"), Log: log})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println("begins")
	fill(panics{}, j, full, 300)
	return 0
}

type panics struct{}

func (panics) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (panics) FailNow()                          { panic("failed") }

// TestKilledInTheMidstOfABackfill kills the process that fills a journal, again and
// again, until all is there.
func TestKilledInTheMidstOfABackfill(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	facts := life(1500)
	full, err := history.Create(history.Config{Path: filepath.Join(dir, "full.db"), Log: log})
	require.NoError(t, err)
	require.NoError(t, full.Append(1500, facts))
	require.NoError(t, full.Close())
	c := history.Config{Path: filepath.Join(dir, "journal.db"), Log: log}
	j, err := history.Create(c)
	require.NoError(t, err)
	require.NoError(t, j.Skip(1490))
	require.NoError(t, j.Append(1500, of(facts, 1491, 1500)))
	require.NoError(t, j.Close())
	for kills := 0; ; kills++ {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		said := make([]byte, 6)
		_, err = io.ReadFull(out, said)
		require.NoError(t, err)
		require.Equal(t, "begins", string(said))
		time.AfterFunc(time.Duration(20+10*kills)*time.Millisecond, func() { _ = child.Process.Kill() })
		ended := child.Wait()
		j, err := history.Open(c)
		require.NoError(t, err)
		status, err := j.Status()
		require.NoError(t, err)
		there := readAll(t, j, history.Query{})
		require.Len(t, there, int(status.Facts+status.AuditFacts))
		require.LessOrEqual(t, len(status.Gaps), 1)
		if len(status.Gaps) == 1 {
			require.Equal(t, of(facts, status.Gaps[0].To+1, 1500), there, "whole entries, and the gap is what is missing")
		}
		require.NoError(t, j.Close())
		if ended == nil {
			require.Equal(t, facts, there)
			t.Logf("killed %d times", kills)
			require.NotZero(t, kills)
			return
		}
	}
}

// FuzzDecodeChunk looks for what a node could send that is taken for facts and is
// none, or that brings this one down.
func FuzzDecodeChunk(f *testing.F) {
	facts := life(12)
	for _, chunk := range []*history.Chunk{
		signed(history.Chunk{From: 1, To: 12, Facts: encoded(f, facts...)}),
		signed(history.Chunk{From: 5, To: 12, Floor: 7, Facts: encoded(f, of(facts, 5, 12)...)}),
		signed(history.Chunk{From: 12, To: 12}),
	} {
		data, err := cbor.Marshal(chunk)
		require.NoError(f, err)
		f.Add(data)
	}
	asked := history.Gap{From: 1, To: 12}
	f.Fuzz(func(t *testing.T, data []byte) {
		chunk, err := history.DecodeChunk(data, asked)
		if err != nil {
			require.ErrorIs(t, err, history.ErrNonsense)
			return
		}
		require.LessOrEqual(t, asked.From, chunk.From)
		require.Equal(t, asked.To, chunk.To)
		last := fleet.Fact{}
		for _, data := range chunk.Facts {
			var fact fleet.Fact
			require.NoError(t, cbor.Unmarshal(data, &fact))
			require.True(t, chunk.From <= fact.Index && fact.Index <= chunk.To)
			require.True(t, last.Index < fact.Index || last.Index == fact.Index && last.Ordinal < fact.Ordinal || last.Index == 0)
			last = fact
		}
	})
}
