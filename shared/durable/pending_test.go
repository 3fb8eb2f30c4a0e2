package durable

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/crashsteps"
)

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	return names
}

func writePending(path string, hook Hook, check func(io.Reader) error) error {
	p, err := CreateHooked(path, Ownership{UID: Keep, GID: Keep, Mode: 0o600}, hook)
	if err != nil {
		return err
	}
	for _, piece := range []string{"new ", "content"} {
		if _, err := io.WriteString(p, piece); err != nil {
			return errors.Join(err, p.Discard())
		}
	}
	return p.Commit(check)
}

// Whatever fails, the old file or the new one is there, whole, and nothing else.
func TestAPendingFileIsThereWholeOrNotAtAll(t *testing.T) {
	count, met := 0, map[Step]int{}
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, writePending(path, func(step Step, _ string, _ bool) error { count++; met[step]++; return nil }, nil))
	crashsteps.Require(t, met)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "new content", string(text))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm()|0o600)

	fault := errors.New("disk fault")
	for at := range count {
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
		n := 0
		err := writePending(path, func(Step, string, bool) error {
			if n++; n == at+1 {
				return fault
			}
			return nil
		}, nil)
		require.ErrorIs(t, err, fault)
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Contains(t, []string{"old", "new content"}, string(text))
		for _, name := range entries(t, filepath.Dir(path)) {
			assert.False(t, strings.HasSuffix(name, ".tmp"), "fault %d leaves %s", at, name)
		}
	}
}

func TestAPendingFileThatIsRefusedIsDiscarded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	refusal := errors.New("it is not what was meant")
	err := writePending(path, nil, func(r io.Reader) error {
		text, err := io.ReadAll(r)
		require.NoError(t, err)
		assert.Equal(t, "new content", string(text), "it is read from its beginning")
		return refusal
	})
	require.ErrorIs(t, err, refusal)
	assert.Empty(t, entries(t, filepath.Dir(path)))
	p, err := Create(path, Ownership{UID: Keep, GID: Keep, Mode: 0o600})
	require.NoError(t, err)
	require.NoError(t, p.Discard())
	assert.Empty(t, entries(t, filepath.Dir(path)))
}
