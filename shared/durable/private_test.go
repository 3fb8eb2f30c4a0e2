package durable

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEnsurePrivateDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "keys")
	require.NoError(t, EnsurePrivateDir(path))
	require.NoError(t, EnsurePrivateDir(path))
	assert.Empty(t, dirNames(t, path), "the probe must not stay")
}

func TestCheckPrivateDirRefuses(t *testing.T) {
	dir := t.TempDir()
	var refused *PrivateDirError

	missing := filepath.Join(dir, "missing")
	err := CheckPrivateDir(missing)
	require.ErrorAs(t, err, &refused)
	require.ErrorIs(t, err, fs.ErrNotExist)
	assert.Equal(t, missing, refused.Path)
	assert.Equal(t, "create it, or check the configured path", refused.Mend)

	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	err = EnsurePrivateDir(file)
	require.ErrorAs(t, err, &refused)
	assert.EqualError(t, err, "directory "+file+" is not a directory; move that file away, or check the configured path")

	err = EnsurePrivateDir(filepath.Join(file, "below"))
	require.ErrorAs(t, err, &refused)
}

func TestRestrictToAdministrators(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, WriteFile(path, []byte("secret"), 0o644))
	require.NoError(t, RestrictToAdministrators(path))
	require.NoError(t, RestrictToAdministrators(dir))
	require.NoError(t, CheckPrivateDir(dir))
	got, err := os.ReadFile(path)
	require.NoError(t, err, "the owner keeps access")
	assert.Equal(t, "secret", string(got))
	require.ErrorIs(t, RestrictToAdministrators(filepath.Join(dir, "missing")), fs.ErrNotExist)
}
