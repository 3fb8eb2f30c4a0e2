package testnginx_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/internal/testnginx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, options testnginx.Options) *testnginx.Server {
	t.Helper()
	s, err := testnginx.Start(t.TempDir(), options)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Stop()) })
	return s
}

func fingerprint(t *testing.T, s *testnginx.Server, name string) string {
	t.Helper()
	got, err := s.Fingerprint(context.Background(), name)
	require.NoError(t, err)
	return got
}

func TestServesEachSiteAndReloads(t *testing.T) {
	s := start(t, testnginx.Options{Sites: []testnginx.Site{{Name: "one.example"}, {Name: "two.example"}}})
	one, two := fingerprint(t, s, "one.example"), fingerprint(t, s, "two.example")
	require.NotEqual(t, one, two)

	for _, path := range []func(testnginx.Site) string{
		func(site testnginx.Site) string { return site.Certificate },
		func(site testnginx.Site) string { return site.Key },
	} {
		data, err := os.ReadFile(path(s.Site(1)))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path(s.Site(0)), data, 0o600))
	}
	check, reload := s.CheckArgv(), s.ReloadArgv()
	out, err := exec.Command(check[0], check[1:]...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, one, fingerprint(t, s, "one.example"), "a check must not load anything")
	out, err = exec.Command(reload[0], reload[1:]...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Eventually(t, func() bool {
		// A worker that ends with the reload may drop what it has just accepted.
		served, err := s.Fingerprint(context.Background(), "one.example")
		return err == nil && served == two
	}, time.Minute, 20*time.Millisecond)
}

func TestCheckFindsABrokenConfiguration(t *testing.T) {
	s := start(t, testnginx.Options{Sites: []testnginx.Site{{Name: "one.example"}}})
	require.NoError(t, os.WriteFile(s.ConfigPath(), []byte("nonsense;\n"), 0o600))
	check := s.CheckArgv()
	require.Error(t, exec.Command(check[0], check[1:]...).Run())
}

func TestStopFreesThePort(t *testing.T) {
	s := start(t, testnginx.Options{Sites: []testnginx.Site{{Name: "one.example"}}})
	require.NoError(t, s.Stop())
	require.NoError(t, s.Stop())
	_, err := s.Fingerprint(context.Background(), "one.example")
	require.Error(t, err)
	listener, err := net.Listen("tcp", s.Address())
	require.NoError(t, err)
	listener.Close()
}

func TestStartRefuses(t *testing.T) {
	dir := t.TempDir()
	_, err := testnginx.Start(dir, testnginx.Options{})
	require.ErrorContains(t, err, "sites")
	_, err = testnginx.Start("relative", testnginx.Options{Sites: []testnginx.Site{{Name: "a.example"}}})
	require.ErrorContains(t, err, "absolute")
	_, err = testnginx.Start(dir, testnginx.Options{Sites: []testnginx.Site{{Name: "a.example; x"}}})
	require.ErrorContains(t, err, "cannot stand")

	bad := filepath.Join(dir, "bad.pem")
	require.NoError(t, os.WriteFile(bad, []byte("no certificate\n"), 0o600))
	_, err = testnginx.Start(dir, testnginx.Options{Sites: []testnginx.Site{{Name: "a.example", Certificate: bad, Key: bad}}})
	require.ErrorContains(t, err, "ended at once")
	require.ErrorContains(t, err, "bad.pem", "what nginx printed belongs in the error")
}
