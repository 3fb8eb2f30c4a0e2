package store

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The enumeration of crashes counts by steps: two transactions of one step would
// hide each other.
func TestEachTransactionIsAStepOfItsOwn(t *testing.T) {
	call := regexp.MustCompile(`\.write\((\w+), func`)
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	in := map[string]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		calls := call.FindAllSubmatch(text, -1)
		assert.Len(t, calls, strings.Count(string(text), ".write("), "%s: the step is a constant, and the function follows it", name)
		for _, c := range calls {
			step := string(c[1])
			assert.Truef(t, strings.HasPrefix(step, "commit"), "%s: %s", name, step)
			assert.Emptyf(t, in[step], "%s: %s is taken", name, step)
			in[step] = name
		}
	}
	assert.Greater(t, len(in), 20)
}
