package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/shared/wire"
)

func TestProblemsOfRequests(t *testing.T) {
	w := start(t)
	for name, c := range map[string]struct {
		method, path string
		body         any
		status       int
		code         wire.Code
		field        string
		detail       string
	}{
		"no such path":       {http.MethodGet, "/api/v1/nothing", nil, http.StatusNotFound, wire.CodeNotFound, "", "there is nothing at /api/v1/nothing"},
		"no such version":    {http.MethodGet, "/api/v2/agents", nil, http.StatusNotFound, wire.CodeNotFound, "", "there is nothing at /api/v2/agents"},
		"a slash too many":   {http.MethodGet, "/api/v1/agents/", nil, http.StatusNotFound, wire.CodeNotFound, "", "there is nothing at /api/v1/agents/"},
		"another method":     {http.MethodDelete, "/api/v1/agents", nil, http.StatusMethodNotAllowed, wire.CodeInvalid, "", "DELETE is not a method of /api/v1/agents"},
		"not to be read":     {http.MethodGet, "/api/v1/agents/a/retire", nil, http.StatusMethodNotAllowed, wire.CodeInvalid, "", "GET is not a method of /api/v1/agents/a/retire"},
		"no such parameter":  {http.MethodGet, "/api/v1/agents?labels=a", nil, http.StatusBadRequest, wire.CodeInvalid, "labels", "unknown query parameter"},
		"not of the enum":    {http.MethodGet, "/api/v1/agents?state=dead", nil, http.StatusBadRequest, wire.CodeInvalid, "state", `expected value to be one of "active, retired"`},
		"one of several":     {http.MethodGet, "/api/v1/certificates?health=ok%2Cfine", nil, http.StatusBadRequest, wire.CodeInvalid, "health[1]", `expected value to be one of "ok, renewing, unknown, at_risk, unserved, revoked, expired"`},
		"not a time":         {http.MethodGet, "/api/v1/certificates?expires_before=soon", nil, http.StatusBadRequest, wire.CodeInvalid, "expires_before", "invalid date/time for format 2006-01-02T15:04:05.999999999Z07:00"},
		"not a label":        {http.MethodGet, "/api/v1/agents?label=prod", nil, http.StatusBadRequest, wire.CodeInvalid, "label", `"prod" is not label=value`},
		"a label twice":      {http.MethodGet, "/api/v1/agents?label=a%3Db&label=a%3Dc", nil, http.StatusBadRequest, wire.CodeInvalid, "label", `the label "a" stands twice`},
		"a name that is not": {http.MethodGet, "/api/v1/certificates?name=a%20b", nil, http.StatusBadRequest, wire.CodeInvalid, "name", ""},
		"two things":         {http.MethodGet, "/api/v1/agents?limit=0&state=dead", nil, http.StatusBadRequest, wire.CodeInvalid, "", ""},
		"no body":            {http.MethodPost, "/api/v1/tokens", nil, http.StatusBadRequest, wire.CodeInvalid, "", "request body is required"},
		"half a body":        {http.MethodPost, "/api/v1/tokens", `{"name":`, http.StatusBadRequest, wire.CodeInvalid, "", "unexpected end of JSON input"},
		"not an object":      {http.MethodPost, "/api/v1/tokens", `[]`, http.StatusBadRequest, wire.CodeInvalid, "", "expected object"},
		"too large":          {http.MethodPost, "/api/v1/tokens", `{"name":"` + strings.Repeat("x", 1<<20) + `"}`, http.StatusRequestEntityTooLarge, wire.CodeBodyTooLarge, "", "request body is too large limit=1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			index := w.State().Index()
			answer := w.ask(c.method, c.path, c.body)
			p := answer.problem(t, c.status, c.code)
			if c.detail != "" {
				assert.Equal(t, c.detail, p.Detail)
			}
			if c.field != "" || c.detail != "" {
				assert.Equal(t, c.field, p.Field, p.Detail)
			}
			assert.Equal(t, index, w.State().Index(), "state unchanged")
		})
	}
	assert.Equal(t, "GET, HEAD", w.ask(http.MethodDelete, "/api/v1/whoami", nil).Header.Get("Allow"))
	assert.Equal(t, "limit expected number >= 1; state expected value to be one of \"active, retired\"",
		strings.Join(sorted(w.ask(http.MethodGet, "/api/v1/agents?limit=0&state=dead", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)), "; "),
		"all that is wrong is told at once")

	request, err := http.NewRequest(http.MethodPost, w.URL+"/api/v1/tokens", strings.NewReader("name=x"))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Authorization", "Bearer "+w.token)
	w.send(request).problem(t, http.StatusUnsupportedMediaType, wire.CodeInvalid)
	assert.Empty(t, w.Log.String(), "what clients do wrong is no error of the coordinator")
}

// sorted lists the findings of a problem, the first of which has its field apart.
func sorted(p *wire.Problem) []string {
	first, rest, _ := strings.Cut(p.Detail, "; ")
	findings := []string{p.Field + " " + first, rest}
	if findings[0] > findings[1] {
		findings[0], findings[1] = findings[1], findings[0]
	}
	return findings
}

