package history_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(childMain())
	}
	goleak.VerifyTestMain(m)
}

var testTime = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func config(t testing.TB) history.Config {
	return history.Config{Path: filepath.Join(t.TempDir(), "journal.db"), Log: slog.New(slog.DiscardHandler)}
}

func create(t testing.TB, c history.Config) *history.Journal {
	t.Helper()
	j, err := history.Create(c)
	require.NoError(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func fact(index uint64, ordinal uint32, audit uint64) fleet.Fact {
	return fleet.Fact{
		Index: index, Ordinal: ordinal, Time: testTime.Add(time.Duration(index)*time.Minute + 123456789), Kind: "kind",
		Agent: fmt.Sprintf("a%d", index%3), Object: fmt.Sprintf("o%d", ordinal), Audit: audit,
		Detail: json.RawMessage(`{"k":"v"}`),
	}
}

func readAll(t require.TestingT, j *history.Journal, q history.Query) []fleet.Fact {
	var all []fleet.Fact
	for {
		page, next, err := j.Read(q)
		require.NoError(t, err)
		all = append(all, page...)
		if next == "" {
			return all
		}
		q.After = next
	}
}

func TestFactsAreKeptInOrderAndOnce(t *testing.T) {
	c := config(t)
	j := create(t, c)
	first := []fleet.Fact{fact(3, 0, 1), fact(3, 1, 0), fact(5, 0, 0)}
	require.NoError(t, j.Append(6, first))
	assert.EqualValues(t, 6, j.Through())
	// The log is replayed: entries that are here, then new ones.
	require.NoError(t, j.Append(5, first))
	assert.EqualValues(t, 6, j.Through(), "it does not go back")
	require.NoError(t, j.Append(8, append(slices.Clone(first), fact(8, 0, 2))))
	want := append(slices.Clone(first), fact(8, 0, 2))
	assert.Equal(t, want, readAll(t, j, history.Query{}))

	require.NoError(t, j.Close())
	j, err := history.Open(c)
	require.NoError(t, err)
	defer j.Close()
	assert.EqualValues(t, 8, j.Through())
	assert.Equal(t, want, readAll(t, j, history.Query{}))
	status, err := j.Status()
	require.NoError(t, err)
	assert.EqualValues(t, 2, status.Facts)
	assert.EqualValues(t, 2, status.AuditFacts)
	oldest, newest, err := j.Bounds()
	require.NoError(t, err)
	assert.EqualValues(t, 3, oldest)
	assert.EqualValues(t, 8, newest)
}

// TestReadMatchesAModel pages through random journals in both directions, with
// random filters.
func TestReadMatchesAModel(t *testing.T) {
	j := create(t, config(t))
	var all []fleet.Fact
	audit := uint64(0)
	for index := uint64(1); index <= 60; index++ {
		for ordinal := range uint32(index % 4) {
			f := fact(index, ordinal, 0)
			if (index+uint64(ordinal))%3 == 0 {
				audit++
				f.Audit = audit
			}
			f.Kind = fleet.Kind(fmt.Sprintf("k%d", index%5))
			all = append(all, f)
		}
	}
	require.NoError(t, j.Append(60, all))
	rapid.Check(t, func(rt *rapid.T) {
		q := history.Query{
			Limit: rapid.IntRange(1, 30).Draw(rt, "limit"), NewestFirst: rapid.Bool().Draw(rt, "newest first"),
			AuditOnly: rapid.Bool().Draw(rt, "audit"),
			Agent:     rapid.SampledFrom([]string{"", "a1", "none"}).Draw(rt, "agent"),
			Object:    rapid.SampledFrom([]string{"", "o1"}).Draw(rt, "object"),
			Kinds:     rapid.SampledFrom([][]fleet.Kind{nil, {"k1"}, {"k1", "k4"}}).Draw(rt, "kinds"),
		}
		var want []fleet.Fact
		for _, f := range all {
			if (!q.AuditOnly || f.Audit > 0) && (q.Agent == "" || f.Agent == q.Agent) && (q.Object == "" || f.Object == q.Object) &&
				(q.Kinds == nil || slices.Contains(q.Kinds, f.Kind)) {
				want = append(want, f)
			}
		}
		if q.NewestFirst {
			slices.Reverse(want)
		}
		require.Equal(rt, want, readAll(t, j, q))
	})
	_, _, err := j.Read(history.Query{After: "!!"})
	require.ErrorIs(t, err, history.ErrCursor)
	_, _, err = j.Read(history.Query{After: "YWJj"})
	require.ErrorIs(t, err, history.ErrCursor)
}

func TestAFullJournalDropsTheOldestRoutineFactsAndSaysSo(t *testing.T) {
	var log bytes.Buffer
	c := config(t)
	c.MaxBytes = 64 << 10
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	j := create(t, c)
	big := json.RawMessage(`"` + strings.Repeat("x", 1000) + `"`)
	const n = 100
	for index := uint64(1); index <= n; index++ {
		f, a := fact(index, 0, 0), fact(index, 1, index)
		f.Detail, a.Detail = big, big
		require.NoError(t, j.Append(index, []fleet.Fact{f, a}))
		status, err := j.Status()
		require.NoError(t, err)
		assert.LessOrEqual(t, status.Bytes, c.MaxBytes)
		if index == 40 {
			assert.Empty(t, log.String())
			assert.False(t, status.NearlyFull)
		}
		if index == 58 {
			assert.True(t, status.NearlyFull)
			assert.Zero(t, status.Dropped, "the warning comes before the loss")
			assert.Equal(t, 1, strings.Count(log.String(), "nearly full"))
		}
	}
	status, err := j.Status()
	require.NoError(t, err)
	assert.EqualValues(t, n, status.AuditFacts, "facts of the audit trail are never dropped")
	assert.EqualValues(t, n, status.Facts+status.Dropped, "what went is counted")
	assert.Positive(t, status.Dropped)
	assert.Equal(t, 1, strings.Count(log.String(), "nearly full"), "once, not at each append")
	var routine []uint64
	for _, f := range readAll(t, j, history.Query{}) {
		if f.Audit == 0 {
			routine = append(routine, f.Index)
		}
	}
	assert.EqualValues(t, status.Dropped+1, routine[0], "the oldest go first")
	assert.Len(t, routine, int(status.Facts))
}

func TestOldRoutineFactsExpire(t *testing.T) {
	c := config(t)
	c.MaxAge = time.Hour
	j := create(t, c)
	var facts []fleet.Fact
	for index := uint64(1); index <= 12_000; index++ {
		facts = append(facts, fact(index, 0, 0))
	}
	facts = append(facts, fact(12_000, 1, 1))
	facts[0].Audit = 2
	require.NoError(t, j.Append(12_000, facts))
	dropped, err := j.Trim(testTime.Add(11_900*time.Minute + time.Hour + 123456789))
	require.NoError(t, err)
	assert.Equal(t, 11_898, dropped)
	status, err := j.Status()
	require.NoError(t, err)
	assert.EqualValues(t, 11_898, status.Expired)
	assert.Zero(t, status.Dropped)
	assert.EqualValues(t, 101, status.Facts)
	assert.EqualValues(t, 2, status.AuditFacts)
	assert.EqualValues(t, 12_000, j.Through(), "what went does not come again")
	require.NoError(t, j.Append(12_000, facts))
	after, err := j.Status()
	require.NoError(t, err)
	assert.Equal(t, status, after)
	dropped, err = j.Trim(testTime)
	require.NoError(t, err)
	assert.Zero(t, dropped)
}

func TestRunTrims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(t)
		c.MaxAge = 24 * time.Hour
		j := create(t, c)
		old := fact(1, 0, 0)
		old.Time = time.Now().Add(-22 * time.Hour)
		require.NoError(t, j.Append(1, []fleet.Fact{old}))
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Hour)
		defer cancel()
		require.NoError(t, j.Run(ctx))
		status, err := j.Status()
		require.NoError(t, err)
		assert.EqualValues(t, 1, status.Expired)
		require.NoError(t, j.Close())
	})
}

