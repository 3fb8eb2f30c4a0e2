package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/agent/enroll"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, forever...) }

// agent is a Backend with answers that a test sets.
type agent struct {
	mu       sync.Mutex
	status   *Status
	err      error
	renewed  []string
	enrolled []EnrollRequest
	subjects []*renewal.Subject
	broken   error // after the subjects
	block    chan struct{}
}

func (a *agent) Status(ctx context.Context) (*Status, error) {
	if a.block != nil {
		a.block <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status, a.err
}

func (a *agent) Renew(_ context.Context, name string) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return false, a.err
	}
	if name == "busy" {
		return false, fmt.Errorf("renew: %w", ErrNotNow)
	}
	if name == "none" {
		return false, fmt.Errorf("renew: %w", ErrUnknownCertificate)
	}
	a.renewed = append(a.renewed, name)
	return len(a.renewed) > 1, nil
}

func (a *agent) Reload(context.Context) (*Reload, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &Reload{Added: []string{"new"}, Unchanged: 2}, a.err
}

func (a *agent) Subjects(_ context.Context, yield func(*renewal.Subject) error) error {
	for _, s := range a.subjects {
		if err := yield(s); err != nil {
			return err
		}
	}
	return a.broken
}

func (a *agent) Enroll(_ context.Context, request EnrollRequest) (*Enrollment, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.enrolled = append(a.enrolled, request)
	return &Enrollment{AgentID: "agent-1"}, a.err
}

// serve runs a server until the test ends and returns how to stop it.
func serve(t *testing.T, path string, backend Backend, log *slog.Logger) (stop func()) {
	t.Helper()
	server, err := New(Config{Path: path, Backend: backend, Log: log})
	require.NoError(t, err)
	return run(t, server, path)
}

func run(t *testing.T, server *Server, path string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			assert.NoError(t, <-done)
		})
	}
	t.Cleanup(stop)
	require.Eventually(t, func() bool {
		conn, err := dial(ctx, path)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, 60*time.Second, 5*time.Millisecond)
	return stop
}

var quiet = slog.New(slog.DiscardHandler)

func TestClientAndServer(t *testing.T) {
	path := socketPath(t)
	backend := &agent{status: sample(time.Now())}
	serve(t, path, backend, quiet)
	client, err := Dial(t.Context(), path)
	require.NoError(t, err)
	defer client.Close()
	status, err := client.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, Judge(backend.status), Judge(status))
	assert.Len(t, status.Certificates, len(backend.status.Certificates))

	certificate, err := client.Certificate(t.Context(), "web / ü")
	require.NoError(t, err)
	assert.Equal(t, "web / ü", certificate.Name)
	assert.Equal(t, wire.StateValid, certificate.State)
	_, err = client.Certificate(t.Context(), "none")
	assert.Equal(t, wire.CodeNotFound, problemOf(t, err).Code)

	underWay, err := client.Renew(t.Context(), "web / ü")
	require.NoError(t, err)
	assert.False(t, underWay)
	underWay, err = client.Renew(t.Context(), "web / ü")
	require.NoError(t, err)
	assert.True(t, underWay)
	assert.Equal(t, []string{"web / ü", "web / ü"}, backend.renewed)
	_, err = client.Renew(t.Context(), "none")
	assert.Equal(t, wire.CodeNotFound, problemOf(t, err).Code)
	assert.ErrorContains(t, err, "certctl-agent list")
	_, err = client.Renew(t.Context(), "busy")
	assert.Equal(t, wire.CodeUnavailable, problemOf(t, err).Code, "it is no fault of the agent")

	done, err := client.Reload(t.Context())
	require.NoError(t, err)
	assert.Equal(t, &Reload{Added: []string{"new"}, Unchanged: 2}, done)
	backend.err = errors.New("agent.yaml:3:5: renewal.concurrency: expected a number\nagent.yaml:4:1: unknown")
	_, err = client.Reload(t.Context())
	assert.Equal(t, wire.CodeInvalid, problemOf(t, err).Code)
	assert.Equal(t, backend.err.Error(), problemOf(t, err).Detail, "every line of it")

	backend.err = errors.New("the disk is full")
	_, err = client.Status(t.Context())
	assert.Equal(t, wire.CodeInternal, problemOf(t, err).Code)
	assert.ErrorContains(t, err, "the disk is full")
}

func problemOf(t *testing.T, err error) *wire.Problem {
	t.Helper()
	var problem *wire.Problem
	require.ErrorAs(t, err, &problem)
	return problem
}

