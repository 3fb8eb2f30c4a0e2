package peer

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// learn makes a node know all there is when it asks, as Members.Refresh does: it
// calls a member that it knows.
func (r *resident) learn(from *resident) *atomic.Int32 {
	var rounds atomic.Int32
	r.refresh = func(ctx context.Context) error {
		rounds.Add(1)
		if _, err := r.Call(ctx, from.identity.ID(), from.address, "configuration", nil); err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.view = nil
		return nil
	}
	return &rounds
}

// A node that does not know of a new member yet asks before it refuses.
func TestAStaleListIsRefreshedBeforeARefusal(t *testing.T) {
	w := newTown(t)
	a, b, c := w.member("a"), w.member("b"), w.settle("new", true).start()
	a.view = map[string]string{"a": a.address, "b": b.address}
	rounds := a.learn(b)
	answer, err := c.ask(a)
	require.NoError(t, err)
	assert.Equal(t, "new echo hello", answer)
	assert.EqualValues(t, 1, rounds.Load())
	assert.Zero(t, a.Stats().Refused[reasonNotMember])

	// The same when this node is the one that connects.
	w = newTown(t)
	a, b, c = w.member("a"), w.member("b"), w.settle("new", true).start()
	a.view = map[string]string{"a": a.address, "b": b.address}
	a.learn(b)
	layer := c.StreamLayer()
	defer layer.Close()
	stream, err := a.StreamLayer().Dial(addressOf(c), patience)
	require.NoError(t, err)
	require.NoError(t, stream.Close())
}

// However many strangers come, and even if asking meets with another stranger, the
// others are asked once at a time and not again at once.
func TestRefreshesAreFew(t *testing.T) {
	w := newTown(t)
	a := w.member("a", func(c *NetworkConfig) { c.RefreshGap = time.Hour })
	b := w.member("b")
	a.view = map[string]string{"a": a.address, "b": b.address}
	arrived, release := make(chan struct{}), make(chan struct{})
	var rounds atomic.Int32
	a.refresh = func(ctx context.Context) error {
		if rounds.Add(1) == 1 {
			close(arrived)
		}
		<-release
		_, err := a.Call(ctx, "nobody", "127.0.0.1:1", "configuration", nil)
		assert.ErrorIs(t, err, ErrNotMember, "a round does not wait for itself")
		return errors.New("nobody answers")
	}
	var group sync.WaitGroup
	for _, id := range []string{"x", "y", "z"} {
		s := w.settle(id, false).start()
		s.view = map[string]string{"a": a.address}
		for range 4 {
			group.Go(func() {
				_, err := s.ask(a)
				assert.ErrorIs(t, err, ErrNotMember)
			})
		}
	}
	<-arrived
	close(release)
	group.Wait()
	assert.EqualValues(t, 1, rounds.Load())
	assert.EqualValues(t, 1, a.Stats().Refreshes)
}

// Before SetMembers, and without a member, nobody is let in.
func TestNobodyIsAMemberBeforeTheMembersAreKnown(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.settle("b", true)
	b.SetMembers(nil)
	b.start()
	_, err := a.ask(b)
	require.ErrorIs(t, err, ErrNotMember)
	_, err = b.ask(a)
	require.ErrorIs(t, err, ErrNotMember)
	_, err = b.StreamLayer().Dial(addressOf(a), patience)
	require.ErrorIs(t, err, ErrNotMember)
}

// stream opens a stream of Raft from one node to another, and returns both ends.
func stream(t *testing.T, from, to *resident) (out, in net.Conn) {
	t.Helper()
	layer := to.streams()
	out, err := from.streams().Dial(addressOf(to), patience)
	require.NoError(t, err)
	in, err = layer.Accept()
	require.NoError(t, err)
	return out, in
}

// The connections of a removed node end at once, in both directions, also one that
// is full because the other side does not read.
func TestConnectionsOfARemovedNodeEnd(t *testing.T) {
	w := newTown(t)
	a, b, c := w.member("a"), w.member("b"), w.member("c")
	var closed atomic.Int32
	d := w.settle("d", true)
	d.OnClosed(func() { closed.Add(1) })
	d.start()

	toRemoved, _ := stream(t, d, b)   // d sends a snapshot to b
	_, fromRemoved := stream(t, b, d) // and reads from b
	toOther, otherEnd := stream(t, d, c)
	_, err := d.ask(b)
	require.NoError(t, err)
	ended := make(chan error, 2)
	go func() {
		block := make([]byte, 1<<20)
		for {
			if _, err := toRemoved.Write(block); err != nil {
				ended <- err
				return
			}
		}
	}()
	go func() {
		_, err := fromRemoved.Read(make([]byte, 1))
		ended <- err
	}()

	w.leave("b")
	d.CloseExcept(d.Member)
	for range 2 {
		select {
		case err := <-ended:
			require.Error(t, err)
		case <-time.After(patience):
			require.Fail(t, "a connection of the removed node goes on")
		}
	}
	assert.EqualValues(t, 1, closed.Load(), "who keeps streams was told")
	_, err = d.ask(b)
	require.ErrorIs(t, err, ErrNotMember)
	_, err = b.ask(d)
	require.ErrorIs(t, err, ErrNotMember)
	for kind := range d.Stats().Connections {
		assert.NotEqual(t, "b", kind.Peer)
	}

	_, err = toOther.Write([]byte("x"))
	require.NoError(t, err, "the others' go on")
	_, err = otherEnd.Read(make([]byte, 1))
	require.NoError(t, err)
	_, err = d.ask(a)
	require.NoError(t, err)

	d.CloseExcept(d.Member)
	assert.EqualValues(t, 1, closed.Load(), "there was nothing to close")
}

// A new stream layer takes the place of the one before.
func TestOneStreamLayerAtATime(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	first := a.StreamLayer()
	out, err := b.StreamLayer().Dial(addressOf(a), patience)
	require.NoError(t, err)
	second := a.StreamLayer()
	defer second.Close()
	_, err = first.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = out.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = first.Dial(addressOf(b), patience)
	require.Error(t, err)
	assert.Equal(t, a.address, second.Addr().String())
	assert.Equal(t, "tcp", second.Addr().Network())
}

// When a root is retired, what it had vouched for ends by itself, in both directions:
// a connection that lives for weeks would else outlive its root.
func TestConnectionsOfARetiredRootEnd(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	var told atomic.Int32
	c := w.settle("c", true)
	c.OnClosed(func() { told.Add(1) })
	c.start()
	_, toB := stream(t, a, b)
	fromC, _ := stream(t, c, b)
	later, _ := stream(t, a, c)
	for _, end := range []net.Conn{toB, fromC, later} {
		require.NoError(t, end.SetReadDeadline(time.Now().Add(patience)))
	}
	w.rotate([]*Identity{a.identity, b.identity, c.identity}, func() {})
	for _, end := range []net.Conn{toB, fromC, later} {
		_, err := end.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	}
	require.Eventually(t, func() bool { return told.Load() > 0 }, patience, time.Millisecond, "whoever keeps idle streams is told")
	for _, n := range []*resident{a, b, c} {
		require.Eventually(t, func() bool { return len(n.Stats().Connections) == 0 }, patience, time.Millisecond)
	}
	fresh, _ := stream(t, a, b)
	require.NoError(t, fresh.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	_, err := fresh.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "one of the new root stays")
}
