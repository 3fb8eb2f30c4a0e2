// Package call sends one request of the agent interface (package wire) and
// reads its answer: bounded, and with every failure either a *wire.Problem,
// which is what the coordinator decided, or an error that says that nothing is
// known of its decision.
package call

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"time"

	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/wire"
)

// MaxAnswer is the most that is read of an answer.
const MaxAnswer = 8 << 20

// LostError says that no answer came, so that the coordinator may have carried
// out the request or not. Repeating it is safe: every request of the agent
// interface is.
type LostError struct {
	Server string
	// StaleConnection is true when the request went over a connection that had
	// been idle, which may have been dead: the next one goes over a new one.
	StaleConnection bool
	// Status is that of an answer that was not the coordinator's; 0 without one.
	Status int
	Err    error
}

func (e *LostError) Error() string { return fmt.Sprintf("coordinator %s: %v", e.Server, e.Err) }

func (e *LostError) Unwrap() error { return e.Err }

// Timeout reports whether the time was over.
func (e *LostError) Timeout() bool {
	timeout, ok := errors.AsType[net.Error](e.Err)
	return ok && timeout.Timeout()
}

// Result says when a request was on its way.
type Result struct {
	SentAt time.Time     // when it was sent, by this host's clock
	Took   time.Duration // until the head of the answer was here
}

// Post sends body, which is JSON, to path at server, an https URL without a
// path, and reads the answer into out. What the coordinator refuses is a
// *wire.Problem, with RetryAfterSeconds from the header where the body has
// none; everything else is a *LostError.
func Post(ctx context.Context, client *http.Client, server, path string, body []byte, out any) (Result, error) {
	var reused bool
	status := 0
	lost := func(err error) error {
		// The URL is in the text of a url.Error once more; we name it ourselves.
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return &LostError{Server: server, StaleConnection: reused, Status: status, Err: err}
	}
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodPost, server+path, bytes.NewReader(body))
	if err != nil {
		return Result{}, lost(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json, "+wire.ProblemContentType)
	result := Result{SentAt: time.Now()}
	response, err := client.Do(request)
	if err != nil {
		return result, lost(err)
	}
	defer response.Body.Close()
	result.Took = time.Since(result.SentAt)
	text, err := io.ReadAll(io.LimitReader(response.Body, MaxAnswer+1))
	switch {
	case err != nil:
		return result, lost(fmt.Errorf("the answer broke off: %w", err))
	case len(text) > MaxAnswer:
		return result, lost(fmt.Errorf("the answer is larger than %d bytes", MaxAnswer))
	case response.StatusCode != http.StatusOK:
		status = response.StatusCode
		return result, refusal(response, text, lost)
	}
	if err := json.Unmarshal(text, out); err != nil {
		return result, lost(fmt.Errorf("the answer cannot be read: %w", err))
	}
	return result, nil
}

// refusal reads an answer that is not 200. A status without a problem document
// comes from something between us and the coordinator, so that what became of
// the request is unknown.
func refusal(response *http.Response, text []byte, lost func(error) error) error {
	problem := new(wire.Problem)
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || kind != wire.ProblemContentType || json.Unmarshal(text, problem) != nil || problem.Code == "" {
		err := fmt.Errorf("answered %s without saying why; is this the coordinator, and not a proxy before it?", response.Status)
		if wait, ok := backoff.RetryAfter(response.Header, time.Now()); ok {
			return &delayedError{err: lost(err), after: wait}
		}
		return lost(err)
	}
	problem.Status = response.StatusCode
	if problem.RetryAfterSeconds <= 0 {
		problem.RetryAfterSeconds = 0
		if wait, ok := backoff.RetryAfter(response.Header, time.Now()); ok {
			problem.RetryAfterSeconds = int64((wait + time.Second - 1) / time.Second)
		}
	}
	return problem
}

// delayedError is a lost answer that says when to come back.
type delayedError struct {
	err   error
	after time.Duration
}

func (e *delayedError) Error() string { return e.err.Error() }
func (e *delayedError) Unwrap() error { return e.err }

// RetryAfter is how long the other side asked to wait, at most
// backoff.MaxRetryAfter; 0 if it did not.
func RetryAfter(err error) time.Duration {
	if problem, ok := errors.AsType[*wire.Problem](err); ok {
		seconds := min(max(problem.RetryAfterSeconds, 0), int64(backoff.MaxRetryAfter/time.Second))
		return time.Duration(seconds) * time.Second
	}
	if delayed, ok := errors.AsType[*delayedError](err); ok {
		return delayed.after
	}
	return 0
}

// Overloaded reports whether the other side is there and has too much to do: the
// next server would have no more room, and what has to be done is to wait.
func Overloaded(err error) bool {
	if problem, ok := errors.AsType[*wire.Problem](err); ok {
		return problem.Code == wire.CodeOverloaded || problem.Status == http.StatusTooManyRequests
	}
	lost, ok := errors.AsType[*LostError](err)
	return ok && lost.Status == http.StatusTooManyRequests
}

// Decided tells whether the coordinator decided: a lost answer, and a problem
// that stands for "not now", leave open whether the request was carried out.
func Decided(err error) bool {
	problem, ok := errors.AsType[*wire.Problem](err)
	if !ok {
		return err == nil
	}
	switch problem.Code {
	case wire.CodeUnavailable, wire.CodeInternal:
		return false
	}
	return true
}
