package history_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
)

// Journals of one cluster that are far or not so far, whole or not, filled from others
// and trimmed: those of one edition hold the same, and those that hold the same and
// lack the same are of one edition.
func TestEditions(t *testing.T) {
	const entries = 24
	facts := life(entries)
	aging := config(t)
	aging.MaxAge = 10 * time.Minute // of ten entries
	journals := map[string]*history.Journal{}
	add := func(name string, c history.Config, build func(j *history.Journal) error) *history.Journal {
		c.Path = config(t).Path
		j := create(t, c)
		require.NoError(t, build(j))
		journals[name] = j
		return j
	}
	appended := func(from, to uint64) func(*history.Journal) error {
		return func(j *history.Journal) error { return j.Append(to, of(facts, from, to)) }
	}
	add("empty", aging, func(*history.Journal) error { return nil })
	for _, through := range []uint64{1, 3, 4, 7, entries - 1, entries} {
		add(fmt.Sprint("through ", through), aging, appended(1, through))
	}
	whole := add("whole, in two steps", aging, func(j *history.Journal) error {
		require.NoError(t, j.Append(9, of(facts, 1, 9)))
		return j.Append(entries, of(facts, 10, entries))
	})
	add("whole, and further without facts", aging, func(j *history.Journal) error { return j.Append(entries+5, facts) })
	trimmed := add("trimmed", aging, appended(1, entries))
	_, err := trimmed.Trim(testTime.Add((entries + 3) * time.Minute))
	require.NoError(t, err)
	further := add("trimmed further", aging, appended(1, entries))
	_, err = further.Trim(testTime.Add((entries + 6) * time.Minute))
	require.NoError(t, err)
	skipped := func(j *history.Journal) error {
		require.NoError(t, j.Append(5, of(facts, 1, 5)))
		require.NoError(t, j.Skip(20))
		return j.Append(entries, of(facts, 21, entries))
	}
	add("with a gap", aging, skipped)
	add("with another gap", aging, func(j *history.Journal) error {
		require.NoError(t, j.Append(5, of(facts, 1, 5)))
		require.NoError(t, j.Skip(19)) // and in the entry after it there are no facts
		return j.Append(entries, of(facts, 20, entries))
	})
	fill(t, add("with a gap that was filled", aging, skipped), whole, 1<<20)
	fill(t, add("with a gap that was filled by one that had trimmed it", aging, skipped), trimmed, 1<<20)

	for _, auditOnly := range []bool{true, false} {
		type read struct {
			facts []fleet.Fact
			gaps  history.Gaps
		}
		editions, reads := map[string]string{}, map[string]read{}
		for name, j := range journals {
			edition, err := j.Edition(auditOnly)
			require.NoError(t, err)
			status, err := j.Status()
			require.NoError(t, err)
			editions[name], reads[name] = edition, read{readAll(t, j, history.Query{AuditOnly: auditOnly}), status.Gaps}
		}
		same := 0
		for one, edition := range editions {
			for other := range editions {
				equal := assert.ObjectsAreEqual(reads[one], reads[other])
				// That facts were dropped elsewhere is seen in the edition, and not in what is
				// read, which does no harm.
				if edition == editions[other] || one == other {
					assert.True(t, equal, "%s and %s are of one edition", one, other)
					same++
				} else if auditOnly {
					assert.False(t, equal, "%s and %s hold the same", one, other)
				}
			}
		}
		assert.Greater(t, same, len(editions)+5)
	}
	one, err := whole.Edition(false)
	require.NoError(t, err)
	two, err := journals["with a gap that was filled"].Edition(false)
	require.NoError(t, err)
	assert.Equal(t, one, two, "whole again")
	require.NoError(t, whole.Close())
	_, err = whole.Edition(true)
	require.Error(t, err)
}
