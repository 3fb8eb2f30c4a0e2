package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// MaxMessage bounds the request and the answer of a call, in octets.
const MaxMessage = 8 << 20

const (
	callPath  = "/rpc/"
	callType  = "application/octet-stream"
	maxMethod = 64
	// maxProblem bounds the text of a failure.
	maxProblem = 4 << 10
)

var (
	// ErrUnknownMethod is returned for a method that the other node does not know,
	// as one of an earlier version does not.
	ErrUnknownMethod = errors.New("the node does not know this method")
	// ErrTooLarge says that a message is larger than MaxMessage.
	ErrTooLarge = fmt.Errorf("the message is larger than %d octets", MaxMessage)
)

// CallError is a call that arrived and failed at the other node.
type CallError struct {
	Node, Method string
	// Message is the error's text there.
	Message string
	status  int
}

// Error implements error.
func (e *CallError) Error() string {
	return fmt.Sprintf("%s at node %s: %s", e.Method, e.Node, e.Message)
}

// Is makes it match ErrUnknownMethod, ErrTooLarge or ErrUnavailable.
func (e *CallError) Is(target error) bool {
	switch e.status {
	case http.StatusNotFound:
		return target == ErrUnknownMethod
	case http.StatusRequestEntityTooLarge:
		return target == ErrTooLarge
	case http.StatusServiceUnavailable:
		return target == ErrUnavailable
	default:
		return false
	}
}

// HandleCalls says what answers the calls of other nodes; from is a member. The
// text of its error is shown to the caller, which finds ErrUnknownMethod and
// ErrUnavailable in it again where they were wrapped. It must be called before
// Run.
func (n *Network) HandleCalls(fn func(ctx context.Context, from, method string, request []byte) ([]byte, error)) {
	n.mustNotRun("HandleCalls")
	n.server.calls = fn
}

// Call has a node do something, and returns its answer. A call that was cut off
// may have been done: it is repeated here only if nothing of it was sent, and an
// error that wraps ErrNotSent says that nothing was.
func (n *Network) Call(ctx context.Context, id, address, method string, request []byte) ([]byte, error) {
	answer, err := n.call(ctx, id, address, method, request)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", method, err)
	}
	return answer, nil
}

func (n *Network) call(ctx context.Context, id, address, method string, request []byte) ([]byte, error) {
	if !validMethod(method) {
		return nil, errors.New("not the name of a method")
	}
	if len(request) > MaxMessage {
		return nil, fmt.Errorf("%w: the request has %d", ErrTooLarge, len(request))
	}
	n.counted.made.Add(1)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node"+callPath+method, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", callType)
	response, err := n.Transport(id, address).RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(response.Body, maxProblem))
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", id, err)
		}
		return nil, &CallError{Node: id, Method: method, Message: strings.TrimSpace(string(text)), status: response.StatusCode}
	}
	answer, err := readMessage(response.Body, response.ContentLength)
	if err != nil {
		return nil, fmt.Errorf("node %s: answer: %w", id, err)
	}
	return answer, nil
}

// readMessage reads a whole message of a length that was announced, or of an
// unknown one if that is negative.
func readMessage(body io.Reader, length int64) ([]byte, error) {
	if length > MaxMessage {
		return nil, ErrTooLarge
	}
	var message bytes.Buffer
	message.Grow(int(max(length, 0)) + bytes.MinRead)
	if _, err := message.ReadFrom(io.LimitReader(body, MaxMessage+1)); err != nil {
		return nil, err
	}
	if message.Len() > MaxMessage {
		return nil, ErrTooLarge
	}
	return message.Bytes(), nil
}

func validMethod(method string) bool {
	return method != "" && len(method) <= maxMethod && strings.Trim(method, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// call answers one call.
func (s *httpServer) call(w http.ResponseWriter, r *http.Request) {
	method := r.PathValue("method")
	if s.calls == nil {
		http.Error(w, "this node answers no calls yet", http.StatusServiceUnavailable)
		return
	}
	if !validMethod(method) {
		http.Error(w, ErrUnknownMethod.Error(), http.StatusNotFound)
		return
	}
	request, err := readMessage(r.Body, r.ContentLength)
	switch {
	case errors.Is(err, ErrTooLarge):
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return
	}
	s.network.counted.served.Add(1)
	answer, err := s.calls(r.Context(), From(r.Context()), method, request)
	if err == nil && len(answer) > MaxMessage {
		err = fmt.Errorf("%w: the answer has %d", ErrTooLarge, len(answer))
	}
	if err != nil {
		http.Error(w, err.Error()[:min(len(err.Error()), maxProblem)], statusOf(err))
		return
	}
	w.Header().Set("Content-Type", callType)
	_, _ = w.Write(answer) // a caller that is gone learns nothing
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrUnknownMethod):
		return http.StatusNotFound
	case errors.Is(err, ErrUnavailable), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}
