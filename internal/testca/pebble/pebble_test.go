package pebble

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/internal/testca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServesItsDirectoryAndRoots(t *testing.T) {
	s := Run(t, Options{AlternateRoots: 1, Profiles: map[string]Profile{"short": {Description: "d", Validity: 2 * time.Minute}}})

	var directory strings.Builder
	require.NoError(t, s.get(t.Context(), s.DirectoryURL, &directory))
	assert.Contains(t, directory.String(), "renewalInfo")
	assert.Contains(t, directory.String(), `"short"`)

	roots, err := s.IssuerRoots(t.Context())
	require.NoError(t, err)
	require.Len(t, roots, 2)
	assert.NotEqual(t, roots[0].Raw, roots[1].Raw)
	assert.FileExists(t, s.RootFile)
	assert.Equal(t, Ledger{}, s.Ledger())
}

func TestItsDNSResolvesEverythingToLoopback(t *testing.T) {
	s := Run(t, Options{})
	require.NoError(t, s.SetTXT(t.Context(), "_acme-challenge.a.example.", "value"))

	assert.Contains(t, lookup(t, s, "a.example.", dns.TypeA), "127.0.0.1")
	assert.Contains(t, lookup(t, s, "_acme-challenge.a.example.", dns.TypeTXT), "value")

	require.NoError(t, s.ClearTXT(t.Context(), "_acme-challenge.a.example."))
	assert.NotContains(t, lookup(t, s, "_acme-challenge.a.example.", dns.TypeTXT), "value")
}

func lookup(t *testing.T, s *Server, name string, kind uint16) string {
	t.Helper()
	query := new(dns.Msg).SetQuestion(name, kind)
	answer, _, err := (&dns.Client{Net: "tcp"}).ExchangeContext(t.Context(), query, s.DNSAddress)
	require.NoError(t, err)
	var text strings.Builder
	for _, record := range answer.Answer {
		text.WriteString(record.String())
	}
	return text.String()
}

func TestKillAndRestartOnTheSamePorts(t *testing.T) {
	s := Run(t, Options{})
	before, err := s.IssuerRoots(t.Context())
	require.NoError(t, err)

	s.Kill()
	require.Error(t, s.get(t.Context(), s.DirectoryURL, nil))

	require.NoError(t, s.Restart(t.Context()))
	require.NoError(t, s.get(t.Context(), s.DirectoryURL, nil))
	after, err := s.IssuerRoots(t.Context())
	require.NoError(t, err)
	assert.NotEqual(t, before[0].Raw, after[0].Raw, "a new process has a new root")
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	s, err := Start(t.Context(), Options{})
	require.NoError(t, err)
	dir := s.dir
	require.DirExists(t, dir)
	s.Close()
	assert.NoDirExists(t, dir)
	client := http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Get(s.DNSManagementURL)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	require.Error(t, err, "the DNS server is gone too")
}

func TestAPortInUseIsReported(t *testing.T) {
	first := Run(t, Options{})
	s := &Server{options: Options{}, bin: first.bin}
	require.NoError(t, s.prepare())
	t.Cleanup(func() { _ = os.RemoveAll(s.dir) })
	s.ports.directory = first.ports.directory
	s.DirectoryURL = first.DirectoryURL
	require.NoError(t, s.writeConfig())
	err := s.Restart(t.Context())
	defer s.Kill()
	require.Error(t, err)
	assert.True(t, errors.Is(err, testca.ErrExited), err)
	assert.Contains(t, err.Error(), "address already in use")
}

func TestStartHonoursItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Start(ctx, Options{})
	require.Error(t, err)
}
