package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The syncs of a transaction are bbolt's own, and go past durable.Sync: what the
// tests of power failures take for granted is that none of its ways to leave them
// out is used, wherever the file is opened.
func TestTheStateFileIsSynced(t *testing.T) {
	s := openTest(t, Options{})
	other := source{path: filepath.Join(t.TempDir(), "other.db"), layout: current}
	made, err := other.openFile(false)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, made.Close()) })
	for _, db := range []struct{ noSync, noGrowSync, noFreelistSync bool }{
		{s.db.NoSync, s.db.NoGrowSync, s.db.NoFreelistSync},
		{made.NoSync, made.NoGrowSync, made.NoFreelistSync},
	} {
		assert.False(t, db.noSync, "a commit would not be on the disk when it is over")
		assert.False(t, db.noGrowSync, "nor would the length of a file that has grown")
		assert.False(t, db.noFreelistSync, "each start would search the whole file for free pages")
	}

	// One that is switched off later, or in another place, would not show above.
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	opens := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, field := range []string{"NoSync", "NoGrowSync", "NoFreelistSync"} {
			assert.NotContains(t, string(text), field, name)
		}
		opens += strings.Count(string(text), "bolt.Open(")
	}
	assert.Equal(t, 1, opens, "places where the file is opened")
}
