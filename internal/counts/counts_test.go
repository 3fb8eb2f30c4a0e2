package counts

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReportAppendsWholeLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counts")
	t.Setenv(FileEnv, path)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 25 {
				Report(t, "crash-points", 7, "states that an engine was started on")
			}
		})
	}
	group.Wait()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	assert.Len(t, lines, 200)
	for _, line := range lines {
		require.Equal(t, "crash-points\t7\tstates that an engine was started on", line)
	}
}

func TestReportWithoutFileOnlyLogs(t *testing.T) {
	t.Setenv(FileEnv, "")
	t.Chdir(t.TempDir())
	Report(t, "crash-points", 7, "states that an engine was started on")
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	assert.Empty(t, entries)
}

// failure is a testing.TB that notes a failure instead of ending the test.
type failure struct {
	testing.TB
	failed bool
}

func (f *failure) Helper() {}

func (f *failure) Fatalf(string, ...any) {
	f.failed = true
	panic(f)
}

func TestReportRefusesWhatWouldBreakTheTable(t *testing.T) {
	t.Setenv(FileEnv, filepath.Join(t.TempDir(), "counts"))
	for _, bad := range [][2]string{{"", "x"}, {"x", ""}, {"a\tb", "x"}, {"x", "two\nlines"}} {
		f := &failure{TB: t}
		assert.Panics(t, func() { Report(f, bad[0], 1, bad[1]) })
		assert.True(t, f.failed, "%q", bad)
	}
	assert.NoFileExists(t, os.Getenv(FileEnv))
}