func TestGapsAreRecorded(t *testing.T) {
	j := create(t, config(t))
	require.NoError(t, j.Append(4, []fleet.Fact{fact(4, 0, 0)}))
	require.NoError(t, j.Skip(9))
	require.NoError(t, j.Skip(9))
	require.NoError(t, j.Append(10, []fleet.Fact{fact(7, 0, 0), fact(10, 0, 0)}))
	status, err := j.Status()
	require.NoError(t, err)
	assert.Equal(t, history.Gaps{{From: 5, To: 9}}, status.Gaps)
	assert.EqualValues(t, 10, j.Through())
	assert.Len(t, readAll(t, j, history.Query{}), 2)
}

func TestCreateIsAllOrNothing(t *testing.T) {
	c := config(t)
	require.NoError(t, os.WriteFile(c.Path+".new", []byte("half of an earlier attempt"), 0o600))
	_, err := history.Open(c)
	require.ErrorIs(t, err, history.ErrMissing)
	j := create(t, c)
	_, err = history.Create(c)
	require.ErrorIs(t, err, history.ErrExists)
	_, err = history.Open(c)
	require.ErrorIs(t, err, history.ErrInUse)
	require.NoError(t, j.Close())

	c.Path = filepath.Join(filepath.Dir(c.Path), "no", "such", "directory", "journal.db")
	_, err = history.Create(c)
	require.Error(t, err)
	_, err = history.Create(history.Config{Path: "relative", MaxBytes: 1, MaxAge: -1})
	for _, field := range []string{"path", "logger", "age", "size"} {
		require.ErrorContains(t, err, field)
	}
}

