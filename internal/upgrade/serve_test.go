package upgrade

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
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/daemon"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/settings"
	"github.com/certctl/certctl/shared/wire"
)

// A served coordinator is one of this version, with the wiring of the program, in
// a stored directory.
type served struct {
	*stored
	url  string
	http *http.Client
	stop func()
}

func (s *stored) serve() *served {
	t := s.t
	conf := daemon.Config{Settings: new(config.Settings), Log: quiet}
	_, err := settings.Load(conf.Settings, settings.Options{Env: []string{
		"CERTCTL_DATA_DIR=" + s.data, "CERTCTL_SERVER_LISTEN=127.0.0.1:0", "CERTCTL_CLUSTER_LISTEN=127.0.0.1:0",
	}})
	require.NoError(t, err)
	conf.Names, err = server.NamesOf(nil)
	require.NoError(t, err)
	ready := make(chan struct{})
	conf.Ready = func() { close(ready) }
	ctx, cancel := context.WithCancel(t.Context())
	d, err := daemon.New(ctx, conf)
	if err != nil {
		cancel()
	}
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	_, port, err := net.SplitHostPort(d.Address().String())
	require.NoError(t, err)
	c := &served{stored: s, url: "https://localhost:" + port, http: s.client()}
	c.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	t.Cleanup(c.stop)
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		require.FailNow(t, "the coordinator ended", "%v", err)
	case <-time.After(patience):
		require.FailNow(t, "the coordinator does not get ready")
	}
	require.Eventually(t, func() bool {
		status, _ := c.try(http.MethodGet, "/readyz", "", nil, nil)
		return status == http.StatusOK
	}, patience, 50*time.Millisecond)
	return c
}

// client trusts the root that the earlier coordinator made.
func (s *stored) client() *http.Client {
	s.t.Helper()
	pool := x509.NewCertPool()
	require.True(s.t, pool.AppendCertsFromPEM([]byte(s.text(s.data, "root.pem"))))
	return &http.Client{
		Timeout:   patience,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, DisableKeepAlives: true},
	}
}

// skipIfOver skips what needs the CA in a stored directory, when that has ended.
func (s *stored) skipIfOver() {
	for _, authority := range s.authority().Authorities {
		if time.Now().After(authority.NotAfter) {
			s.t.Skipf("the CA in it ended at %v: make the archive anew from the same version (see testdata/README.md)", authority.NotAfter)
		}
	}
}

// try makes one request, with a token unless it is "".
func (c *served) try(method, path, token string, body, into any) (int, error) {
	text, err := json.Marshal(body)
	require.NoError(c.t, err)
	req, err := http.NewRequestWithContext(context.Background(), method, c.url+path, bytes.NewReader(text))
	require.NoError(c.t, err)
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && into != nil && resp.StatusCode < 300 {
		err = json.Unmarshal(answer, into)
	}
	if resp.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return resp.StatusCode, err
}

func (c *served) do(method, path, token string, body, into any) {
	c.t.Helper()
	_, err := c.try(method, path, token, body, into)
	require.NoError(c.t, err, "%s %s", method, path)
}

// enroll enrols a new host with a new token, and returns its id.
func (c *served) enroll(token string) string {
	t := c.t
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	csr, err := pki.CreateCSR(key, pki.MustParseNames("new.example.com"))
	require.NoError(t, err)
	var answer wire.EnrollResponse
	c.do(http.MethodPost, wire.EnrollPath, "", wire.EnrollRequest{
		Protocol: wire.Protocol, Token: token, CSR: csr, Host: wire.HostReport{Hostname: "new", StartedAt: time.Now()},
	}, &answer)
	chain, err := pki.ParseChainPEM([]byte(answer.Chain))
	require.NoError(t, err)
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM([]byte(c.text(c.data, "root.pem"))))
	for _, issuer := range chain[1:] {
		between.AddCert(issuer)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	require.NoError(t, err, "the CA of the earlier version signed it")
	return answer.AgentID
}

// TestStoredDirectoryIsServed: this version serves what it found, to the tokens of
// that time, signs with the CA of that time, writes, and starts again.
func TestStoredDirectoryIsServed(t *testing.T) {
	eachStored(t, func(s *stored) {
		s.skipIfOver()
		admin, viewer := s.text(s.data, "admin.token"), s.text(s.expected, "viewer.token")
		c := s.serve()
		var agents resource.Page[resource.Agent]
		c.do(http.MethodGet, "/api/v1/agents?limit=500", viewer, nil, &agents)
		assert.Equal(t, len(said[resource.Agent](s, "agents.json")), len(agents.Items))
		var certificates resource.Page[resource.Certificate]
		c.do(http.MethodGet, "/api/v1/certificates?limit=500", viewer, nil, &certificates)
		require.Equal(t, len(said[resource.Certificate](s, "certificates.json")), len(certificates.Items))
		for _, want := range said[resource.Certificate](s, "certificates.json") {
			var got resource.Certificate
			c.do(http.MethodGet, "/api/v1/certificates/"+want.AgentID+"/"+want.Name, viewer, nil, &got)
			assert.Equal(t, want.Serial, got.Serial)
		}
		var ca resource.CA
		c.do(http.MethodGet, "/api/v1/ca", viewer, nil, &ca)
		assert.Equal(t, s.authority().ClusterID, ca.ClusterID)
		status, _ := c.try(http.MethodPost, "/api/v1/enrollment-tokens", viewer, resource.CreateEnrollmentToken{}, nil)
		assert.Equal(t, http.StatusForbidden, status, "a viewer is one still")

		var made resource.CreatedEnrollmentToken
		c.do(http.MethodPost, "/api/v1/enrollment-tokens", admin, resource.CreateEnrollmentToken{NamePatterns: []string{"*.example.com"}}, &made)
		id := c.enroll(made.Token)
		c.stop()

		c = s.serve()
		var agent resource.AgentDetail
		c.do(http.MethodGet, "/api/v1/agents/"+id, admin, nil, &agent)
		assert.Equal(t, "new", agent.Hostname)
		c.do(http.MethodGet, "/api/v1/agents?limit=500", viewer, nil, &agents)
		assert.Equal(t, len(said[resource.Agent](s, "agents.json"))+1, len(agents.Items))
	})
}
