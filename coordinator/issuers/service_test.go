package issuers_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/issuers"
	"github.com/certctl/certctl/coordinator/issuers/issuerstest"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/served"
)

// engine is what a Service knows of the engine of orders.
type engine struct {
	standing []orders.IssuerStatus
	follows  bool
	resumed  []string
	err      error
	log      bytes.Buffer
	registry *issuers.Registry
	tested   int
}

func (e *engine) Status() []orders.IssuerStatus { return e.standing }

func (e *engine) Test(ctx context.Context, name string) (*connector.Account, error) {
	e.tested++
	return e.registry.Issuer(name).Connector.Test(ctx)
}

func (e *engine) Resume(name string) error {
	e.resumed = append(e.resumed, name)
	return e.err
}

func (e *engine) service(t *testing.T, registry *issuers.Registry, now time.Time) *issuers.Service {
	t.Helper()
	e.registry = registry
	s, err := issuers.NewService(issuers.Config{
		Registry: registry, Engine: e, Leads: func() bool { return !e.follows },
		Open: func() map[string]int { return map[string]int{"one": 7, "gone": 3} },
		Log:  slog.New(slog.NewTextHandler(&e.log, nil)), Now: func() time.Time { return now },
	})
	require.NoError(t, err)
	return s
}

// How an issuer stands is told in a word, with what led to it.
func TestStandingOfIssuers(t *testing.T) {
	fake := issuerstest.Serve(t, "digicert", fakeca.Config{})
	registry, err := open(t, "issuers:\n  one:\n    poll_max_wait: 90s\n    limits: {rate: 3.5, burst: 9, concurrency: 2}\n"+fake.Settings("    "), issuers.Options{})
	require.NoError(t, err)
	now := time.Now()
	e := &engine{standing: []orders.IssuerStatus{{Name: "one", Kind: "digicert", Configured: true, Leading: true, Orders: 2, Open: 1, Failures: 1, LastError: "odd", LastErrorAt: now}}}
	s := e.service(t, registry, now)
	first := func() resource.Issuer {
		t.Helper()
		list, leads := s.List()
		require.True(t, leads)
		require.Len(t, list, 1)
		return list[0]
	}
	one := first()
	assert.Equal(t, resource.Issuer{
		Name: "one", Kind: "digicert", State: resource.IssuerReady, Orders: 7, Due: 2, Calls: 1, Failures: 1, LastError: "odd", LastErrorAt: now.UTC(),
		PollMaxWaitSeconds: 90, Limits: resource.IssuerLimits{Rate: 3.5, Burst: 9, Concurrency: 2},
	}, one)
	e.standing[0].CircuitUntil, e.standing[0].CircuitReason = now.Add(time.Minute), "HTTP status 500"
	assert.Equal(t, resource.IssuerFailing, first().State)
	e.standing[0].PausedUntil, e.standing[0].PausedFor = now.Add(time.Hour), "the key is not accepted"
	one = first()
	assert.Equal(t, resource.IssuerPaused, one.State)
	assert.Equal(t, "the key is not accepted", one.PausedFor)
	e.standing[0].PausedUntil, e.standing[0].CircuitUntil = now.Add(-time.Second), now
	assert.Equal(t, resource.IssuerReady, first().State)

	e.standing = []orders.IssuerStatus{{Name: "gone", Leading: true, Orders: 3}}
	one = first()
	assert.Equal(t, resource.IssuerUnknown, one.State)
	assert.Equal(t, 3, one.Orders)
	assert.Zero(t, one.PollMaxWaitSeconds)

	e.standing[0].Leading = false
	_, leads := s.List()
	assert.False(t, leads, "the engine has yet to begin")
	e.standing[0].Leading, e.follows = true, true
	list, leads := s.List()
	assert.False(t, leads)
	assert.Empty(t, list)
	_, err = s.Test(t.Context(), "one", "me")
	require.ErrorIs(t, err, issuers.ErrNotLeading)
	require.ErrorIs(t, s.Resume("one", "me"), issuers.ErrNotLeading)
}

// A test that goes well has a paused account go on; one that does not says what to do,
// and neither it nor the log shows a secret.
func TestTestingAnAccount(t *testing.T) {
	for _, kind := range served.Kinds() {
		t.Run(kind, func(t *testing.T) {
			fake := issuerstest.Serve(t, kind, fakeca.Config{})
			registry, err := open(t, "issuers:\n  one:\n"+fake.Settings("    "), issuers.Options{})
			require.NoError(t, err)
			now := time.Now()
			e := &engine{standing: []orders.IssuerStatus{{Name: "one", Kind: kind, Configured: true, Leading: true}}}
			s := e.service(t, registry, now)

			done, err := s.Test(t.Context(), "one", "api_token:x")
			require.NoError(t, err)
			assert.True(t, done.OK)
			assert.NotEmpty(t, done.Facts)
			client := fake.Setting("client_certificate_file") != ""
			assert.Equal(t, client, done.Facts[len(done.Facts)-1].Name == "client certificate until")
			assert.False(t, done.Resumed)
			assert.Empty(t, e.resumed, "it was not paused")
			assert.Equal(t, 1, e.tested, "the engine counts what authorities are asked")

			e.standing[0].PausedUntil = now.Add(time.Hour)
			done, err = s.Test(t.Context(), "one", "api_token:x")
			require.NoError(t, err)
			assert.True(t, done.Resumed)
			assert.Equal(t, []string{"one"}, e.resumed)

			fake.Fake.Core().Script(fakeca.Any, fakeca.Repeat(9, fakeca.Fault{Kind: fakeca.Page, Status: 401})...)
			done, err = s.Test(t.Context(), "one", "api_token:x")
			require.NoError(t, err)
			assert.False(t, done.OK)
			assert.False(t, done.Resumed)
			assert.Equal(t, []string{"one"}, e.resumed)
			assert.Equal(t, "credentials", done.Class)
			assert.Equal(t, 401, done.HTTPStatus)
			assert.NotEmpty(t, done.Error)
			assert.NotEmpty(t, done.Mend)
			assert.NotContains(t, done.Error, done.Mend)
			for _, file := range fake.Secrets() {
				text, err := os.ReadFile(file)
				require.NoError(t, err)
				secret := strings.TrimSpace(string(text))
				assert.NotContains(t, done.Error+done.Code+done.Mend, secret)
				assert.NotContains(t, e.log.String(), secret)
			}
			assert.Contains(t, e.log.String(), "issuer=one actor=api_token:x class=credentials")

			_, err = s.Test(t.Context(), "two", "me")
			require.ErrorIs(t, err, issuers.ErrUnknown)
			require.ErrorIs(t, s.Resume("two", "me"), issuers.ErrUnknown)
			require.NoError(t, s.Resume("one", "me"))
			e.err = errors.New("it led a moment ago")
			require.ErrorIs(t, s.Resume("one", "me"), issuers.ErrNotLeading)
		})
	}
}
