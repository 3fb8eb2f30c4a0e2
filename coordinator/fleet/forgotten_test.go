package fleet

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/counts"
)

// Commands are proposed again after any number of others, with clocks that jump and
// nodes that start from a snapshot in between. One that passes Forgotten is
// recognized whenever it was applied; and nothing that is remembered is held back.
func TestARepeatIsRecognizedOrHeldBack(t *testing.T) {
	const room = 200
	type proposed struct {
		command Command
		since   uint64 // what the proposer had applied
		result  Result // of the first time; of a command that was never applied, none
		applied bool
		behind  int // commands that were applied before it
	}
	recognized, held := 0, 0
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 7))
		state, err := New()
		require.NoError(t, err)
		state.rememberMax = room
		now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
		apply := func(commands ...Command) []Result {
			entry, err := EncodeEntry(commands)
			require.NoError(t, err)
			results, _, err := state.Apply(state.Index()+1+uint64(random.IntN(2)), entry)
			require.NoError(t, err)
			return results
		}
		count, jumped := 0, false
		fresh := func() Command {
			count++
			command, err := NewCommand(now, CreateEnrollmentToken{ID: fmt.Sprint(count)})
			require.NoError(t, err)
			return command
		}
		var open []proposed
		for range 300 {
			now = now.Add(time.Duration(random.IntN(1000)) * time.Millisecond)
			switch random.IntN(30) {
			case 0:
				now, jumped = now.Add(2*time.Hour), true
			case 1:
				var snapshot bytes.Buffer
				require.NoError(t, state.Snapshot().Persist(&snapshot))
				state, err = New()
				require.NoError(t, err)
				state.rememberMax, jumped = room, true // what it knows of before is less
				require.NoError(t, state.Restore(&snapshot))
			}
			batch := make([]Command, 1+random.IntN(20))
			for i := range batch {
				batch[i] = fresh()
			}
			since := state.Index()
			switch random.IntN(4) {
			case 0: // it never arrived
				open = append(open, proposed{command: batch[0], since: since, behind: count})
			default:
				before := count
				results := apply(batch...)
				open = append(open, proposed{command: batch[0], since: since, result: results[0], applied: true, behind: before})
			}
			if len(open) == 0 || random.IntN(2) == 0 {
				continue
			}
			at := random.IntN(len(open))
			again := open[at]
			if again.since < state.Forgotten() {
				require.True(t, jumped || count-again.behind > room-40, "seed %d: it is held back after %d commands", seed, count-again.behind)
				held++
				continue
			}
			result := apply(again.command)[0]
			require.True(t, result.OK(), "seed %d: it was applied twice", seed)
			if again.applied {
				require.Equal(t, again.result, result)
				recognized++
			}
			open[at].applied, open[at].result = true, result
		}
	}
	require.Positive(t, held)
	counts.Report(t, "repeated-commands", recognized, "commands that were applied and proposed again, each recognized")
}
