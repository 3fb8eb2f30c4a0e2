// Package problem answers HTTP requests with problem documents (RFC 9457), so
// that every part of the coordinator's server refuses in the same way.
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// RequestIDHeader carries the id of a request. The server sets it, on request
// and answer, before any handler runs.
const RequestIDHeader = "X-Request-ID"

// unavailablePause is what a client is told to wait for a leader.
const unavailablePause = 2 * time.Second

// Status is the HTTP status that goes with a code.
func Status(code wire.Code) int {
	switch code {
	case wire.CodeProtocol, wire.CodeInvalid:
		return http.StatusBadRequest
	case wire.CodeCSRInvalid, wire.CodeKeyRefused, wire.CodeIssuerUnknown:
		return http.StatusUnprocessableEntity
	case wire.CodeBodyTooLarge:
		return http.StatusRequestEntityTooLarge
	case wire.CodeStale, wire.CodeConflict:
		return http.StatusConflict
	case wire.CodeTokenUnknown, wire.CodeTokenExpired, wire.CodeTokenUsed, wire.CodeTokenRevoked,
		wire.CodeIdentityMissing, wire.CodeIdentityUnknown, wire.CodeIdentityExpired, wire.CodeUnauthorized:
		return http.StatusUnauthorized
	case wire.CodeNamesRefused, wire.CodeAgentRetired, wire.CodeForbidden:
		return http.StatusForbidden
	case wire.CodeNotFound:
		return http.StatusNotFound
	case wire.CodeRateLimited:
		return http.StatusTooManyRequests
	case wire.CodeOverloaded, wire.CodeUnavailable, wire.CodeNoLeader, wire.CodeNotMember:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// New is a problem of a code, with the status and title that belong to it.
func New(code wire.Code, field, detail, mend string) *wire.Problem {
	status := Status(code)
	return &wire.Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status,
		Code: code, Field: field, Detail: detail, Mend: mend,
	}
}

// Later is a problem that goes away by waiting.
func Later(code wire.Code, detail string, pause time.Duration) *wire.Problem {
	p := New(code, "", detail, "send the same request again after the pause")
	p.RetryAfterSeconds = max(1, int64(math.Ceil(pause.Seconds())))
	return p
}

// Of is the problem that an error of the cluster is to a client. Refusals by the
// rules keep what they say; what only the operator can mend is told in general
// words, and the second result is true: the error is to be logged.
func Of(err error) (p *wire.Problem, defect bool) {
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		return p, false
	}
	if rejected, ok := errors.AsType[*fleet.RejectedError](err); ok {
		return New(rejected.Code, rejected.Field, rejected.Detail, rejected.Mend), false
	}
	if overloaded, ok := errors.AsType[*cluster.OverloadedError](err); ok {
		return Later(wire.CodeOverloaded, "too many changes are waiting to be stored", overloaded.RetryAfter), false
	}
	if _, ok := errors.AsType[*cluster.UnknownOutcomeError](err); ok {
		return Later(wire.CodeUnavailable, "it is not known whether the change was stored; the same request is safe to repeat", unavailablePause), false
	}
	if p := membership(err); p != nil {
		return p, false
	}
	switch {
	case errors.Is(err, cluster.ErrNotLeader), errors.Is(err, cluster.ErrStopped):
		return Later(wire.CodeUnavailable, "this coordinator cannot store changes at the moment", unavailablePause), false
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Later(wire.CodeUnavailable, "the change was not stored in time", unavailablePause), false
	default:
		return New(wire.CodeInternal, "", "the coordinator failed to handle the request",
			"look in the coordinator's log for the request_id, then send the request again"), true
	}
}

// membership is the problem that a refused change of the cluster is, nil for other
// errors.
func membership(err error) *wire.Problem {
	if conflict, ok := errors.AsType[*cluster.ConflictError](err); ok {
		return New(wire.CodeConflict, "prev_index", fmt.Sprintf("the members of the cluster have changed: their configuration is %d now", conflict.Index),
			"look at the members again, and repeat the change if it is still wanted")
	}
	if quorum, ok := errors.AsType[*cluster.QuorumError](err); ok {
		return New(wire.CodeConflict, "", quorum.Reason, "bring the other members back first; \"certctl cluster health\" says which")
	}
	if taken, ok := errors.AsType[*cluster.AddressTakenError](err); ok {
		return New(wire.CodeConflict, "node.address", taken.Detail(), taken.Mend())
	}
	if level, ok := errors.AsType[*cluster.LevelError](err); ok {
		return New(wire.CodeConflict, "", "not every node of the cluster understands this change yet",
			"upgrade these nodes, then repeat it: "+strings.Join(level.Nodes, ", "))
	}
	if refused, ok := errors.AsType[*cluster.RefusedError](err); ok {
		return New(wire.CodeConflict, "", refused.Reason, "see \"certctl cluster health\"")
	}
	if errors.Is(err, cluster.ErrNoMember) {
		return New(wire.CodeNotFound, "", "no member of the cluster has this id", "list the members to see their ids")
	}
	return nil
}

// Write answers with a problem. The problem itself is not changed.
func Write(w http.ResponseWriter, r *http.Request, p *wire.Problem) {
	told := *p
	if told.Type == "" {
		told.Type = "about:blank"
	}
	told.RequestID = r.Header.Get(RequestIDHeader)
	body, err := json.Marshal(told)
	if err != nil {
		// A problem is strings and numbers.
		panic("problem: " + err.Error())
	}
	header := w.Header()
	header.Set("Content-Type", wire.ProblemContentType)
	header.Set("Cache-Control", "no-store")
	if told.RetryAfterSeconds > 0 {
		header.Set("Retry-After", strconv.FormatInt(told.RetryAfterSeconds, 10))
	}
	w.WriteHeader(told.Status)
	_, _ = w.Write(append(body, '\n')) // the client may be gone
}
