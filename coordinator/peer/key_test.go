package peer

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// double is somebody who has the seal key, and has signed itself the name of a
// member: a node that was removed can do so.
func (w *town) double(of *resident) tls.Certificate {
	w.t.Helper()
	identity, err := Create(w.config(of.identity.ID()), w.stored)
	require.NoError(w.t, err)
	return identity.present().cert
}

// Who has the seal key can sign itself the name of a member. The member's key it
// does not have, and is not let in.
func TestTheSealKeyMakesNoMember(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	layer := a.StreamLayer()
	defer layer.Close()
	for _, protocol := range spoken {
		v, err := b.visit(a, protocol, w.double(b))
		require.NoError(t, err)
		assert.Equal(t, verdictOtherKey, v)
		v, err = b.visit(a, protocol, b.identity.present().cert)
		require.NoError(t, err)
		assert.Equal(t, verdictAccepted, v, "the member itself")
	}
	assert.EqualValues(t, 2, a.Stats().Refused[reasonKey])
	assert.Zero(t, a.Stats().UnknownKeys)
}

// Nor is it taken for the member where it answers at the member's address.
func TestADoubleAtTheAddressOfAMember(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	identity, err := Create(w.config("b"), w.stored)
	require.NoError(t, err)
	double := w.settleAs(identity, false).start()
	w.mu.Lock()
	w.members["b"] = double.address
	w.mu.Unlock()

	_, err = a.ask(double)
	require.ErrorIs(t, err, ErrOtherKey)
	require.ErrorIs(t, err, ErrNotSent)
	_, err = a.StreamLayer().Dial(addressOf(double), patience)
	require.ErrorIs(t, err, ErrOtherKey)

	// It hears no more than that it is not known, and what to do if it is a node
	// that has lost its key.
	_, err = double.ask(a)
	require.ErrorIs(t, err, ErrOtherKey)
	require.ErrorIs(t, err, ErrNotMember)
	require.ErrorContains(t, err, "node.key")
	_, err = b.ask(a)
	require.NoError(t, err)
}

// A node that cannot know a key yet asks those who may, and goes by the certificate
// if nobody can tell.
func TestAKeyThatCannotBeKnownYet(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	forget := func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.unknown = map[string]bool{"b": true}
	}
	forget()
	a.refresh = func(context.Context) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.unknown = nil
		return nil
	}
	v, err := b.visit(a, peerProtocol, w.double(b))
	require.NoError(t, err)
	assert.Equal(t, verdictOtherKey, v, "the others know")
	assert.Zero(t, a.Stats().UnknownKeys)

	forget()
	a.refresh = nil
	v, err = b.visit(a, peerProtocol, b.identity.present().cert)
	require.NoError(t, err)
	assert.Equal(t, verdictAccepted, v)
	answer, err := a.ask(b)
	require.NoError(t, err)
	assert.Equal(t, "a echo hello", answer)
	assert.EqualValues(t, 2, a.Stats().UnknownKeys)
}

// A node that was removed and came back under its id has another key: what its old
// self has opened ends.
func TestConnectionsOfAnEarlierKeyEnd(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	out, in := stream(t, b, a)
	defer out.Close()
	defer in.Close()
	w.mu.Lock()
	w.keys["b"] = "another"
	w.mu.Unlock()
	require.NoError(t, in.SetReadDeadline(time.Now().Add(patience)))
	a.CloseExcept(a.Member)
	_, err := in.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	assert.Zero(t, a.Stats().Connections[ConnectionKind{Peer: "b", Protocol: raftProtocol, Incoming: true}])
}

// Whoever was let in before the member's key was known here stays no longer than that.
func TestTheKeyIsLookedAtAgain(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	out, in := stream(t, b, a)
	defer out.Close()
	defer in.Close()
	a.sweep()
	assert.EqualValues(t, 1, a.Stats().Connections[ConnectionKind{Peer: "b", Protocol: raftProtocol, Incoming: true}])
	w.mu.Lock()
	w.keys["b"] = "another"
	w.mu.Unlock()
	require.NoError(t, in.SetReadDeadline(time.Now().Add(patience)))
	a.sweep()
	_, err := in.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
}
