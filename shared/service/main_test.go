package service

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// definition is a good definition.
func definition() Definition {
	return Definition{
		Name: "certctl-test", DisplayName: "certctl test", Description: "A daemon for tests.",
		Arguments: []string{"run"}, Unit: "[Service]\nExecStart=/usr/bin/certctl-test run\n",
	}
}

// scratch is t.TempDir for wine too, which cannot do what os.RemoveAll asks for.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "service")
	require.NoError(t, err)
	t.Cleanup(func() {
		var paths []string
		assert.NoError(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			paths = append(paths, path)
			return err
		}))
		for _, path := range slices.Backward(paths) {
			assert.NoError(t, os.Remove(path))
		}
	})
	return dir
}
