package history_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/historytest"
)

func TestTheJournalIsAReaderOfHistory(t *testing.T) {
	historytest.TestReader(t, func(t *testing.T, facts []fleet.Fact) history.Reader {
		j := create(t, config(t))
		require.NoError(t, j.Append(facts[len(facts)-1].Index, facts))
		return j
	})
}

// All batches from the first index on are all facts, in whole entries, and each is
// about as large as was asked for.
func TestBatchesAreTheJournal(t *testing.T) {
	facts := historytest.Facts(60)
	j := create(t, config(t))
	require.NoError(t, j.Append(60, facts))
	for _, limit := range []int{1, 2, 7, 1000} {
		var got []fleet.Fact
		from := uint64(1)
		for from <= 60 {
			b, err := j.Batch(history.Gap{From: from, To: 1 << 40}, limit, 1<<20)
			require.NoError(t, err)
			require.Equal(t, from, b.Range.From)
			require.GreaterOrEqual(t, b.Range.To, from)
			require.Less(t, len(b.Facts), limit+3, "an entry has at most three")
			got = append(got, b.Facts...)
			from = b.Range.To + 1
		}
		require.Equal(t, facts, got, "limit %d", limit)
		require.EqualValues(t, 61, from)
	}
	b, err := j.Batch(history.Gap{From: 1, To: 60}, 1000, 1)
	require.NoError(t, err)
	require.Equal(t, history.Gap{From: 1, To: 1}, b.Range, "the size bounds it too")
	_, err = j.Batch(history.Gap{From: 61, To: 70}, 1, 1)
	require.ErrorIs(t, err, history.ErrNotHere)
}

// A batch never reaches over a gap, and says where it begins.
func TestBatchesStopAtGaps(t *testing.T) {
	j := create(t, config(t))
	require.NoError(t, j.Append(2, []fleet.Fact{fact(2, 0, 1)}))
	require.NoError(t, j.Skip(5))
	require.NoError(t, j.Append(7, []fleet.Fact{fact(6, 0, 2), fact(7, 0, 0)}))
	var ranges []history.Gap
	for from := uint64(1); ; {
		b, err := j.Batch(history.Gap{From: from, To: 100}, 100, 1<<20)
		if errors.Is(err, history.ErrNotHere) {
			break
		}
		require.NoError(t, err)
		ranges = append(ranges, b.Range)
		from = b.Range.To + 1
	}
	assert.Equal(t, []history.Gap{{From: 1, To: 2}, {From: 6, To: 7}}, ranges)
	_, err := j.Batch(history.Gap{From: 3, To: 5}, 100, 1<<20)
	require.ErrorIs(t, err, history.ErrNotHere)
}

func TestBacklogCountsWhatIsAfterAnIndex(t *testing.T) {
	facts := historytest.Facts(20)
	j := create(t, config(t))
	require.NoError(t, j.Append(20, facts))
	for _, after := range []uint64{0, 3, 19, 20, 50} {
		later := slices.DeleteFunc(slices.Clone(facts), func(f fleet.Fact) bool { return f.Index <= after })
		b, err := j.Backlog(after, 1000)
		require.NoError(t, err)
		require.Equal(t, len(later), b.Facts)
		require.False(t, b.More)
		if len(later) > 0 {
			require.Equal(t, later[0].Time, b.Oldest)
		} else {
			require.True(t, b.Oldest.IsZero())
		}
	}
	b, err := j.Backlog(0, 5)
	require.NoError(t, err)
	require.True(t, b.Facts == 5 && b.More)
}
