package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// answering is a member that answers calls in a way of its own.
func (w *town) answering(id string, fn callHandler) *resident {
	r := w.settle(id, true)
	r.HandleCalls(fn)
	return r.start()
}

func TestWhatACallTells(t *testing.T) {
	w := newTown(t)
	a := w.member("a")
	b := w.answering("b", func(_ context.Context, _, method string, request []byte) ([]byte, error) {
		switch method {
		case "size":
			return fmt.Append(nil, len(request)), nil
		case "large":
			return make([]byte, MaxMessage), nil
		case "larger":
			return make([]byte, MaxMessage+1), nil
		case "busy":
			return nil, fmt.Errorf("no leader: %w", ErrUnavailable)
		case "wrong":
			return nil, errors.New("it is wrong; " + strings.Repeat("very ", 2000))
		default:
			return nil, ErrUnknownMethod
		}
	})
	call := func(method string, request []byte) ([]byte, error) {
		return a.Call(within(t), "b", b.address, method, request)
	}
	answer, err := call("size", make([]byte, MaxMessage))
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprint(MaxMessage), string(answer))
	_, err = call("size", make([]byte, MaxMessage+1))
	require.ErrorIs(t, err, ErrTooLarge)
	answer, err = call("size", nil)
	require.NoError(t, err)
	assert.Equal(t, "0", string(answer))
	answer, err = call("large", nil)
	require.NoError(t, err)
	assert.Len(t, answer, MaxMessage)
	_, err = call("larger", nil)
	require.ErrorContains(t, err, "larger than")
	_, err = call("later-version", nil)
	require.ErrorIs(t, err, ErrUnknownMethod)
	_, err = call("busy", nil)
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "no leader")
	_, err = call("wrong", nil)
	var failed *CallError
	require.ErrorAs(t, err, &failed)
	assert.Equal(t, "b", failed.Node)
	assert.Contains(t, failed.Message, "it is wrong")
	assert.LessOrEqual(t, len(failed.Message), maxProblem)
	assert.NotErrorIs(t, err, ErrNotSent)
	for _, method := range []string{"", "../x", "Größe", strings.Repeat("a", maxMethod+1)} {
		_, err = call(method, nil)
		require.ErrorContains(t, err, "not the name of a method")
	}
	assert.EqualValues(t, 1, a.Stats().Dialled, "all over one connection")
}

// A request that is larger than it may be is refused by the other side too.
func TestTheOtherSideBoundsRequests(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	for name, body := range map[string]io.Reader{
		"announced":     bytes.NewReader(make([]byte, MaxMessage+1)),
		"not announced": io.LimitReader(endless{}, MaxMessage+1),
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(within(t), http.MethodPost, "https://b/rpc/echo", body)
			require.NoError(t, err)
			response, err := a.Transport("b", b.address).RoundTrip(r)
			require.NoError(t, err)
			defer response.Body.Close()
			assert.Equal(t, http.StatusRequestEntityTooLarge, response.StatusCode)
		})
	}
	r, err := http.NewRequestWithContext(within(t), http.MethodPost, "https://b/rpc/ECHO", nil)
	require.NoError(t, err)
	response, err := a.Transport("b", b.address).RoundTrip(r)
	require.NoError(t, err)
	defer response.Body.Close()
	assert.Equal(t, http.StatusNotFound, response.StatusCode)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestANodeThatAnswersNoCalls(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.answering("b", nil)
	_, err := a.ask(b)
	require.ErrorIs(t, err, ErrUnavailable)
}

// A call ends with its context, here and at the other node.
func TestCallsEndWithTheirContext(t *testing.T) {
	w := newTown(t)
	a := w.member("a")
	begun, ended := make(chan struct{}), make(chan struct{})
	b := w.answering("b", func(ctx context.Context, _, _ string, _ []byte) ([]byte, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(within(t))
	failed := make(chan error, 1)
	go func() {
		_, err := a.Call(ctx, "b", b.address, "wait", []byte("x"))
		failed <- err
	}()
	<-begun
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	select {
	case <-ended:
	case <-time.After(patience):
		require.Fail(t, "the other node goes on")
	}
}

// Stopping does not wait for a call, on either side of it.
func TestStoppingEndsCalls(t *testing.T) {
	for _, name := range []string{"a", "b"} {
		t.Run("stop of "+name, func(t *testing.T) {
			w := newTown(t)
			a := w.member("a")
			begun := make(chan struct{})
			b := w.answering("b", func(ctx context.Context, _, _ string, _ []byte) ([]byte, error) {
				close(begun)
				<-ctx.Done()
				return nil, ctx.Err()
			})
			failed := make(chan error, 1)
			go func() {
				_, err := a.ask(b)
				failed <- err
			}()
			<-begun
			map[string]*resident{"a": a, "b": b}[name].stop()
			err := <-failed
			require.Error(t, err)
			assert.NotErrorIs(t, err, ErrNotSent)
		})
	}
}

// A node that was restarted, at the same address, is reached by the next call: what
// was left of the old connections costs nothing.
func TestARestartedNodeIsReachedAtOnce(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	for range 5 {
		_, err := a.ask(b)
		require.NoError(t, err)
		b.stop()
		require.Eventually(t, func() bool { return len(a.Stats().Connections) == 0 }, patience, time.Millisecond)
		_, err = a.ask(b)
		require.ErrorIs(t, err, ErrNotSent)
		listener, err := net.Listen("tcp", b.address)
		require.NoError(t, err)
		b = w.settleAs(b.identity, true, func(c *NetworkConfig) {
			c.Listener.Close()
			c.Listener, c.Advertise = listener, listener.Addr().String()
		})
		b.address = listener.Addr().String()
		b.start()
	}
}

// Whole requests arrive as they were sent, with the id of the node that passed
// them on.
func TestRequestsArePassedOn(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.settle("b", true)
	b.Handle("/agent/", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		assert.Nil(t, r.TLS, "net/http takes the connection for a plain one")
		rw.Header().Set("Etag", `"7"`)
		rw.Header()["X-Two"] = []string{"1", "2"}
		rw.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(rw, "%s %s %s %s %s %s", From(r.Context()), r.Method, r.Host, r.URL.RequestURI(), r.Header["X-Here"], body)
	}))
	b.start()
	r, err := http.NewRequestWithContext(within(t), http.MethodPut, "https://coordinator.example:8443/agent/v1/sync?a=%2f&b", strings.NewReader("body"))
	require.NoError(t, err)
	r.Header["X-Here"] = []string{"x", "y"}
	r.RequestURI = "/agent/v1/sync" // as of a request that a server got
	response, err := a.Transport("b", b.address).RoundTrip(r)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Equal(t, "a PUT coordinator.example:8443 /agent/v1/sync?a=%2f&b [x y] body", string(text))
	assert.Equal(t, http.StatusTeapot, response.StatusCode)
	assert.Equal(t, `"7"`, response.Header.Get("Etag"))
	assert.Equal(t, []string{"1", "2"}, response.Header["X-Two"])
	assert.Equal(t, "https", r.URL.Scheme, "the request is the caller's")
	assert.Empty(t, From(context.Background()))
}

// A node that moved is reached at its new address, and its old connections go.
func TestANodeThatMoves(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	_, err := a.ask(b)
	require.NoError(t, err)
	moved := w.settleAs(b.identity, true).start()
	answer, err := a.ask(moved)
	require.NoError(t, err)
	assert.Equal(t, "a echo hello", answer)
	require.Eventually(t, func() bool {
		return a.Stats().Connections[ConnectionKind{Peer: "b", Protocol: peerProtocol}] == 1
	}, patience, time.Millisecond)
}
