package durable

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// syncs lists what fn syncs in dir, in its order; each temporary name is ".tmp".
func syncs(t *testing.T, dir string, fn func() error) []string {
	t.Helper()
	var list []string
	stop := WatchSyncs(dir, func(path string) func() {
		return func() {
			rel, err := filepath.Rel(dir, path)
			assert.NoError(t, err)
			if strings.HasSuffix(rel, ".tmp") {
				rel = filepath.Join(filepath.Dir(rel), ".tmp")
			}
			list = append(list, filepath.ToSlash(rel))
		}
	})
	defer stop()
	require.NoError(t, fn())
	return list
}

// Each promise has its syncs: of what, and in which order.
func TestWhatIsSynced(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, step := range []struct {
		name string
		do   func() error
		want []string // "." is the directory itself
	}{
		{"create directories", func() error { return MkdirAll(in("a/b"), 0o700) }, []string{".", "a"}},
		{"directories that are there", func() error { return MkdirAll(in("a/b"), 0o700) }, nil},
		{"write", func() error { return WriteFile(in("f"), []byte("1"), 0o600) }, []string{".tmp", "."}},
		{"write again", func() error { return WriteFile(in("f"), []byte("2"), 0o600) }, []string{".tmp", "."}},
		{"rename", func() error { return Rename(in("f"), in("g")) }, []string{"."}},
		{"move", func() error { return Rename(in("g"), in("a/g")) }, []string{"a", "."}},
		{"remove", func() error { return Remove(in("a/g")) }, []string{"a"}},
		{"remove all", func() error { return RemoveAll(in("a/b")) }, []string{"a"}},
		{"remove all again", func() error { return RemoveAll(in("a/b")) }, []string{"a"}},
		{"remove all where nothing is", func() error { return RemoveAll(in("missing/b")) }, nil},
		{"nothing stale", func() error { _, err := RemoveStaleTemp(dir); return err }, nil},
		{"stale", func() error {
			if err := os.WriteFile(in(".certctl-1.tmp"), nil, 0o600); err != nil {
				return err
			}
			_, err := RemoveStaleTemp(dir)
			return err
		}, []string{"."}},
		{"private directory", func() error { return EnsurePrivateDir(in("p")) }, []string{".", "p/.tmp"}},
		{"private directory that is there", func() error { return CheckPrivateDir(in("p")) }, []string{"p/.tmp"}},
	} {
		want := step.want
		if runtime.GOOS == "windows" { // has no sync of a directory
			want = nil
			for _, name := range step.want {
				if strings.HasSuffix(name, ".tmp") {
					want = append(want, name)
				}
			}
		}
		assert.Equal(t, want, syncs(t, dir, step.do), step.name)
	}
}

// A sync that fails, or is of another place, is nothing to tell.
func TestWatchSyncs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	f, err := os.Create(path)
	require.NoError(t, err)
	begun, ended := 0, 0
	watch := func(string) func() { begun++; return func() { ended++ } }
	stop := WatchSyncs(dir, watch)
	elsewhere := WatchSyncs(dir+"x", func(string) func() { t.Error("not there"); return func() {} })
	require.NoError(t, Sync(f))
	assert.Equal(t, [2]int{1, 1}, [2]int{begun, ended})
	require.NoError(t, f.Close())
	require.ErrorIs(t, Sync(f), os.ErrClosed, "Sync does not reach the file")
	assert.Equal(t, [2]int{2, 1}, [2]int{begun, ended})
	stop()
	require.NoError(t, WriteFile(path, nil, 0o600))
	assert.Equal(t, [2]int{2, 1}, [2]int{begun, ended})
	elsewhere()
	assert.Nil(t, watchers.Load())
}
