//go:build unix

package durable

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/crashsteps"
)

// A crash is a write that stops at some point without any cleaning up. The temporary file stays open here, as no test can
// end its own process; Windows would not let it be removed.
func TestWriteFileCrashAtEachStep(t *testing.T) {
	oldContent, newContent := []byte("the old content"), bytes.Repeat([]byte("new "), 10_000)
	met := map[Step]int{}
	defer func() { crashsteps.Require(t, met) }()
	for _, existed := range []bool{false, true} {
		for _, last := range writeSteps {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("existed %v, %s, after %v", existed, last, after), func(t *testing.T) {
					dir := t.TempDir()
					path := filepath.Join(dir, "f")
					if existed {
						require.NoError(t, WriteFile(path, oldContent, 0o600))
					}
					crash(t, path, newContent, last, after)
					met[last]++

					left := 0
					if last != stepCreate || after {
						left = 1
					}
					if replaced(last, after) {
						left = 0
					}
					removed, err := RemoveStaleTemp(dir)
					require.NoError(t, err)
					assert.Equal(t, left, removed)
					requireWhole(t, dir, existed, replaced(last, after), oldContent, newContent)
				})
			}
		}
	}
}

func crash(t *testing.T, path string, data []byte, last Step, after bool) {
	t.Helper()
	defer func() { require.Equal(t, errInjected, recover()) }()
	_ = writeFile(path, data, keepOwner(0o600), func(s Step, _ string, done bool) error {
		if s == last && done == after {
			panic(errInjected)
		}
		return nil
	})
	t.Fatal("the write went on after the crash")
}

// Windows refuses to replace a file while it is open, so only Unix can promise this to readers.
func TestWriteFileReadersSeeWholeFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	contents := [][]byte{bytes.Repeat([]byte("a"), 50_000), bytes.Repeat([]byte("b"), 70_000)}
	require.NoError(t, WriteFile(path, contents[0], 0o600))
	var writers sync.WaitGroup
	for _, content := range contents {
		writers.Go(func() {
			for range 20 {
				assert.NoError(t, WriteFile(path, content, 0o600))
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for reading := true; reading; {
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(got, contents[0]) || bytes.Equal(got, contents[1]), "a mix of %d octets", len(got))
		select {
		case <-done:
			reading = false
		default:
		}
	}
	assert.Equal(t, []string{"f"}, dirNames(t, filepath.Dir(path)))
}
