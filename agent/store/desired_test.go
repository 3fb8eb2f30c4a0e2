package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/shared/wire"
)

func assignment(name string, revision uint64) wire.Assignment {
	return wire.Assignment{Name: name, Revision: revision, Certificate: json.RawMessage(fmt.Sprintf(`{"names":["%d.example.com"]}`, revision))}
}

func (m *model) saveDesired(t *rapid.T) {
	next := wire.Desired{Digest: rapid.SampledFrom([]string{"", "d1", "d2", "d3"}).Draw(t, "digest")}
	for _, name := range []string{"a", "b", "c"} {
		if rapid.Bool().Draw(t, name) {
			next.Assignments = append(next.Assignments, assignment(name, rapid.Uint64Range(1, 2).Draw(t, "revision")))
		}
	}
	commits := lastCommit(t, m.store)
	err := m.store.SaveDesired(&next)
	if next.Digest == "" {
		var problem *wire.Problem
		require.ErrorAs(t, err, &problem)
		require.Equal(t, commits, lastCommit(t, m.store))
		return
	}
	require.NoError(t, err)
	if m.refused == "" && m.desired.Digest == next.Digest && fmt.Sprint(m.desired) == fmt.Sprint(next) {
		require.Equal(t, commits, lastCommit(t, m.store), "a change of nothing must write nothing")
	}
	m.desired, m.refused = next, ""
}

func (m *model) saveAccepted(t *rapid.T) {
	var next []wire.Assignment
	for _, name := range []string{"a", "b"} {
		if rapid.Bool().Draw(t, name) {
			next = append(next, assignment(name, rapid.Uint64Range(1, 2).Draw(t, "revision")))
		}
	}
	commits := lastCommit(t, m.store)
	require.NoError(t, m.store.SaveAccepted(next))
	if fmt.Sprint(m.accepted) == fmt.Sprint(next) {
		require.Equal(t, commits, lastCommit(t, m.store), "a change of nothing must write nothing")
	}
	m.accepted = next
}

func (m *model) refuseDesired(t *rapid.T) {
	digest := rapid.SampledFrom([]string{"d1", "d2", "d3"}).Draw(t, "digest")
	require.NoError(t, m.store.RefuseDesired(digest, "not valid", wire.Event{Kind: wire.EventFailed}))
	if m.refused != digest {
		m.emitted++
	}
	m.refused = digest
}

// followCommands plays a coordinator that sends some commands and was told of
// some that are over.
func (m *model) followCommands(t *rapid.T) {
	var sent []wire.Command
	wanted := map[string]bool{}
	for i := range 4 {
		id := fmt.Sprintf("command-%d", i)
		if rapid.Bool().Draw(t, id) {
			wanted[id] = true
			sent = append(sent, wire.Command{ID: id, Kind: wire.CommandRenew, Certificate: modelName.Draw(t, "name")})
		}
	}
	told := map[string]bool{}
	for id, c := range m.commands {
		if c.State.Final() && rapid.Bool().Draw(t, "told") {
			told[id] = true
		}
	}
	accepted, err := m.store.FollowCommands(sent, told)
	require.NoError(t, err)
	maps.DeleteFunc(m.commands, func(id string, c Command) bool {
		if wanted[id] {
			return false
		}
		if c.State.Final() {
			return told[id]
		}
		return !c.Bound
	})
	fresh := 0
	for _, command := range sent {
		if _, known := m.commands[command.ID]; !known {
			m.commands[command.ID] = Command{Request: command, State: wire.CommandAccepted, At: epoch}
			fresh++
		}
	}
	require.Equal(t, fresh, accepted)
}

func (m *model) updateCommand(t *rapid.T) {
	id := fmt.Sprintf("command-%d", rapid.IntRange(0, 3).Draw(t, "id"))
	state := rapid.SampledFrom([]wire.CommandState{wire.CommandAccepted, wire.CommandDone, wire.CommandFailed}).Draw(t, "state")
	fail := rapid.IntRange(0, 4).Draw(t, "fail") == 0
	broken := errors.New("refused")
	called := false
	err := m.store.UpdateCommand(id, func(c *Command, record *Certificate) error {
		called = true
		_, has := m.records[c.Request.Certificate]
		require.Equal(t, has, record != nil)
		c.State, c.Bound = state, true
		if fail {
			return broken
		}
		return nil
	})
	known, is := m.commands[id]
	require.Equal(t, is, called)
	if is && fail {
		require.Equal(t, broken, err)
		return
	}
	require.NoError(t, err)
	if is {
		known.State, known.Bound = state, true
		m.commands[id] = known
	}
}

