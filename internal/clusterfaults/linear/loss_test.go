package linear

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheFateOfAPlace(t *testing.T) {
	loss := Loss{After: 10, Before: 20, Kept: map[[16]byte]bool{{1}: true}}
	for _, c := range []struct {
		place Place
		want  Fate
	}{
		{Place{After: 3, Upto: 10}, Kept},
		{Place{After: 9, Upto: 11}, Unsure},
		{Place{After: 10, Upto: 11}, Gone},
		{Place{After: 18, Upto: 19}, Gone},
		{Place{After: 10, Upto: 11, Command: [16]byte{1}}, Unsure},
		{Place{After: 18, Upto: 20}, Unsure},
		{Place{After: 19, Upto: 20}, Unsure},
		{Place{After: 20, Upto: 21}, Kept},
		{Place{After: 30, Upto: 31}, Kept},
	} {
		assert.Equal(t, c.want, loss.Fate(c.place), "%+v", c.place)
	}
}

// A cluster has lost what stands behind entry 10. That it was there before is
// checked, and so is that it is gone.
func TestALossIsSeenFromBothSides(t *testing.T) {
	create := Input{Kind: CreateToken, Object: "t"}
	use := func(key string) Input { return Input{Kind: UseToken, Object: "t", Value: key} }
	read := Input{Kind: ReadToken, Object: "t"}
	at := func(index uint64) Place { return Place{After: index - 1, Upto: index} }
	begin := func() *script {
		s := newScript()
		s.client.Begin(create).DoneAt(Output{}, at(9))
		s.client.Begin(use("kept")).DoneAt(Output{}, at(10))
		s.client.Begin(use("lost")).DoneAt(Output{}, at(11))
		s.client.Begin(read).DoneAt(Output{Exists: true, Number: 2}, at(11))
		return s
	}
	loss := Loss{After: 10, Before: 1 << 62}

	s := begin()
	before := s.Lose(loss)
	require.NoError(t, before.Check(time.Minute))
	require.NoError(t, s.did(read, Output{Exists: true, Number: 1}).Check(time.Minute))

	bad := map[string]func(s *script) *script{
		"what is kept is missing":     func(s *script) *script { return s.did(read, Output{Exists: true}) },
		"what is lost is there":       func(s *script) *script { return s.did(read, Output{Exists: true, Number: 2}) },
		"what is lost is known to be": func(s *script) *script { return s.did(use("lost"), Output{Repeated: true}) },
		"what is kept happens again":  func(s *script) *script { return s.did(use("kept"), Output{}) },
		"all is lost":                 func(s *script) *script { return s.did(read, Output{}) },
	}
	for name, after := range bad {
		t.Run(name, func(t *testing.T) {
			s := begin()
			require.NoError(t, s.Lose(loss).Check(time.Minute))
			var failure *NotLinearizableError
			require.ErrorAs(t, after(s).Check(time.Minute), &failure)
			assert.NoError(t, os.Remove(failure.Picture))
		})
	}

	s = begin()
	s.client.Begin(read).DoneAt(Output{Exists: true, Number: 1}, at(11)) // stale when it was read
	var failure *NotLinearizableError
	require.ErrorAs(t, s.Lose(loss).Check(time.Minute), &failure, "a loss covers nothing that was wrong before it")
	assert.NoError(t, os.Remove(failure.Picture))

	// What is under way then may have happened before, and may yet happen.
	s = begin()
	pending := s.Client().Begin(use("under way"))
	s.client.Begin(read).DoneAt(Output{Exists: true, Number: 3}, at(12))
	require.NoError(t, s.Lose(loss).Check(time.Minute))
	pending.Done(Output{})
	require.NoError(t, s.did(read, Output{Exists: true, Number: 2}).Check(time.Minute))
}
