package fleet

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/wire"
)

func TestWhatIsRememberedIsBoundedWhateverTheClocksSay(t *testing.T) {
	state, err := New()
	require.NoError(t, err)
	assert.Equal(t, 100_000, state.rememberMax)
	state.rememberMax = 500
	apply := func(commands ...Command) []Result {
		data, err := EncodeEntry(commands)
		require.NoError(t, err)
		results, _, err := state.Apply(state.Index()+1, data)
		require.NoError(t, err)
		return results
	}
	create := func(id string, at time.Time) Command {
		command, err := NewCommand(at, CreateEnrollmentToken{ID: id})
		require.NoError(t, err)
		return command
	}

	// A leader whose clock is a year ahead, then one whose clock is right.
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	ahead := create("ahead", now.AddDate(1, 0, 0))
	apply(ahead)
	first := create("first", now)
	apply(first)
	assert.True(t, apply(ahead)[0].OK())
	assert.True(t, apply(first)[0].OK())
	for range 10 {
		commands := make([]Command, 100)
		for i := range commands {
			commands[i] = create("same", now)
		}
		apply(commands...)
		assert.LessOrEqual(t, state.View().Rows(tableSeen), 500+100)
	}
	last := create("last", now)
	apply(last)
	assert.Equal(t, 500, state.View().Rows(tableSeen))
	assert.True(t, apply(last)[0].OK())
	assert.Equal(t, wire.CodeConflict, apply(ahead)[0].Code, "the oldest are forgotten first")
}

func TestTwoHandlersForOneTypeAreFoundAtTheStart(t *testing.T) {
	assert.Panics(t, func() { register(1, initCA) })
}

func TestKeysSortLikeTheirParts(t *testing.T) {
	early, late := time.Unix(-5, 0), time.Unix(5, 0)
	sorted := [][]byte{
		key("", "b"), key("a", ""), key("a", "b"), key("a\x00", "a"), key("a\x00b", ""), key("aa", ""), key("b", ""),
	}
	for i := 1; i < len(sorted); i++ {
		assert.Less(t, string(sorted[i-1]), string(sorted[i]), "%d", i)
	}
	assert.Less(t, string(key(time.Time{})), string(key(early)))
	assert.Less(t, string(key(early)), string(key(late)))
	assert.Less(t, string(key(late)), string(key(late.Add(1))))
	assert.Less(t, string(key(uint64(255))), string(key(uint64(256))))
	assert.Panics(t, func() { key(1.5) })
}
