package daemon

import (
	"bytes"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/jointoken"
	"github.com/certctl/certctl/coordinator/peer"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/internal/testca"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/settings"
)

var quiet = slog.New(slog.DiscardHandler)

// settle opens a data directory and closes it again.
func settle(t *testing.T, s *config.Settings) error {
	t.Helper()
	authority, err := ca.New(ca.Config{
		SealKey: s.CA.SealKey.Reveal(), SealKeyFile: filepath.Join(s.DataDir, sealKeyFile),
		Name: "test", LeafLifetime: time.Hour, IdentityLifetime: time.Hour,
	})
	require.NoError(t, err)
	d := &directory{settings: s, log: quiet, ca: authority, advertise: "127.0.0.1:8444", url: "https://127.0.0.1:8443"}
	if _, err := d.open(t.Context()); err != nil {
		return err
	}
	assert.NoError(t, d.journal.Close())
	return nil
}

func newSettings(t *testing.T) *config.Settings {
	s := &config.Settings{DataDir: filepath.Join(t.TempDir(), "data")}
	s.Journal.MaxBytes = 1 << 30
	return s
}

func namesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// Wherever a first start is cut off, the next one goes on with it.
func TestFirstStartGoesOn(t *testing.T) {
	order := []string{intentFile, nodeIDFile, journalFile, sealKeyFile, peer.Directory, raftDir}
	for made := range len(order) + 1 {
		s := newSettings(t)
		require.NoError(t, settle(t, s))
		assert.ElementsMatch(t, order[1:], namesIn(t, s.DataDir), "the intent is gone when it is carried out")
		require.NoError(t, os.WriteFile(filepath.Join(s.DataDir, intentFile), []byte(founds), 0o600))
		for _, later := range order[made:] {
			require.NoError(t, os.RemoveAll(filepath.Join(s.DataDir, later)))
		}
		require.NoError(t, settle(t, s), "cut off after %v", order[:made])
		assert.ElementsMatch(t, order[1:], namesIn(t, s.DataDir))
		require.NoError(t, settle(t, s))
	}
}

// A directory that has lost its state is no place for a new CA.
func TestLostStateIsNoFirstStart(t *testing.T) {
	for _, file := range dataFiles {
		if file == raftDir {
			continue
		}
		for _, intent := range []bool{false, true} {
			if intent && slices.Contains([]string{nodeIDFile, journalFile, sealKeyFile, peer.Directory}, file) {
				continue // made by a first start itself
			}
			s := newSettings(t)
			require.NoError(t, os.Mkdir(s.DataDir, 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(s.DataDir, file), []byte("precious"), 0o600))
			if intent {
				require.NoError(t, os.WriteFile(filepath.Join(s.DataDir, intentFile), nil, 0o600))
			}
			before := namesIn(t, s.DataDir)
			err := settle(t, s)
			require.ErrorIs(t, err, errIncomplete)
			require.ErrorContains(t, err, file)
			require.ErrorContains(t, err, raftDir)
			assert.Equal(t, before, namesIn(t, s.DataDir), "nothing is made")
		}
	}
}

// A journal that knows more than an empty log is older than this first start.
func TestFirstStartWithAJournalOfAnother(t *testing.T) {
	s := newSettings(t)
	require.NoError(t, os.Mkdir(s.DataDir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(s.DataDir, intentFile), nil, 0o600))
	journal, err := history.Create(history.Config{Path: filepath.Join(s.DataDir, journalFile), Log: quiet})
	require.NoError(t, err)
	require.NoError(t, journal.Append(7, nil))
	require.NoError(t, journal.Close())

	require.ErrorIs(t, settle(t, s), cluster.ErrJournalAhead)
	assert.NoDirExists(t, filepath.Join(s.DataDir, raftDir))
}

// A first start goes on as what it was: what the founding of a cluster has made is
// of no use to a node that joins, and the other way round.
func TestFirstStartChangesItsMind(t *testing.T) {
	token, err := jointoken.New(&x509.Certificate{Raw: []byte("root")}, "https://127.0.0.1:1")
	require.NoError(t, err)
	for intent, want := range map[string]string{"": "the founding of a cluster was begun", "found\n": "the founding of a cluster was begun", "join\n": "a join was begun"} {
		s := newSettings(t)
		if intent != "join\n" {
			s.Cluster.JoinToken = settings.NewSecret(token.Reveal())
		}
		require.NoError(t, os.Mkdir(s.DataDir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(s.DataDir, intentFile), []byte(intent), 0o600))
		require.ErrorContains(t, settle(t, s), want)
		assert.Equal(t, []string{intentFile}, namesIn(t, s.DataDir))
	}
}

// A token that is still configured is passed over in silence only if it can be one
// of the node's own cluster.
func TestATokenOfAnotherCluster(t *testing.T) {
	made := func() *x509.Certificate {
		files, err := testca.NewServerTLS(t.TempDir())
		require.NoError(t, err)
		text, err := os.ReadFile(files.RootFile)
		require.NoError(t, err)
		roots, err := pki.ParseChainPEM(text)
		require.NoError(t, err)
		return roots[0]
	}
	own, other := made(), made()
	s := newSettings(t)
	require.NoError(t, os.Mkdir(s.DataDir, 0o700))
	var log bytes.Buffer
	d := &directory{settings: s, log: slog.New(slog.NewTextHandler(&log, nil))}
	check := func(root *x509.Certificate) string {
		log.Reset()
		token, err := jointoken.New(root, "https://127.0.0.1:1")
		require.NoError(t, err)
		s.Cluster.JoinToken = settings.NewSecret(token.Reveal())
		d.checkToken()
		assert.NotContains(t, log.String(), token.Reveal())
		return log.String()
	}
	assert.Empty(t, check(other), "a node that never ran knows no root")
	file := filepath.Join(s.DataDir, server.RootFile)
	keep := func(roots ...*x509.Certificate) {
		require.NoError(t, os.WriteFile(file, pki.EncodeChainPEM(roots), 0o600))
	}
	keep(other, own)
	assert.Empty(t, check(own))
	assert.Empty(t, check(other))
	keep(own)
	assert.Empty(t, check(own))
	said := check(other)
	assert.Contains(t, said, "level=WARN")
	assert.Contains(t, said, "belongs to another cluster than the join token: its root is "+pki.Fingerprint(own))
	keep()
	assert.Contains(t, check(own), "the next start of the node writes it anew")
}

// A new node gets no name that has to be quoted everywhere; one that has such a
// name goes on with it.
func TestTheNameOfANewNode(t *testing.T) {
	for _, odd := range []string{"a b", "a/b", "n\u00f6de", "a%b"} {
		s := newSettings(t)
		s.NodeID = odd
		require.ErrorContains(t, settle(t, s), "node_id: cannot use")
		assert.Empty(t, namesIn(t, s.DataDir), "nothing is made")
		require.NoError(t, os.WriteFile(filepath.Join(s.DataDir, nodeIDFile), []byte("node\n"), 0o600))
		require.NoError(t, checkNewID(s), "it is another matter that the names differ")
	}
	s := newSettings(t)
	s.NodeID = "Node_1.example-com"
	require.NoError(t, settle(t, s))
	require.NoError(t, os.Remove(filepath.Join(s.DataDir, nodeIDFile)))
	s.NodeID = "a b"
	require.NoError(t, settle(t, s), "there is a state already")
}