func (m *model) checkDesired(t *rapid.T) {
	desired, err := m.store.Desired()
	require.NoError(t, err)
	require.Equal(t, m.desired, desired)
	accepted, err := m.store.Accepted()
	require.NoError(t, err)
	require.Equal(t, m.accepted, accepted)
	wanted, err := m.store.Wanted()
	require.NoError(t, err)
	require.Equal(t, m.desired.Digest, wanted.Digest)
	require.Equal(t, m.refused, wanted.RefusedDigest)
	list, err := m.store.Commands()
	require.NoError(t, err)
	require.Len(t, list, len(m.commands))
	for _, c := range list {
		require.Equal(t, m.commands[c.Request.ID], c)
	}
}

func TestAStateThatIsNotValidIsRefusedWhole(t *testing.T) {
	s := openTest(t, Options{})
	good := &wire.Desired{Digest: "good", Assignments: []wire.Assignment{assignment("a", 1)}}
	require.NoError(t, s.SaveDesired(good))
	commits := s.Commits()
	for name, bad := range map[string]*wire.Desired{
		"no digest":    {Assignments: []wire.Assignment{assignment("b", 1)}},
		"twice":        {Digest: "bad", Assignments: []wire.Assignment{assignment("b", 1), assignment("b", 2)}},
		"not in order": {Digest: "bad", Assignments: []wire.Assignment{assignment("b", 1), assignment("a", 2)}},
		"too large": {Digest: "bad", Assignments: []wire.Assignment{
			{Name: "b", Certificate: json.RawMessage(`"` + strings.Repeat("x", wire.MaxAssignmentBytes) + `"`)}}},
		"too many": {Digest: "bad", Assignments: make([]wire.Assignment, wire.MaxAssignments+1)},
	} {
		var problem *wire.Problem
		require.ErrorAs(t, s.SaveDesired(bad), &problem, name)
	}
	assert.Equal(t, commits, s.Commits())
	stored, err := s.Desired()
	require.NoError(t, err)
	assert.Equal(t, *good, stored)
}

func TestARefusalIsReportedOnce(t *testing.T) {
	s := openTest(t, Options{})
	fact := wire.Event{Kind: wire.EventFailed, Detail: "bad"}
	for range 3 {
		require.NoError(t, s.RefuseDesired("bad", "names do not grow", fact))
	}
	require.NoError(t, s.RefuseDesired("worse", "names do not grow", fact))
	events, err := s.Events(0)
	require.NoError(t, err)
	assert.Len(t, events, 2)
	require.NoError(t, s.SaveDesired(&wire.Desired{Digest: "good"}))
	wanted, err := s.Wanted()
	require.NoError(t, err)
	assert.Equal(t, Wanted{Digest: "good", ReceivedAt: epoch}, wanted, "what was refused is over")
}

// A host takes no more commands than it reports, and the rest in their turn.
func TestCommandsAreBounded(t *testing.T) {
	s := openTest(t, Options{})
	var sent []wire.Command
	for i := range wire.MaxCommands + 20 {
		sent = append(sent, wire.Command{ID: fmt.Sprintf("command-%04d", i), Kind: wire.CommandRenew, Certificate: "www"})
	}
	accepted, err := s.FollowCommands(sent, nil)
	require.NoError(t, err)
	assert.Equal(t, wire.MaxCommands, accepted)
	commits := s.Commits()
	accepted, err = s.FollowCommands(sent, nil)
	require.NoError(t, err)
	assert.Zero(t, accepted)
	assert.Equal(t, commits, s.Commits(), "nothing new costs no write")

	told := map[string]bool{}
	for _, command := range sent[:30] {
		told[command.ID] = true
		require.NoError(t, s.UpdateCommand(command.ID, func(c *Command, _ *Certificate) error { c.State = wire.CommandDone; return nil }))
	}
	accepted, err = s.FollowCommands(sent[30:], told)
	require.NoError(t, err)
	assert.Equal(t, 20, accepted)
	list, err := s.Commands()
	require.NoError(t, err)
	assert.Len(t, list, wire.MaxCommands-10)
	assert.True(t, slices.IsSortedFunc(list, func(a, b Command) int { return strings.Compare(a.Request.ID, b.Request.ID) }))
}
