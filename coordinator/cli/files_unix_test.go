//go:build !windows

package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
)

// A file of tokens that others can read is not used.
func TestContextFileIsGuarded(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	info, err := os.Stat(p.file())
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	info, err = os.Stat(filepath.Dir(p.file()))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660} {
		require.NoError(t, os.Chmod(p.file(), mode))
		assert.Contains(t, p.fails(1, "status"), "chmod 600 "+p.file())
		assert.Contains(t, p.fails(1, "context", "list"), "chmod 600 "+p.file())
	}
	require.NoError(t, os.Chmod(p.file(), 0o600))
	p.does("status")

	require.NoError(t, os.WriteFile(p.file(), []byte("curr: default\n"), 0o600))
	said := p.fails(1, "status")
	assert.Contains(t, said, "config.yaml:1:1")
	assert.Contains(t, said, "curr")
}
