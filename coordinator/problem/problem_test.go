package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func TestOf(t *testing.T) {
	told := New(wire.CodeNotFound, "id", "there is none", "look elsewhere")
	for name, c := range map[string]struct {
		err    error
		code   wire.Code
		status int
		retry  int64
		defect bool
	}{
		"a problem":     {told, wire.CodeNotFound, http.StatusNotFound, 0, false},
		"a refusal":     {&fleet.RejectedError{Code: wire.CodeTokenUsed}, wire.CodeTokenUsed, http.StatusUnauthorized, 0, false},
		"overload":      {&cluster.OverloadedError{RetryAfter: 1500 * time.Millisecond}, wire.CodeOverloaded, http.StatusServiceUnavailable, 2, false},
		"not known":     {&cluster.UnknownOutcomeError{Err: errors.New("lost")}, wire.CodeUnavailable, http.StatusServiceUnavailable, 2, false},
		"no leader":     {cluster.ErrNotLeader, wire.CodeUnavailable, http.StatusServiceUnavailable, 2, false},
		"stopping":      {cluster.ErrStopped, wire.CodeUnavailable, http.StatusServiceUnavailable, 2, false},
		"too late":      {context.DeadlineExceeded, wire.CodeUnavailable, http.StatusServiceUnavailable, 2, false},
		"an address":    {&cluster.AddressTakenError{Address: "a:1", Member: "a"}, wire.CodeConflict, http.StatusConflict, 0, false},
		"anything else": {errors.New("open /secret: denied"), wire.CodeInternal, http.StatusInternalServerError, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			p, defect := Of(fmt.Errorf("wrapped: %w", c.err))
			assert.Equal(t, c.code, p.Code)
			assert.Equal(t, c.status, p.Status)
			assert.Equal(t, c.retry, p.RetryAfterSeconds)
			assert.Equal(t, c.defect, defect)
			assert.NotContains(t, p.Error(), "secret")
		})
	}
}

func TestWrite(t *testing.T) {
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.Header.Set(RequestIDHeader, "request-1")
	recorded := httptest.NewRecorder()
	p := Later(wire.CodeOverloaded, "busy", 90*time.Second)
	Write(recorded, request, p)
	assert.Equal(t, http.StatusServiceUnavailable, recorded.Code)
	assert.Equal(t, wire.ProblemContentType, recorded.Header().Get("Content-Type"))
	assert.Equal(t, "90", recorded.Header().Get("Retry-After"))
	assert.Equal(t, "no-store", recorded.Header().Get("Cache-Control"))
	var got wire.Problem
	require.NoError(t, json.Unmarshal(recorded.Body.Bytes(), &got))
	assert.Equal(t, "request-1", got.RequestID)
	assert.Equal(t, "about:blank", got.Type)
	assert.EqualValues(t, 90, got.RetryAfterSeconds)
	assert.Empty(t, p.RequestID, "the problem may be shared")

	recorded = httptest.NewRecorder()
	Write(recorded, request, &wire.Problem{Status: http.StatusBadRequest, Code: wire.CodeInvalid})
	assert.Empty(t, recorded.Header().Get("Retry-After"))
	require.NoError(t, json.Unmarshal(recorded.Body.Bytes(), &got))
}

// Every code of the language has a status of its own kind: none falls through
// to 500 by being forgotten.
func TestStatus(t *testing.T) {
	for _, code := range []wire.Code{
		wire.CodeProtocol, wire.CodeInvalid, wire.CodeBodyTooLarge, wire.CodeStale, wire.CodeTokenUnknown, wire.CodeTokenExpired,
		wire.CodeTokenUsed, wire.CodeTokenRevoked, wire.CodeNamesRefused, wire.CodeCSRInvalid, wire.CodeKeyRefused,
		wire.CodeIdentityMissing, wire.CodeIdentityUnknown, wire.CodeIdentityExpired, wire.CodeAgentRetired, wire.CodeIssuerUnknown,
		wire.CodeUnauthorized, wire.CodeForbidden, wire.CodeNotFound, wire.CodeConflict,
	} {
		assert.GreaterOrEqual(t, Status(code), 400, code)
		assert.Less(t, Status(code), 500, code)
	}
	assert.Equal(t, http.StatusInternalServerError, Status(wire.CodeInternal))
}
