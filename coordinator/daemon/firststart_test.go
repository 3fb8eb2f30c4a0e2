package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/history"
)

var quiet = slog.New(slog.DiscardHandler)

// settle opens a data directory and closes it again.
func settle(t *testing.T, s *config.Settings) error {
	t.Helper()
	st, err := openState(s, quiet)
	if err == nil {
		st.close(quiet)
	}
	return err
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
	order := []string{intentFile, nodeIDFile, journalFile, raftDir}
	for made := range len(order) + 1 {
		s := newSettings(t)
		require.NoError(t, settle(t, s))
		assert.ElementsMatch(t, order[1:], namesIn(t, s.DataDir), "the intent is gone when it is carried out")
		require.NoError(t, os.WriteFile(filepath.Join(s.DataDir, intentFile), nil, 0o600))
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
			if intent && slices.Contains([]string{nodeIDFile, journalFile}, file) {
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
