package fleet_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

func TestEntriesSurviveEncoding(t *testing.T) {
	b := newBench(t)
	commands := []fleet.Command{b.command(token("a")), b.command(enrolment("a", "agent"))}
	commands[1].Ignorable = true
	data, err := fleet.EncodeEntry(commands)
	require.NoError(t, err)
	decoded, err := fleet.DecodeEntry(data)
	require.NoError(t, err)
	assert.Equal(t, commands, decoded)
	assert.Equal(t, testTime, decoded[0].At())
	assert.InDelta(t, len(data), commands[0].Size()+commands[1].Size(), 64)
}

func TestEntriesHaveBounds(t *testing.T) {
	b := newBench(t)
	_, err := fleet.EncodeEntry(nil)
	require.Error(t, err)
	_, err = fleet.EncodeEntry(make([]fleet.Command, fleet.MaxEntryCommands+1))
	require.Error(t, err)
	big := token("big")
	big.Description = strings.Repeat("x", fleet.MaxCommand)
	_, err = fleet.NewCommand(testTime, big)
	require.ErrorContains(t, err, "split it")
	_, _, err = b.state.Apply(1, make([]byte, fleet.MaxReadEntry+1))
	require.ErrorIs(t, err, fleet.ErrUndecodable)
}

// TestNoEntryIsLargerThanItsBound: commands whose sizes keep to TargetEntry fit,
// however many they are, and what does not keep to it is refused.
func TestNoEntryIsLargerThanItsBound(t *testing.T) {
	require.Equal(t, 512<<10, fleet.MaxEntry)
	for _, count := range []int{1, 2, 23, 24, 255, 256, fleet.MaxEntryCommands} {
		commands := make([]fleet.Command, count)
		for i := range commands {
			size := fleet.TargetEntry / count
			if i == 0 {
				size = fleet.TargetEntry - (count-1)*size
			}
			commands[i] = fleet.Command{Version: 255, Type: 255, Ignorable: true, ID: fleet.NewID(), Time: -1 << 63, Payload: make([]byte, size)}
			commands[i].Payload = commands[i].Payload[:2*size-commands[i].Size()]
			require.Equal(t, size, commands[i].Size())
		}
		entry, err := fleet.EncodeEntry(commands)
		require.NoError(t, err, "%d commands", count)
		require.LessOrEqual(t, len(entry), fleet.MaxEntry)
	}
	largest := fleet.Command{Version: 1, Type: 1, Payload: make([]byte, fleet.MaxEntry)}
	_, err := fleet.EncodeEntry([]fleet.Command{largest})
	require.ErrorContains(t, err, "propose fewer commands")
}

// TestLargerEntriesOfEarlierVersionsAreRead: logs that they wrote are replayed.
func TestLargerEntriesOfEarlierVersionsAreRead(t *testing.T) {
	big := token("big")
	big.Description = strings.Repeat("x", 1<<20-4096)
	payload, err := cbor.Marshal(big)
	require.NoError(t, err)
	require.Greater(t, len(payload), fleet.MaxCommand)
	type frame struct {
		_        struct{} `cbor:",toarray"`
		Version  uint8
		Commands []fleet.Command
	}
	entry, err := cbor.Marshal(frame{Version: 1, Commands: []fleet.Command{{Version: 1, Type: fleet.TypeCreateEnrollmentToken, ID: fleet.NewID(), Payload: payload}}})
	require.NoError(t, err)
	require.Greater(t, len(entry), fleet.MaxEntry)
	b := newBench(t)
	results, _, err := b.state.Apply(1, entry)
	require.NoError(t, err)
	require.NoError(t, results[0].Err())
	stored, ok := b.view().EnrollmentToken("big")
	require.True(t, ok)
	assert.Equal(t, big.Description, stored.Description)
	restore(t, newBench(t).state, snapshot(t, b.state))
}

func TestWhatCannotBeAppliedStops(t *testing.T) {
	valid := func(b *bench) []fleet.Command { return []fleet.Command{b.command(token("valid"))} }
	for name, test := range map[string]struct {
		entry func(b *bench) []fleet.Command
		want  error
		mend  string
	}{
		"unknown type": {func(b *bench) []fleet.Command {
			return append(valid(b), fleet.Command{Version: 1, Type: 250, ID: fleet.NewID()})
		}, fleet.ErrUnknownCommand, "upgrade this node"},
		"later version of a type": {func(b *bench) []fleet.Command {
			commands := append(valid(b), b.command(token("later")))
			commands[1].Version = 99
			return commands
		}, fleet.ErrUnknownCommand, "upgrade this node"},
		"damaged payload": {func(b *bench) []fleet.Command {
			commands := append(valid(b), b.command(token("damaged")))
			commands[1].Payload = commands[1].Payload[:3]
			return commands
		}, fleet.ErrUndecodable, "damaged"},
		"field that this version does not know": {func(b *bench) []fleet.Command {
			commands := append(valid(b), b.command(token("field")))
			payload, err := cbor.Marshal(map[int]any{2: "field", 99: true})
			require.NoError(b.t, err)
			commands[1].Payload = payload
			return commands
		}, fleet.ErrUndecodable, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.ok(token("before"))
			before := snapshot(t, b.state)
			data, err := fleet.EncodeEntry(test.entry(b))
			require.NoError(t, err)
			results, facts, err := b.state.Apply(2, data)
			require.ErrorIs(t, err, test.want)
			var stop *fleet.StopError
			require.ErrorAs(t, err, &stop)
			assert.EqualValues(t, 2, stop.Index)
			assert.ErrorContains(t, err, test.mend)
			assert.Nil(t, results)
			assert.Nil(t, facts)
			assert.Equal(t, before, snapshot(t, b.state), "nothing of the entry may show, its valid first command neither")
		})
	}
}

