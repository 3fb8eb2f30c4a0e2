package service

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLogIsCutWhileItIsWritten(t *testing.T) {
	path := filepath.Join(scratch(t), "certctl", "logs", "certctl-test.log")
	log, err := openLog(path)
	require.NoError(t, err)
	t.Cleanup(func() { log.file.Close() })
	read := func(path string) string {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(text)
	}

	fmt.Fprintln(log.file, "first")
	require.NoError(t, log.cut(100))
	assert.Equal(t, "first\n", read(path), "it is small")

	long := strings.Repeat("x", 200)
	fmt.Fprintln(log.file, long)
	require.NoError(t, log.cut(100))
	fmt.Fprintln(log.file, "after")
	assert.Equal(t, "after\n", read(path), "through the same handle, from the start again")
	assert.Equal(t, "first\n"+long+"\n", read(path+".1"))

	fmt.Fprintln(log.file, long)
	require.NoError(t, log.cut(100))
	assert.Equal(t, "after\n"+long+"\n", read(path+".1"), "the log before the previous one is gone")

	again, err := openLog(path)
	require.NoError(t, err)
	fmt.Fprintln(again.file, "restarted")
	again.file.Close()
	assert.Equal(t, "restarted\n", read(path))
}

func TestLogNeedsItsDirectory(t *testing.T) {
	path := filepath.Join(scratch(t), "file")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err := openLog(filepath.Join(path, "logs", "certctl-test.log"))
	assert.Error(t, err)
}
