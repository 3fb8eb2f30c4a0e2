package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

func someCommand(t *testing.T, at time.Time, payload fleet.Payload) fleet.Command {
	t.Helper()
	command, err := fleet.NewCommand(at, payload)
	require.NoError(t, err)
	return command
}

// What is remembered is answered as a repeat, whatever else was forgotten; and only by
// a node that leads in this term.
func TestRepeatsThatPass(t *testing.T) {
	s := newSurvivors(t, 1)[0]
	s.start()
	tokens(t, []*survivor{s}, "one")
	n := s.node
	first := someCommand(t, time.Now(), fleet.CreateEnrollmentToken{ID: "two"})
	later := someCommand(t, time.Now().Add(3*time.Hour), fleet.CreateEnrollmentToken{ID: "three"}) // empties the memory
	for _, command := range []fleet.Command{first, later} {
		_, err := n.Propose(t.Context(), command)
		require.NoError(t, err)
	}
	repeat := func(commands ...fleet.Command) (passes bool, err error) {
		p := &proposal{commands: commands, repeats: true, outcome: make(chan outcome, 1)}
		if len(n.recognized([]*proposal{p})) == 1 {
			return true, nil
		}
		return false, (<-p.outcome).err
	}
	passes, _ := repeat(later)
	assert.True(t, passes)
	for _, commands := range [][]fleet.Command{{first}, {later, first}} {
		passes, err := repeat(commands...)
		assert.False(t, passes)
		require.ErrorIs(t, err, errForgotten)
	}

	term := n.established.Load()
	defer n.established.Store(term)
	n.established.Store(term + 1) // not noticed yet that the lead was lost in between
	_, err := repeat(later)
	assert.ErrorIs(t, err, ErrNotLeader)
}

// Behind a restore other commands are remembered than when an entry was made.
func TestARestoreHasAnEntryOfItsOwn(t *testing.T) {
	t.Parallel()
	propose := func(payload fleet.Payload) *proposal {
		return &proposal{commands: []fleet.Command{someCommand(t, time.Now(), payload)}}
	}
	n := &Node{queue: make(chan *proposal, 1)}
	restore, token := propose(fleet.ApplyRestore{}), propose(fleet.CreateEnrollmentToken{ID: "one"})
	n.queue <- restore
	batch, held := n.gather(token)
	assert.Equal(t, []*proposal{token}, batch)
	assert.Same(t, restore, held)
	token = propose(fleet.CreateEnrollmentToken{ID: "one"})
	n.queue <- token
	batch, held = n.gather(restore)
	assert.Equal(t, []*proposal{restore}, batch)
	assert.Same(t, token, held)
}