func TestEnrollNeverShowsTheToken(t *testing.T) {
	path := socketPath(t)
	var log bytes.Buffer
	backend := &agent{}
	stop := serve(t, path, backend, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	client, err := Dial(t.Context(), path)
	require.NoError(t, err)
	defer client.Close()
	token := wire.EnrollmentToken{ID: "abc123", Secret: [32]byte{1, 2, 3}}
	secret := strings.Split(token.Reveal(), ".")[2]

	request := EnrollRequest{Servers: []string{"https://a", "https://b"}, Token: token, Replace: true}
	enrollment, err := client.Enroll(t.Context(), request)
	require.NoError(t, err)
	assert.Equal(t, "agent-1", enrollment.AgentID)
	assert.Equal(t, []EnrollRequest{request}, backend.enrolled)
	assert.NotContains(t, fmt.Sprintf("%v %+v", request, request), secret)

	// What the coordinator refused arrives with its code.
	backend.err = fmt.Errorf("enrol: %w", &wire.Problem{Status: 403, Code: wire.CodeTokenUsed, Detail: "used up", Mend: "make another"})
	_, err = client.Enroll(t.Context(), request)
	assert.Equal(t, wire.CodeTokenUsed, problemOf(t, err).Code)
	assert.ErrorContains(t, err, "make another")
	assert.Equal(t, 1, strings.Count(err.Error(), "token_used"))
	assert.NotContains(t, err.Error(), secret)

	backend.err = fmt.Errorf("enrol: %w as agent x; use --replace", enroll.ErrEnrolled)
	_, err = client.Enroll(t.Context(), request)
	assert.Equal(t, wire.CodeConflict, problemOf(t, err).Code)
	assert.ErrorContains(t, err, "--replace")

	// A mistake in the request, and a server that does not answer, are no defect
	// of the agent.
	backend.err = &enroll.Error{Code: wire.CodeInvalid, Err: errors.New("the scheme is http")}
	_, err = client.Enroll(t.Context(), request)
	assert.Equal(t, "enrol: the scheme is http [request_invalid]", err.Error())
	backend.err = &enroll.Error{Err: errors.New("connection refused"), Mend: "check the address"}
	_, err = client.Enroll(t.Context(), request)
	assert.Equal(t, "enrol: connection refused; check the address [unavailable]", err.Error())

	for _, body := range []string{`{"token":"cte1.abc123.` + secret + `"}`, `{"token":7}`, `{"token":"cte1.abc123.` + secret, `{}`} {
		text, status := raw(t, path, http.MethodPost, "/v1/enroll", body)
		assert.Equal(t, http.StatusBadRequest, status)
		assert.NotContains(t, text, secret)
	}
	text, status := raw(t, path, http.MethodPost, "/v1/enroll", `{"token":"`+strings.Repeat("x", maxRequest)+`"}`)
	assert.GreaterOrEqual(t, status, 400)
	assert.Less(t, len(text), 1000)
	assert.Len(t, backend.enrolled, 5)
	stop()
	assert.NotContains(t, log.String(), secret)
}

func raw(t *testing.T, path, method, target, body string) (string, int) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) }}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://agent"+target, strings.NewReader(body))
	require.NoError(t, err)
	response, err := (&http.Client{Transport: transport}).Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	var text bytes.Buffer
	_, err = text.ReadFrom(response.Body)
	require.NoError(t, err)
	return text.String(), response.StatusCode
}

func TestUnknownRequests(t *testing.T) {
	path := socketPath(t)
	serve(t, path, &agent{}, quiet)
	text, status := raw(t, path, http.MethodGet, "/v2/status", "")
	assert.Equal(t, http.StatusNotFound, status)
	assert.Contains(t, text, "of the same version")
	_, status = raw(t, path, http.MethodGet, "/v1/certificates/a/renew", "")
	assert.GreaterOrEqual(t, status, 404)
}

func TestAgentThatIsNotThere(t *testing.T) {
	path := socketPath(t)
	_, err := Dial(t.Context(), path)
	require.ErrorIs(t, err, ErrNotRunning)
	assert.ErrorContains(t, err, "certctl-agent start")
}

// A request that is under way does not keep the agent from stopping.
func TestStopEndsRequests(t *testing.T) {
	path := socketPath(t)
	backend := &agent{block: make(chan struct{})}
	var log bytes.Buffer
	stop := serve(t, path, backend, slog.New(slog.NewTextHandler(&log, nil)))
	client, err := Dial(t.Context(), path)
	require.NoError(t, err)
	defer client.Close()
	done := make(chan error, 1)
	go func() {
		_, err := client.Status(context.Background())
		done <- err
	}()
	<-backend.block
	stop()
	assert.Error(t, <-done)
	assert.NotContains(t, log.String(), "cut off", "it was told to end, and did")
}

func TestNewChecksItsConfig(t *testing.T) {
	for field, cfg := range map[string]Config{
		"Path":    {Backend: &agent{}, Log: quiet},
		"Backend": {Path: socketPath(t), Log: quiet},
		"Log":     {Path: socketPath(t), Backend: &agent{}},
		badPath:   {Path: "x", Backend: &agent{}, Log: quiet},
	} {
		_, err := New(cfg)
		assert.ErrorContains(t, err, field)
	}
}

func TestSubjectsCrossTheSocket(t *testing.T) {
	path := socketPath(t)
	backend := &agent{}
	for i := range 1000 {
		backend.subjects = append(backend.subjects, &renewal.Subject{
			Record:  &store.Certificate{Name: fmt.Sprintf("c%d", i), Phase: store.PhaseIdle},
			Issuers: []renewal.SubjectIssuer{{Name: "ca", Kind: "acme", Limits: renewal.Limits{OrdersPerHour: 100}}}, KeyAlgorithm: pki.ECDSAP256, Concurrency: 25,
		})
	}
	serve(t, path, backend, slog.New(slog.DiscardHandler))
	client, err := Dial(t.Context(), path)
	require.NoError(t, err)
	defer client.Close()
	list, err := client.Subjects(t.Context())
	require.NoError(t, err)
	assert.Equal(t, backend.subjects, list)

	// What broke off is never taken for the whole.
	backend.broken = errors.New("the disk is gone")
	_, err = client.Subjects(t.Context())
	require.ErrorContains(t, err, "broke off")
	backend.subjects = nil
	_, err = client.Subjects(t.Context())
	require.ErrorContains(t, err, "the disk is gone")
	backend.broken = nil
	list, err = client.Subjects(t.Context())
	require.NoError(t, err)
	assert.Empty(t, list)

	// An agent that says nothing of its limits is not taken for one that has none.
	backend.subjects = []*renewal.Subject{{Record: &store.Certificate{Name: "c"}, KeyAlgorithm: pki.ECDSAP256}}
	_, err = client.Subjects(t.Context())
	require.ErrorContains(t, err, "does not say what its limits are")
}
