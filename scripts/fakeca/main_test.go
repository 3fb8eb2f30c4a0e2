package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/digicert"
	"github.com/certctl/certctl/coordinator/connector/entrust"
	"github.com/certctl/certctl/coordinator/connector/globalsign"
	"github.com/certctl/certctl/coordinator/connector/sectigo"
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

// start runs the program until the test ends and returns what it tells.
func start(t *testing.T, args ...string) (settings map[string]string, control string) {
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
	for !strings.HasSuffix(stdout.String(), "\n\n") && backoff.Wait(deadline, 5*time.Millisecond) == nil {
	}
	settings = map[string]string{}
	for _, line := range regexp.MustCompile(`(?m)^  (\w+): (.*)$`).FindAllStringSubmatch(stdout.String(), -1) {
		settings[line[1]] = line[2]
	}
	control = regexp.MustCompile(`http://\S+/`).FindString(stdout.String())
	require.NotEmpty(t, control, stdout.String()+stderr.String())
	return settings, control
}

func roots(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(data))
	return pool
}

func fixed(text string) func() (string, error) { return func() (string, error) { return text, nil } }

// client is the client certificate that the program writes.
func client(s map[string]string) func() (*tls.Certificate, error) {
	return func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(s["client_certificate_file"], s["client_key_file"])
		return &pair, err
	}
}

// noPerson are the vendors that have no word for an order that waits for one.
var noPerson = map[string]bool{"entrust": true, "globalsign": true}

// connect makes a connector of nothing but what the program tells.
func connect(t *testing.T, vendor string, s map[string]string) connector.Connector {
	t.Helper()
	switch vendor {
	case "digicert":
		c, err := digicert.New(digicert.Config{URL: s["url"], Key: fixed(s["key"]), Product: s["product"], Organization: 112233, Roots: roots(t, s["ca_file"])})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c
	case "entrust":
		c, err := entrust.New(entrust.Config{URL: s["url"], CA: s["ca"], Profile: s["profile"], Certificate: client(s), Roots: roots(t, s["ca_file"])})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c
	case "globalsign":
		c, err := globalsign.New(globalsign.Config{
			URL: s["url"], APIKey: fixed(s["api_key"]), APISecret: fixed(s["api_secret"]), Certificate: client(s), Roots: roots(t, s["ca_file"]),
		})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c
	case "sectigo":
		c, err := sectigo.New(sectigo.Config{
			URL: strings.Replace(s["url"], "/api", "/private/api", 1), Auth: sectigo.AuthCertificate, Login: s["login"], CustomerURI: s["customer_uri"],
			Certificate:  client(s),
			Organization: 9731, Profile: 4411, Terms: []int{90}, Roots: roots(t, s["ca_file"]),
		})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c
	}
	t.Fatalf("no test of the vendor %s", vendor)
	return nil
}

// Whoever follows what the program prints gets a certificate, after a person
// approved the order on the page.
func TestAnOrderByWhatTheProgramTells(t *testing.T) {
	for vendor := range vendors {
		t.Run(vendor, func(t *testing.T) {
			settings, control := start(t, "-vendor", vendor, "-approval")
			c := connect(t, vendor, settings)
			_, err := c.Test(t.Context())
			require.NoError(t, err)
			r, _ := connectortest.Request(t, "www.example.com")
			placed, err := c.Place(t.Context(), r)
			require.NoError(t, err)
			status, err := c.Status(t.Context(), r, placed.Handle)
			require.NoError(t, err)
			if noPerson[vendor] {
				assert.Equal(t, connector.Pending, status.State)
			} else {
				assert.Equal(t, connector.NeedsPerson, status.State)
			}
			page := fetch(t, http.MethodGet, control)
			assert.Contains(t, page, placed.Handle.Order)
			assert.Contains(t, page, "Approve")
			if placed.Handle.Order == "" { // it has no name before it is issued
				fetch(t, http.MethodPost, control+"approve-all")
			} else {
				fetch(t, http.MethodPost, control+"approve?id="+placed.Handle.Order)
			}
			status, err = c.Status(t.Context(), r, placed.Handle)
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
