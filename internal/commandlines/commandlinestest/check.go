// Package commandlinestest checks command lines in the tests of the programs.
package commandlinestest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/commandlines"
)

// Check checks the command lines of the tree that are for the program whose commands
// root makes anew, of which there are some at least.
func Check(t *testing.T, root func() *cobra.Command, least int) {
	t.Helper()
	tree, err := filepath.Abs(".")
	require.NoError(t, err)
	for {
		if _, err := os.Stat(filepath.Join(tree, "go.mod")); err == nil {
			break
		}
		require.NotEqual(t, tree, filepath.Dir(tree), "no go.mod above")
		tree = filepath.Dir(tree)
	}
	lines, err := commandlines.Collect(tree)
	require.NoError(t, err)
	name, checked := root().Name(), 0
	for _, line := range lines {
		if line.Program() != name {
			continue
		}
		checked++
		assert.NoError(t, line.Check(root()))
	}
	assert.GreaterOrEqual(t, checked, least, "the rule would hold for next to nothing")
	t.Logf("%d command lines of %s", checked, name)
}
