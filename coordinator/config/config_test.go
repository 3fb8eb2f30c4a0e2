package config

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/shared/settings"
)

func load(t *testing.T, text string, env ...string) (*Settings, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "coordinator.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	var s Settings
	_, err := settings.Load(&s, settings.Options{File: file, FileRequired: true, Env: env})
	return &s, err
}

func TestDefaultsAreEnough(t *testing.T) {
	s, err := load(t, "", "CERTCTL_SYNC_INTERVAL=5s")
	require.NoError(t, err)
	assert.Equal(t, ":8443", s.Server.Listen)
	assert.Equal(t, 5*time.Second, s.Fleet.SyncInterval)
	assert.Equal(t, 30*24*time.Hour, s.CA.LeafLifetime)
	assert.False(t, s.CA.SealKey.IsSet())
}

func TestMistakesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"data_dir: x\n":                              "coordinator.yaml:1:11: data_dir: cannot use \"x\"; expected an absolute path",
		"node_id: 'a b'\n":                           "node_id: cannot use \"a b\"; expected 1 to 64 letters",
		"server: {listen: '8443'}\n":                 "server.listen: cannot use \"8443\"; expected host:port",
		"server: {listen: ':99999'}\n":               "server.listen: cannot use \":99999\"",
		"server: {names: ['a b']}\n":                 "server.names",
		"ca: {leaf_lifetime: 10s}\n":                 "ca.leaf_lifetime",
		"fleet: {sync_intervall: 10s}\n":             `did you mean "sync_interval"?`,
		"server: {url: 'http://x:1'}\n":              "server.url: cannot use",
		"server: {url: 'https://x.example.com/a'}\n": "server.url: cannot use",
		"ca: {crl_url: 'ftp://x'}\n":                 "ca.crl_url: cannot use",
		"ca: {crl_url: 'http://x/?a=b'}\n":           "ca.crl_url: cannot use",
		"ca: {name: ''}\n":                           "expected an organization's name",
		"journal: {max_bytes: 5}\n":                  "journal.max_bytes",
		"cluster: {listen: c1}\n":                    "cluster.listen: cannot use \"c1\"; expected host:port",
		"cluster: {advertise: c1}\n":                 "cluster.advertise: cannot use",
		"cluster: {advertise: '0.0.0.0:8444'}\n":     "cluster.advertise: cannot use",
		"cluster: {advertise: 'c1:0'}\n":             "cluster.advertise: cannot use",
		"cluster: {join_token: ctj1.x}\n":            "cluster.join_token: not a join token",
		"database: {url: 'postgres://u:pw@h:x/d'}\n": "database.url: it cannot be read as the address of a PostgreSQL database",
		"database: {max_conns: 2}\n":                 "database.max_conns",
		"database: {statement_timeout: 1ms}\n":       "database.statement_timeout",
		"backups: {directory: x}\n":                  "backups.directory: cannot use",
		"fleet: {sync_interval: 1m}\nfleet: {}\n":    "coordinator.yaml:2:1",
		"fleet: {sync_target_rate: five}\nx: [1\n":   "coordinator.yaml:",
	} {
		_, err := load(t, text)
		require.Error(t, err, text)
		assert.Contains(t, err.Error(), want)
	}
	s, err := load(t, "server: {url: 'https://pki.example.com:8443/', names: [c1.example.com]}\n")
	require.NoError(t, err)
	assert.Equal(t, []string{"pki.example.com", "c1.example.com"}, s.ServerNames())
	const own = "https://pki.example.com:8443/ca/"
	assert.Equal(t, own, s.CA.RevocationURL(own))
	s, err = load(t, "", "CERTCTL_CA_CRL_URL=http://crl.example.com/lists/")
	require.NoError(t, err)
	assert.Equal(t, "http://crl.example.com/lists/", s.CA.RevocationURL(own))
	s, err = load(t, "ca: {crl_url: none}\n")
	require.NoError(t, err)
	assert.Empty(t, s.CA.RevocationURL(own))
	_, err = load(t, "ca:\n  seal_key: abcdef\n")
	require.ErrorContains(t, err, ":2:13: ca.seal_key: not a seal key")
	assert.NotContains(t, err.Error(), "abcdef")
	_, err = load(t, "", "CERTCTL_DATABASE_URL=postgres://u:hidden@h:port/d")
	require.ErrorContains(t, err, "environment CERTCTL_DATABASE_URL: it cannot be read")
	assert.NotContains(t, err.Error(), "hidden")
	s, err = load(t, "", "CERTCTL_DATABASE_URL=postgres://u:hidden@h/d", "CERTCTL_DATABASE_MAX_CONNS=7", "CERTCTL_DATABASE_STATEMENT_TIMEOUT=2m", "CERTCTL_DATABASE_RETENTION=800d")
	require.NoError(t, err)
	assert.Equal(t, Database{URL: s.Database.URL, MaxConns: 7, StatementTimeout: 2 * time.Minute, Retention: 800 * 24 * time.Hour}, s.Database)
	_, err = load(t, "", "CERTCTL_CA_SEAL_KEY=abcdef")
	require.ErrorContains(t, err, "environment CERTCTL_CA_SEAL_KEY: not a seal key")
	_, err = load(t, "ca: {seal_key: \""+ca.NewSealKey().Reveal()+"\"}\n")
	require.NoError(t, err)
	_, err = load(t, "", "CERTCTL_SYNC_INTERVAL=often")
	assert.ErrorContains(t, err, "environment CERTCTL_SYNC_INTERVAL")
}

// What a new node may not be called is a mistake wherever the configuration is
// read; a node that has such a name keeps it.
func TestNameThatANodeHasAlready(t *testing.T) {
	dir := t.TempDir()
	text := "data_dir: '" + dir + "'\nnode_id: n\u00f6de\n"
	_, err := load(t, text)
	require.ErrorContains(t, err, "node_id: cannot use")
	require.NoError(t, os.WriteFile(filepath.Join(dir, NodeIDFile), []byte("n\u00f6de\n"), 0o600))
	_, err = load(t, text)
	require.NoError(t, err)
}
