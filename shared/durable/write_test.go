package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var errInjected = errors.New("injected")

// dirNames lists a directory, so that tests see what a write left behind.
func dirNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func keepOwner(mode fs.FileMode) Ownership { return Ownership{UID: Keep, GID: Keep, Mode: mode} }

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cert.pem")
	for _, content := range []string{"first", "a second, longer one", "", "x"} {
		require.NoError(t, WriteFile(path, []byte(content), 0o640))
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, content, string(got))
	}
	assert.Equal(t, []string{"cert.pem"}, dirNames(t, dir))
	if runtime.GOOS != "windows" {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o640), info.Mode().Perm(), "the umask must not matter")
	}
}

func TestWriteFileBadInput(t *testing.T) {
	dir := t.TempDir()
	occupied := filepath.Join(dir, "directory")
	require.NoError(t, os.Mkdir(occupied, 0o700))
	require.NoError(t, WriteFile(filepath.Join(occupied, "inside"), []byte("kept"), 0o600))

	require.ErrorContains(t, WriteFile(filepath.Join(dir, "f"), nil, 0), "want permission bits such as 0600")
	require.ErrorContains(t, WriteFile(filepath.Join(dir, "f"), nil, fs.ModeSetuid|0o755), "want permission bits")
	require.ErrorIs(t, WriteFile(filepath.Join(dir, "missing", "f"), nil, 0o600), fs.ErrNotExist)
	require.ErrorContains(t, WriteFile(occupied, []byte("x"), 0o600), "rename")
	assert.Equal(t, []string{"directory"}, dirNames(t, dir), "a failed write leaves nothing beside its destination")
	got, err := os.ReadFile(filepath.Join(occupied, "inside"))
	require.NoError(t, err)
	assert.Equal(t, "kept", string(got))
}

// Each step fails once before it did anything and once after it did its work.
func TestWriteFileEachStepFailing(t *testing.T) {
	oldContent, newContent := []byte("the old content"), bytes.Repeat([]byte("new "), 10_000)
	for _, existed := range []bool{false, true} {
		for _, failing := range writeSteps {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("existed %v, %s, after %v", existed, failing, after), func(t *testing.T) {
					dir := t.TempDir()
					path := filepath.Join(dir, "f")
					if existed {
						require.NoError(t, WriteFile(path, oldContent, 0o600))
					}
					err := writeFile(path, newContent, keepOwner(0o600), func(s Step, _ string, done bool) error {
						if s == failing && done == after {
							return errInjected
						}
						return nil
					})
					require.ErrorIs(t, err, errInjected)
					require.ErrorContains(t, err, strings.TrimPrefix(string(failing), "durable: "))
					requireWhole(t, dir, existed, replaced(failing, after), oldContent, newContent)

					require.NoError(t, WriteFile(path, newContent, 0o600), "the next write must succeed")
					requireWhole(t, dir, existed, true, oldContent, newContent)
				})
			}
		}
	}
}

// replaced says whether a write that stopped there has put the new content under its name.
func replaced(stopped Step, after bool) bool {
	return stopped == stepRename && after || stopped == stepSyncDir
}

func requireWhole(t *testing.T, dir string, existed, isNew bool, oldContent, newContent []byte) {
	t.Helper()
	if !existed && !isNew {
		require.Empty(t, dirNames(t, dir))
		return
	}
	require.Equal(t, []string{"f"}, dirNames(t, dir))
	got, err := os.ReadFile(filepath.Join(dir, "f"))
	require.NoError(t, err)
	want := oldContent
	if isNew {
		want = newContent
	}
	require.True(t, bytes.Equal(want, got), "found %d octets, want %d", len(got), len(want))
}

func TestOwnershipOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	_, err := OwnershipOf(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, WriteFile(path, []byte("1"), 0o640))
	own, err := OwnershipOf(path)
	require.NoError(t, err)
	require.NoError(t, WriteFileOwned(path, []byte("2"), own))
	again, err := OwnershipOf(path)
	require.NoError(t, err)
	assert.Equal(t, own, again)
}