func TestIgnorableCommandsArePassedOver(t *testing.T) {
	b := newBench(t)
	results := b.entry(
		fleet.Command{Version: 1, Type: 250, Ignorable: true, ID: fleet.NewID()},
		b.command(token("a")))
	assert.True(t, results[1].OK())
	_, ok := b.view().EnrollmentToken("a")
	assert.True(t, ok)
}

func TestEntriesComeInOrder(t *testing.T) {
	b := newBench(t)
	data, err := fleet.EncodeEntry([]fleet.Command{b.command(token("a"))})
	require.NoError(t, err)
	_, _, err = b.state.Apply(5, data)
	require.NoError(t, err)
	for _, index := range []uint64{5, 4} {
		_, _, err = b.state.Apply(index, data)
		require.ErrorIs(t, err, fleet.ErrOutOfOrder)
	}
}

func TestALaterEntryFrameAsksForAnUpgrade(t *testing.T) {
	data, err := cbor.Marshal([]any{2, "whatever a later version puts here", map[string]int{}})
	require.NoError(t, err)
	_, err = fleet.DecodeEntry(data)
	require.ErrorIs(t, err, fleet.ErrUnknownCommand)
	assert.NotErrorIs(t, err, fleet.ErrUndecodable)
}

func TestResultsTellRefusalsFromOutcomes(t *testing.T) {
	b := newBench(t)
	refused := b.do(fleet.RevokeEnrollmentToken{ID: "none"})
	assert.False(t, refused.OK())
	var rejected *fleet.RejectedError
	require.ErrorAs(t, refused.Err(), &rejected)
	assert.Equal(t, refused.Code, rejected.Code)
	assert.Contains(t, rejected.Error(), "not_found")
	assert.Contains(t, rejected.Error(), rejected.Mend)
	require.ErrorAs(t, refused.Decode(new(fleet.Enrollment)), &rejected)
	err := fleet.Result{Data: []byte{0xff}}.Decode(new(fleet.Enrollment))
	require.Error(t, err)
	assert.False(t, errors.As(err, &rejected))
}

// fuzzState is a state with something in every table that commands look at.
func fuzzState(f *testing.F) *bench {
	b := newBench(f)
	b.furnish()
	return b
}

// checkApplied requires that an entry is refused as a whole, or leads to a
// state that a snapshot can carry.
func checkApplied(t *testing.T, before, entry []byte) {
	state, err := fleet.New()
	require.NoError(t, err)
	restore(t, state, before)
	results, _, err := state.Apply(state.Index()+1, entry)
	if err != nil {
		var stop *fleet.StopError
		require.ErrorAs(t, err, &stop)
		require.NotErrorIs(t, err, fleet.ErrInternal)
		require.Equal(t, before, snapshot(t, state), "a refused entry changes nothing")
		return
	}
	require.NotEmpty(t, results)
	again, err := fleet.New()
	require.NoError(t, err)
	whole := snapshot(t, state)
	restore(t, again, whole)
	require.Equal(t, whole, snapshot(t, again))
}

func FuzzApply(f *testing.F) {
	b := fuzzState(f)
	for _, entry := range b.log {
		f.Add(entry)
	}
	f.Add([]byte{})
	f.Add([]byte{0x82, 0x01, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	before := snapshot(f, b.state)
	f.Fuzz(func(t *testing.T, entry []byte) { checkApplied(t, before, entry) })
}

func FuzzCommand(f *testing.F) {
	b := fuzzState(f)
	for _, entry := range b.log {
		commands, err := fleet.DecodeEntry(entry)
		require.NoError(f, err)
		for _, c := range commands {
			f.Add(uint8(c.Type), c.Version, c.Time, c.Payload)
		}
	}
	for i, typ := range fleet.RegisteredTypes() {
		c := b.command(example(typ, i))
		f.Add(uint8(c.Type), c.Version, c.Time, c.Payload)
	}
	before := snapshot(f, b.state)
	f.Fuzz(func(t *testing.T, typ, version uint8, at int64, payload []byte) {
		entry, err := fleet.EncodeEntry([]fleet.Command{{Version: version, Type: fleet.Type(typ), ID: fleet.ID{1}, Time: at, Payload: payload}})
		if err != nil {
			t.Skip("too large for an entry")
		}
		checkApplied(t, before, entry)
	})
}

// The frame of a later version is told from a damaged one, whether this version could
// read it or not: the mends differ.
func TestALaterEntryIsToldFromADamagedOne(t *testing.T) {
	command, err := fleet.NewCommand(testTime, token("token"))
	require.NoError(t, err)
	entry, err := fleet.EncodeEntry([]fleet.Command{command})
	require.NoError(t, err)
	require.Equal(t, []byte{0x82, 1}, entry[:2], "an array of two, the first of which is the version")
	_, err = fleet.DecodeEntry(entry)
	require.NoError(t, err)

	later := bytes.Clone(entry)
	later[1] = 2
	for name, data := range map[string][]byte{"of the same shape": later, "of another shape": {0x83, 2, 0x61, 'x', 3}} {
		_, err = fleet.DecodeEntry(data)
		require.ErrorIs(t, err, fleet.ErrUnknownCommand, name)
	}
	for name, data := range map[string][]byte{
		"cut short": entry[:len(entry)-1], "later and cut short": later[:len(later)-1], "without a version": {0x80}, "of another shape": {0x83, 1, 0x61, 'x', 3},
	} {
		_, err = fleet.DecodeEntry(data)
		require.ErrorIs(t, err, fleet.ErrUndecodable, name)
	}
}
