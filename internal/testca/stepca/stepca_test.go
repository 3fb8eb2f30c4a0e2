package stepca

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServesItsDirectoryAndLeavesNothingBehind(t *testing.T) {
	s, err := Start(t.Context(), Options{Resolver: "127.0.0.1:53"})
	require.NoError(t, err)
	defer s.Close()

	roots := x509.NewCertPool()
	roots.AddCert(s.Root)
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
	}}
	resp, err := client.Get(s.DirectoryURL)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	var directory map[string]any
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&directory))
	assert.Contains(t, directory, "newOrder")
	assert.NotContains(t, directory, "renewalInfo", "step-ca has none")

	s.Close()
	assert.NoDirExists(t, s.dir)
	_, err = client.Get(s.DirectoryURL)
	require.Error(t, err)
}
