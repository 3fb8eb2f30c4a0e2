package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The documentation is made from the table of variables: what is read must come
// from there.
func TestNoVariableIsReadBesideTheTable(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	require.Contains(t, files, "environment.go")
	for _, file := range files {
		if file == "environment.go" || strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, call := range []string{"os.Getenv", "os.LookupEnv", "os.Environ"} {
			assert.NotContains(t, string(text), call, "%s", file)
		}
	}
	seen := map[string]bool{}
	for _, name := range Variables() {
		assert.False(t, seen[name], name)
		seen[name] = true
		t.Setenv(name, "value of "+name)
	}
	for _, v := range variables {
		assert.Equal(t, "value of "+v.name, v.value())
	}
}
