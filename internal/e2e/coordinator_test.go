//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/internal/testca"
	"github.com/certctl/certctl/shared/wire"
)

// syncInterval is short, so that tests need not wait for reports.
const syncInterval = 2 * time.Second

// coordinator is a coordinator with a data directory and a port of its own.
type coordinator struct {
	*daemon
	home    string
	data    string
	address string // host:port
	token   string // of the first administrator
	http    *http.Client
}

// newCoordinator makes one that does not run yet. settings are environment
// variables.
func newCoordinator(t testing.TB, settings ...string) *coordinator {
	t.Helper()
	home := t.TempDir()
	port, err := testca.Port()
	require.NoError(t, err)
	c := &coordinator{
		home: home, data: filepath.Join(home, "data"),
		address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
	}
	// An empty file instead of the machine's own.
	config := filepath.Join(home, "coordinator.yaml")
	require.NoError(t, os.WriteFile(config, nil, 0o600))
	env := environment(home, append([]string{
		"CERTCTL_DATA_DIR=" + c.data, "CERTCTL_SERVER_LISTEN=" + c.address, "CERTCTL_CLUSTER_LISTEN=127.0.0.1:0",
		"CERTCTL_SYNC_INTERVAL=" + syncInterval.String(),
	}, settings...)...)
	c.daemon = newDaemon(t, "the coordinator", "certctl-coordinator", env, "run", "--config", config)
	return c
}

// startCoordinator starts a new one and waits until it serves.
func startCoordinator(t testing.TB, settings ...string) *coordinator {
	t.Helper()
	c := newCoordinator(t, settings...)
	c.start()
	c.awaitServing()
	return c
}

func (c *coordinator) url() string { return "https://" + c.address }

// awaitServing waits until the coordinator answers for itself, and reads what
// the first start made.
func (c *coordinator) awaitServing() {
	c.t.Helper()
	c.awaitReady(2*time.Minute, c.connect)
}

// connect reads the root and the token if need be, and asks whether the
// coordinator is ready.
func (c *coordinator) connect() error {
	if c.http == nil {
		token, err := os.ReadFile(filepath.Join(c.data, "admin.token"))
		if err != nil {
			return err
		}
		root, err := os.ReadFile(filepath.Join(c.data, "root.pem"))
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(root) {
			return fmt.Errorf("root.pem holds no certificate")
		}
		c.token = strings.TrimSpace(string(token))
		c.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
			DialContext:       dial,
			TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13},
			DisableKeepAlives: true, // leaves no goroutine behind
		}}
	}
	return c.try(http.MethodGet, "/readyz", nil, nil)
}

// dial gives up a machine that does not answer at all, as agents do.
var dial = (&net.Dialer{Timeout: 3 * time.Second}).DialContext

// try makes one request. An answer that is not a success is a *wire.Problem.
func (c *coordinator) try(method, path string, body, into any) error {
	return c.tryFor(context.Background(), method, path, body, into)
}

func (c *coordinator) tryFor(ctx context.Context, method, path string, body, into any) error {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url()+path, reader)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		problem := new(wire.Problem)
		if json.Unmarshal(text, problem) != nil || problem.Code == "" {
			return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
		}
		return problem
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// metrics are what Prometheus reads with an API token.
func (c *coordinator) metrics(token string) (string, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, c.url()+"/metrics", nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := c.http.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("/metrics: %s: %s", response.Status, text)
	}
	return string(text), err
}

var acceptedSyncs = regexp.MustCompile(`(?m)^certctl_coordinator_requests_total{code="200",kind="sync"} (\d+)$`)

// syncs is how many requests of agents to sync this run has accepted.
func (c *coordinator) syncs() (int, error) {
	text, err := c.metrics(c.token)
	if err != nil {
		return 0, err
	}
	match := acceptedSyncs.FindStringSubmatch(text)
	if match == nil {
		return 0, nil // counters appear with their first count
	}
	return strconv.Atoi(match[1])
}

// tryToken makes an enrolment token.
func (c *coordinator) tryToken(request resource.CreateEnrollmentToken) (resource.CreatedEnrollmentToken, error) {
	var made resource.CreatedEnrollmentToken
	err := c.try(http.MethodPost, "/api/v1/enrollment-tokens", request, &made)
	return made, err
}

// newToken makes a token that is good once, for ten minutes.
func (c *coordinator) newToken(patterns ...string) resource.CreatedEnrollmentToken {
	c.t.Helper()
	made, err := c.tryToken(resource.CreateEnrollmentToken{NamePatterns: patterns, TTLSeconds: 600})
	require.NoError(c.t, err)
	return made
}

// all reads every page of a list.
func all[T any](c *coordinator, path string, query url.Values) ([]T, error) {
	if query == nil {
		query = url.Values{}
	}
	query.Set("limit", "500")
	var items []T
	for {
		var page resource.Page[T]
		if err := c.try(http.MethodGet, path+"?"+query.Encode(), nil, &page); err != nil {
			return nil, err
		}
		items = append(items, page.Items...)
		if page.NextCursor == "" {
			return items, nil
		}
		query.Set("cursor", page.NextCursor)
	}
}

func (c *coordinator) agents() []resource.Agent {
	c.t.Helper()
	items, err := all[resource.Agent](c, "/api/v1/agents", nil)
	require.NoError(c.t, err)
	return items
}

func (c *coordinator) enrollmentTokens() []resource.EnrollmentToken {
	c.t.Helper()
	items, err := all[resource.EnrollmentToken](c, "/api/v1/enrollment-tokens", nil)
	require.NoError(c.t, err)
	return items
}

// facts are all facts of the journal about an agent, in their order; "" is all.
func (c *coordinator) facts(agent string) []resource.Event {
	c.t.Helper()
	query := url.Values{"scope": {"all"}, "order": {"oldest"}}
	if agent != "" {
		query.Set("agent", agent)
	}
	items, err := all[resource.Event](c, "/api/v1/audit", query)
	require.NoError(c.t, err)
	return items
}

// report is what the coordinator knows of the certificates of an agent, by name.
func (c *coordinator) report(agent string) (map[string]resource.Certificate, error) {
	items, err := all[resource.Certificate](c, "/api/v1/certificates", url.Values{"agent": {agent}})
	if err != nil {
		return nil, err
	}
	byName := make(map[string]resource.Certificate, len(items))
	for _, item := range items {
		byName[item.Name] = item
	}
	return byName, nil
}