// What the coordinator cannot do at the moment says when to come back, and what
// went wrong inside is for its log.
func TestProblemsOfTheCoordinator(t *testing.T) {
	w := start(t)
	for name, c := range map[string]struct {
		err        error
		status     int
		code       wire.Code
		retryAfter string
		text       string
		logged     bool
	}{
		"no leader":       {cluster.ErrNotLeader, http.StatusServiceUnavailable, wire.CodeUnavailable, "2", "cannot store changes at the moment", false},
		"stopping":        {fmt.Errorf("x: %w", cluster.ErrStopped), http.StatusServiceUnavailable, wire.CodeUnavailable, "2", "cannot store changes at the moment", false},
		"overloaded":      {&cluster.OverloadedError{RetryAfter: 1500 * time.Millisecond}, http.StatusServiceUnavailable, wire.CodeOverloaded, "2", "too many changes", false},
		"unknown outcome": {&cluster.UnknownOutcomeError{Err: cluster.ErrNotLeader}, http.StatusServiceUnavailable, wire.CodeUnavailable, "2", "look whether it was, and send the request again only if it was not", false},
		"a defect":        {errors.New("disk on fire at /dev/sda"), http.StatusInternalServerError, wire.CodeInternal, "", "look in the coordinator's log", true},
	} {
		t.Run(name, func(t *testing.T) {
			index, logged := w.State().Index(), len(w.Log.String())
			w.FailNext(c.err)
			answer := w.ask(http.MethodPost, apiTokens, resource.CreateAPIToken{Name: "x", Role: "viewer"})
			p := answer.problem(t, c.status, c.code)
			assert.Equal(t, c.retryAfter, answer.Header.Get("Retry-After"))
			assert.Contains(t, p.Detail+p.Mend, c.text)
			assert.NotContains(t, answer.body, "/dev/sda")
			assert.Equal(t, c.logged, len(w.Log.String()) > logged)
			assert.Equal(t, index, w.State().Index())
		})
	}
	assert.Contains(t, w.Log.String(), "disk on fire at /dev/sda")
}

func TestHeaders(t *testing.T) {
	w := start(t)
	for _, path := range []string{"/api/v1/whoami", "/api/v1/agents/none", "/openapi.json", "/api/v1/none", "/livez", "/readyz"} {
		answer := w.ask(http.MethodGet, path, nil)
		for header, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff",
			"Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Access-Control-Allow-Origin": "",
		} {
			assert.Equal(t, want, answer.Header.Get(header), "%s of %s", header, path)
		}
		assert.NotEmpty(t, answer.Header.Get("X-Request-Id"))
		head := w.ask(http.MethodHead, path, nil)
		assert.Equal(t, answer.StatusCode, head.StatusCode, path)
		assert.Equal(t, answer.Header.Get("Content-Type"), head.Header.Get("Content-Type"), path)
		assert.Empty(t, head.body)
	}
	assert.Equal(t, http.StatusUnauthorized, w.as("").ask(http.MethodHead, "/api/v1/whoami", nil).StatusCode)

	request, err := http.NewRequest(http.MethodGet, w.URL+"/api/v1/agents/none", nil)
	require.NoError(t, err)
	request.Header.Set("X-Request-Id", "my-own-request-7")
	request.Header.Set("Authorization", "Bearer "+w.token)
	request.Header.Set("Accept", "text/html")
	assert.Equal(t, "my-own-request-7", w.send(request).problem(t, http.StatusNotFound, wire.CodeNotFound).RequestID)
}

func TestStatus(t *testing.T) {
	w := start(t)
	w.Agent("silent", "a", nil)
	w.Agent("gone", "b", nil)
	post[resource.AgentDetail](w, "/api/v1/agents/gone/retire", nil, http.StatusOK)
	w.Sleep(time.Hour)
	now := w.Now().UTC().Truncate(time.Second)
	agent := w.Agent("agent1", "c", nil)
	agent.SafeUntil(now.Add(time.Hour))
	agent.Event(wire.EventStarted, "", "")
	w.events("/api/v1/audit?scope=all&kind=agent.started", 1)

	status := get[resource.Status](w, "/api/v1/status")
	assert.NotEmpty(t, status.Version)
	assert.WithinDuration(t, now, status.Time, time.Minute)
	assert.WithinDuration(t, now, status.AsOf, time.Minute)
	assert.Equal(t, resource.NodeStatus{ID: "test", Ready: true, Leading: true, Leader: "test", AppliedIndex: status.Node.AppliedIndex}, status.Node)
	assert.Equal(t, resource.AgentCounts{Active: 2, Connected: 1, CutOff: 1, Retired: 1}, status.Agents)
	assert.Equal(t, now.Add(time.Hour), status.SafeUntil)
	assert.EqualValues(t, 2, status.Journal.Facts, "the agent's, and the first revocation list")
	assert.NotZero(t, status.Journal.AuditFacts)
	assert.NotZero(t, status.Journal.MaxBytes)
	assert.False(t, status.Journal.NearlyFull)
}
