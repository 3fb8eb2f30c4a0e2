package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/issuers"
	"github.com/certctl/certctl/coordinator/issuers/issuerstest"
	"github.com/certctl/certctl/internal/fakeca/served"
	"github.com/certctl/certctl/shared/backoff"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output is written by one goroutine and read by another.
type output struct {
	sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.Lock()
	defer o.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.Lock()
	defer o.Unlock()
	return o.text.String()
}

// start runs the program until the test ends and returns the settings that it tells.
func start(t *testing.T, args ...string) (settings, control string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var stdout, stderr output
	done := make(chan int)
	go func() { done <- run(ctx, append(args, "-dir", t.TempDir()), &stdout, &stderr) }()
	t.Cleanup(func() {
		cancel()
		assert.Zero(t, <-done, stderr.String())
	})
	deadline, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	told := regexp.MustCompile(`(?s)\n(issuers:\n.*)\n\n$`)
	for !told.MatchString(stdout.String()) && backoff.Wait(deadline, 5*time.Millisecond) == nil {
	}
	found := told.FindStringSubmatch(stdout.String())
	require.NotNil(t, found, stdout.String()+stderr.String())
	control = regexp.MustCompile(`http://\S+/`).FindString(stdout.String())
	require.NotEmpty(t, control, stdout.String())
	return found[1] + "\n", control
}

// noPerson are the vendors that have no word for an order that waits for one.
var noPerson = map[string]bool{"entrust": true, "globalsign": true}

// connect makes a connector of nothing but what the program tells.
func connect(t *testing.T, text string) connector.Connector {
	t.Helper()
	settings, err := issuerstest.Load(t, text)
	require.NoError(t, err, text)
	registry, err := issuers.New(settings, issuers.Options{})
	require.NoError(t, err, text)
	t.Cleanup(registry.Close)
	return registry.Issuer("fake").Connector
}

// Whoever follows what the program prints gets a certificate, after a person
// approved the order on the page.
func TestAnOrderByWhatTheProgramTells(t *testing.T) {
	for _, vendor := range served.Kinds() {
		t.Run(vendor, func(t *testing.T) {
			args := []string{"-vendor", vendor}
			if !served.AtOnce(vendor) {
				args = append(args, "-approval")
			}
			settings, control := start(t, args...)
			c := connect(t, settings)
			_, err := c.Test(t.Context())
			require.NoError(t, err)
			r, _ := connectortest.Request(t, "www.example.com")
			placed, err := c.Place(t.Context(), r)
			require.NoError(t, err)
			status, err := c.Status(t.Context(), r, placed.Handle)
			require.NoError(t, err)
			page := fetch(t, http.MethodGet, control)
			assert.Contains(t, page, placed.Handle.Order)
			assert.Contains(t, page, "Approve")
			switch {
			case served.AtOnce(vendor):
				assert.Equal(t, connector.Issued, status.State)
			case noPerson[vendor]:
				assert.Equal(t, connector.Pending, status.State)
			default:
				assert.Equal(t, connector.NeedsPerson, status.State)
			}
			switch {
			case served.AtOnce(vendor): // there is nothing to approve
			case placed.Handle.Order == "": // it has no name before it is issued
				fetch(t, http.MethodPost, control+"approve-all")
			default:
				fetch(t, http.MethodPost, control+"approve?id="+placed.Handle.Order)
			}
			// An answer may be as old as what was read last for other orders.
			require.Eventually(t, func() bool {
				status, err = c.Status(t.Context(), r, placed.Handle)
				return err != nil || status.State == connector.Issued
			}, time.Minute, 50*time.Millisecond)
			require.NoError(t, err)
			require.Equal(t, connector.Issued, status.State)
			bundle, err := c.Collect(t.Context(), r, placed.Handle.With(status.Handle))
			require.NoError(t, err)
			_, err = connectortest.Check(t, c, r, bundle)
			require.NoError(t, err)
		})
	}
}

func fetch(t *testing.T, method, url string) string {
	t.Helper()
	defer http.DefaultClient.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, answer.StatusCode, string(body))
	return string(body)
}

func TestWhatTheCommandLineMayNotSay(t *testing.T) {
	for text, args := range map[string][]string{
		"-vendor":       {},
		`"verisign"`:    {"-vendor", "verisign"},
		"is no flag":    {"-vendor", "digicert", "more"},
		"loopback":      {"-vendor", "digicert", "-control", "0.0.0.0:0"},
		"-delay":        {"-vendor", "digicert", "-delay", "soon"},
		"leave out":     {"-vendor", "vault", "-approval"},
		"flag provided": {"-odd"},
	} {
		var stderr output
		assert.Equal(t, 2, run(t.Context(), args, io.Discard, &stderr), text)
		assert.Contains(t, stderr.String(), text)
	}
	var stderr output
	assert.Zero(t, run(t.Context(), []string{"-h"}, io.Discard, &stderr))
	assert.Contains(t, stderr.String(), "Examples:")
	assert.Equal(t, 1, run(t.Context(), []string{"-vendor", "digicert", "-listen", "203.0.113.1:1"}, io.Discard, &stderr), "not an address of this host")
}
