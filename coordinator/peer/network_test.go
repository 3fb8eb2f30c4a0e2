package peer

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMembersCallEachOther(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	for range 3 {
		answer, err := a.ask(b)
		require.NoError(t, err)
		assert.Equal(t, "a echo hello", answer)
		answer, err = b.ask(a)
		require.NoError(t, err)
		assert.Equal(t, "b echo hello", answer)
	}
	stats := a.Stats()
	assert.EqualValues(t, 1, stats.Dialled, "one connection for three calls")
	assert.EqualValues(t, 1, stats.Accepted)
	assert.EqualValues(t, 3, stats.CallsMade)
	assert.EqualValues(t, 3, stats.CallsServed)
	assert.Equal(t, map[ConnectionKind]int{
		{Peer: "b", Protocol: peerProtocol}: 1, {Peer: "b", Protocol: peerProtocol, Incoming: true}: 1,
	}, stats.Connections)
}

// Neither does a member let in who is none, nor does it connect to them.
func TestNotAMember(t *testing.T) {
	w := newTown(t)
	a, stranger := w.member("a"), w.settle("stranger", false).start()

	_, err := a.ask(stranger)
	require.ErrorIs(t, err, ErrNotMember)
	require.ErrorIs(t, err, ErrNotSent)
	assert.Zero(t, stranger.Stats().Accepted)

	stranger.view = map[string]string{"a": a.address, "stranger": stranger.address}
	_, err = stranger.ask(a)
	require.ErrorIs(t, err, ErrNotMember)
	require.ErrorIs(t, err, ErrNotSent)
	var refused *RefusedError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, "a", refused.Node)
	assert.EqualValues(t, 1, a.Stats().Refused[reasonNotMember])
	assert.Empty(t, a.Stats().Connections)
}

func TestRunEndsAndStaysEnded(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	_, err := a.ask(b)
	require.NoError(t, err)
	layer := a.StreamLayer()
	a.stop()
	require.Error(t, a.Run(context.Background()))
	_, err = a.ask(b)
	require.ErrorIs(t, err, ErrNotSent)
	_, err = layer.Accept()
	require.Error(t, err)
	_, err = b.ask(a)
	require.Error(t, err)
	assert.Empty(t, a.Stats().Connections)
}