func TestFilesThatAreNoJournalAreRefusedAndKept(t *testing.T) {
	build := func(t *testing.T) (history.Config, []byte) {
		c := config(t)
		j := create(t, c)
		var facts []fleet.Fact
		for index := uint64(1); index <= 200; index++ {
			facts = append(facts, fact(index, 0, index%2))
		}
		require.NoError(t, j.Append(200, facts))
		require.NoError(t, j.Close())
		content, err := os.ReadFile(c.Path)
		require.NoError(t, err)
		return c, content
	}
	edit := func(fn func(tx *bbolt.Tx) error) func(t *testing.T, c history.Config, _ []byte) {
		return func(t *testing.T, c history.Config, _ []byte) {
			db, err := bbolt.Open(c.Path, 0o600, nil)
			require.NoError(t, err)
			require.NoError(t, db.Update(fn))
			require.NoError(t, db.Close())
		}
	}
	write := func(fn func(content []byte) []byte) func(t *testing.T, c history.Config, content []byte) {
		return func(t *testing.T, c history.Config, content []byte) {
			require.NoError(t, os.WriteFile(c.Path, fn(content), 0o600))
		}
	}
	put := func(bucket, key, value string) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value)) }
	}
	for name, test := range map[string]struct {
		spoil func(t *testing.T, c history.Config, content []byte)
		want  error
	}{
		"text":            {write(func([]byte) []byte { return []byte("not a database, just a text of some length") }), history.ErrForeign},
		"empty":           {write(func([]byte) []byte { return nil }), history.ErrDamaged},
		"cut short":       {write(func(c []byte) []byte { return c[:len(c)/2] }), history.ErrDamaged},
		"headers gone":    {write(func(c []byte) []byte { c[20], c[4116] = 99, 99; return c }), history.ErrDamaged},
		"pages gone":      {write(func(c []byte) []byte { clear(c[8192:]); return c }), history.ErrDamaged},
		"other database":  {edit(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("meta")) }), history.ErrForeign},
		"other format":    {edit(put("meta", "format", "something else")), history.ErrForeign},
		"later version":   {edit(put("meta", "format", "certctl journal 2")), history.ErrNewer},
		"strange version": {edit(put("meta", "format", "certctl journal x")), history.ErrDamaged},
		"bucket gone":     {edit(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("audit")) }), history.ErrDamaged},
		"no ledger":       {edit(put("meta", "ledger", "\xff")), history.ErrDamaged},
		"strange fact":    {edit(put("routine", "\xff", "x")), history.ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			c, content := build(t)
			test.spoil(t, c, content)
			before, err := os.ReadFile(c.Path)
			require.NoError(t, err)
			_, err = history.Open(c)
			require.ErrorIs(t, err, test.want)
			require.ErrorContains(t, err, c.Path)
			after, err := os.ReadFile(c.Path)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(before, after), "the file must be left as it is")
		})
	}
}

// What is not kept elsewhere yet is not too old, and while nobody knows, nothing is.
func TestOldFactsStayUntilTheyAreKeptElsewhere(t *testing.T) {
	c := config(t)
	c.MaxAge = time.Hour
	j := create(t, c)
	var facts []fleet.Fact
	for index := uint64(1); index <= 30; index++ {
		facts = append(facts, fact(index, 0, 0))
	}
	require.NoError(t, j.Append(30, facts))
	old := testTime.Add(365 * 24 * time.Hour)
	dropped, err := j.TrimThrough(old, 10)
	require.NoError(t, err)
	assert.Equal(t, 10, dropped)
	assert.Equal(t, facts[10:], readAll(t, j, history.Query{}))

	synctest.Test(t, func(t *testing.T) { // it is the year 2000: nothing is old by this clock
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		j.KeepUntil(func(context.Context) (uint64, error) {
			asked++
			return 0, errors.New("no leader")
		})
		done := make(chan error, 1)
		go func() { done <- j.Run(ctx) }()
		time.Sleep(3*time.Hour + time.Minute)
		synctest.Wait()
		assert.GreaterOrEqual(t, asked, 3)
		cancel()
		require.NoError(t, <-done)
	})
	assert.Equal(t, facts[10:], readAll(t, j, history.Query{}))
}

// Run asks how far facts are kept elsewhere, and drops no others.
func TestRunDropsOnlyWhatIsKeptElsewhere(t *testing.T) {
	c := config(t)
	c.MaxAge = time.Hour
	j := create(t, c)
	facts := []fleet.Fact{fact(1, 0, 0), fact(2, 0, 0), fact(3, 0, 0)}
	for i := range facts {
		facts[i].Time = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	require.NoError(t, j.Append(3, facts))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		j.KeepUntil(func(context.Context) (uint64, error) { return 2, nil })
		done := make(chan error, 1)
		go func() { done <- j.Run(ctx) }()
		time.Sleep(time.Minute)
		cancel()
		require.NoError(t, <-done)
	})
	assert.Equal(t, facts[2:], readAll(t, j, history.Query{}))
}
