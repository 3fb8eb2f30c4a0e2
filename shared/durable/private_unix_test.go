//go:build unix

package durable

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Mode().Perm()
}

func TestPrivateDirModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	require.NoError(t, EnsurePrivateDir(dir))
	assert.Equal(t, fs.FileMode(0o700), mode(t, dir))
	for _, open := range []fs.FileMode{0o701, 0o710, 0o740, 0o755, 0o777} {
		require.NoError(t, os.Chmod(dir, open))
		assert.EqualError(t, EnsurePrivateDir(dir),
			fmt.Sprintf("directory %s is open to other users (mode %04o); run \"chmod 0700 %s\"", dir, open, dir))
		assert.Equal(t, open, mode(t, dir), "a check must not change what it checks")
	}
	require.NoError(t, RestrictToAdministrators(dir))
	require.NoError(t, CheckPrivateDir(dir))
}

func TestPrivateDirBehindALink(t *testing.T) {
	dir, link := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "link")
	require.NoError(t, EnsurePrivateDir(dir))
	require.NoError(t, os.Symlink(dir, link))
	require.NoError(t, EnsurePrivateDir(link))
	require.NoError(t, os.Chmod(dir, 0o750))
	require.ErrorContains(t, EnsurePrivateDir(link), "is open to other users (mode 0750)")
}

func TestPrivateDirOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		// Without root nothing can be given away, but the root directory belongs to somebody else.
		err := CheckPrivateDir("/")
		assert.ErrorContains(t, err, fmt.Sprintf("belongs to user id 0, but this program runs as user id %d", os.Geteuid()))
		return
	}
	dir := t.TempDir()
	require.NoError(t, os.Chown(dir, 12345, -1))
	err := CheckPrivateDir(dir)
	assert.EqualError(t, err, fmt.Sprintf(
		"directory %[1]s belongs to user id 12345, but this program runs as user id 0; run \"chown -R 0 %[1]s\", or start the program as its owner", dir))
}

func TestWriteFileOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	own := Ownership{UID: os.Geteuid(), GID: os.Getegid(), Mode: 0o440}
	if os.Geteuid() == 0 {
		own.UID, own.GID = 12345, 23456
	}
	require.NoError(t, WriteFileOwned(path, []byte("1"), own))
	got, err := OwnershipOf(path)
	require.NoError(t, err)
	assert.Equal(t, own, got)

	// The temporary file is private until it has its owner, and the owner is set before there is any content.
	var seen []Step
	require.NoError(t, writeFile(path, []byte("2"), own, func(s Step, _ string, done bool) error {
		matches, err := filepath.Glob(filepath.Join(filepath.Dir(path), tempPattern))
		require.NoError(t, err)
		if len(matches) != 1 {
			return nil
		}
		seen = append(seen, s)
		info, err := os.Stat(matches[0])
		require.NoError(t, err)
		if s == stepCreate || s == stepOwnership && !done {
			assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
			assert.Zero(t, info.Size())
			return nil
		}
		assert.Equal(t, own.Mode, info.Mode().Perm())
		return nil
	}))
	assert.Contains(t, seen, stepWrite)

	if os.Geteuid() != 0 {
		own.UID = 0
		require.ErrorIs(t, WriteFileOwned(path, []byte("3"), own), fs.ErrPermission)
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, "2", string(content))
	}
}

func TestWriteFileReplacesALink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(target, []byte("target"), 0o600))
	require.NoError(t, os.Symlink(target, link))
	require.NoError(t, WriteFile(link, []byte("new"), 0o600))
	got, err := os.ReadFile(target)
	require.NoError(t, err)
	assert.Equal(t, "target", string(got))
	info, err := os.Lstat(link)
	require.NoError(t, err)
	assert.True(t, info.Mode().IsRegular())
}

func TestMkdirAllModes(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Chmod(root, 0o755))
	require.NoError(t, MkdirAll(filepath.Join(root, "a", "b"), 0o2770&0o777))
	assert.Equal(t, fs.FileMode(0o770), mode(t, filepath.Join(root, "a")), "the umask must not matter")
	assert.Equal(t, fs.FileMode(0o770), mode(t, filepath.Join(root, "a", "b")))
	assert.Equal(t, fs.FileMode(0o755), mode(t, root), "what exists is left as it is")
}
