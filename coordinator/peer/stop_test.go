package peer

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whatever is under way, stopping ends it: a handshake, a full stream, a call in
// each direction, a connection that is being made, a round of asking.
func TestStoppingWaitsForNobody(t *testing.T) {
	w := newTown(t)
	b := w.answering("b", func(ctx context.Context, _, _ string, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	dialling := make(chan struct{})
	a := w.settle("a", true, func(c *NetworkConfig) {
		dial := NetworkConfig{}.withDefaults().Dial
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			if address != "127.0.0.1:1" {
				return dial(ctx, address)
			}
			close(dialling)
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	called := make(chan struct{})
	a.HandleCalls(func(ctx context.Context, _, _ string, _ []byte) ([]byte, error) {
		close(called)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	asking := make(chan struct{})
	a.view = map[string]string{"a": a.address, "b": b.address, "far": "127.0.0.1:1"}
	a.refresh = func(ctx context.Context) error {
		close(asking)
		<-ctx.Done()
		return ctx.Err()
	}
	a.start()

	silent, err := net.Dial("tcp", a.address)
	require.NoError(t, err)
	defer silent.Close()
	out, _ := stream(t, a, b)
	full := make(chan struct{})
	failures := make(chan error, 8)
	go func() {
		close(full)
		for block := make([]byte, 1<<20); ; {
			if _, err := out.Write(block); err != nil {
				failures <- err
				return
			}
		}
	}()
	begin := func(fn func() error) {
		go func() { failures <- fn() }()
	}
	begin(func() error { _, err := a.ask(b); return err })
	begin(func() error { _, err := b.ask(a); return err })
	begin(func() error { _, err := a.Call(within(t), "far", "127.0.0.1:1", "echo", nil); return err })
	begin(func() error { _, err := a.Call(within(t), "unknown", "127.0.0.1:2", "echo", nil); return err })
	for _, reached := range []chan struct{}{dialling, called, asking, full} {
		select {
		case <-reached:
		case <-time.After(patience):
			require.Fail(t, "something does not begin")
		}
	}
	a.stop()
	for range 5 {
		select {
		case err := <-failures:
			require.Error(t, err)
		case <-time.After(patience):
			require.Fail(t, "something goes on")
		}
	}
	assert.Empty(t, a.Stats().Connections)
	assert.Zero(t, a.Stats().Handshakes)
}

// flaky is a port that fails some times.
type flaky struct {
	net.Listener
	failures atomic.Int32
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.failures.Add(-1) >= 0 {
		return nil, errors.New("too many open files")
	}
	return f.Listener.Accept()
}

// A port that cannot accept for a while is no reason to end; one that somebody has
// closed is.
func TestAPortThatFails(t *testing.T) {
	w := newTown(t)
	b := w.member("b")
	logged := new(records)
	a := w.settle("a", true, func(c *NetworkConfig) {
		port := &flaky{Listener: c.Listener}
		port.failures.Store(3)
		c.Listener, c.Log = port, logged.logger()
	}).start()
	_, err := b.ask(a)
	require.NoError(t, err)
	assert.Len(t, logged.with("too many open files"), 1)

	c := w.settle("c", true)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(context.Background()) }()
	_, err = b.ask(c)
	require.NoError(t, err)
	c.config.Listener.Close()
	select {
	case err := <-ended:
		require.ErrorContains(t, err, "the peer port "+c.address+" was closed")
	case <-time.After(patience):
		require.Fail(t, "the network goes on without a port")
	}
}

func TestSetUpAfterRunPanics(t *testing.T) {
	w := newTown(t)
	a := w.member("a")
	_, err := w.member("b").ask(a) // it runs
	require.NoError(t, err)
	assert.Panics(t, func() { a.Handle("/x/", nil) })
	assert.Panics(t, func() { a.HandleCalls(nil) })
	assert.Panics(t, func() { a.OnClosed(nil) })
}
