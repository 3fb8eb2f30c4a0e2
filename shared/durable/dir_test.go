package durable

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMkdirAll(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "a", "b", "c")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { assert.NoError(t, MkdirAll(path, 0o700)) })
	}
	group.Wait()
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.True(t, info.IsDir())
	require.NoError(t, MkdirAll(path, 0o755), "what exists is no error")

	file := filepath.Join(root, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.ErrorContains(t, MkdirAll(file, 0o700), file)
	require.ErrorContains(t, MkdirAll(filepath.Join(file, "below"), 0o700), file)
}

func TestRenameAndRemove(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	require.NoError(t, MkdirAll(sub, 0o700))
	from, to := filepath.Join(dir, "from"), filepath.Join(sub, "to")
	require.NoError(t, WriteFile(from, []byte("moved"), 0o600))
	require.NoError(t, WriteFile(to, []byte("replaced"), 0o600))
	require.NoError(t, Rename(from, to))
	assert.Equal(t, []string{"sub"}, dirNames(t, dir))
	got, err := os.ReadFile(to)
	require.NoError(t, err)
	assert.Equal(t, "moved", string(got))
	require.NoError(t, Rename(to, filepath.Join(sub, "again")))
	require.ErrorIs(t, Rename(to, from), fs.ErrNotExist)

	require.NoError(t, Remove(filepath.Join(sub, "again")))
	require.NoError(t, Remove(sub))
	require.ErrorIs(t, Remove(sub), fs.ErrNotExist)
	require.ErrorIs(t, SyncDir(sub), fs.ErrNotExist)
}

func TestRemoveStaleTempTouchesNothingElse(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".certctl-123.tmp", ".certctl-.tmp", ".certctl-1.tmp.pem", "certctl-1.tmp", ".certctl-key", "key.pem"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, ".certctl-dir.tmp"), 0o700))
	removed, err := RemoveStaleTemp(dir)
	require.NoError(t, err)
	assert.Equal(t, 2, removed)
	assert.Equal(t, []string{".certctl-1.tmp.pem", ".certctl-dir.tmp", ".certctl-key", "certctl-1.tmp", "key.pem"}, dirNames(t, dir))
	removed, err = RemoveStaleTemp(dir)
	require.NoError(t, err)
	assert.Zero(t, removed)
	_, err = RemoveStaleTemp(filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}
