package api

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The document in the repository is the one that this code serves. With
// CERTCTL_UPDATE_DOCS set the test writes it.
func TestOpenAPIDocumentIsFresh(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "reference", "openapi.json")
	document, err := OpenAPI()
	require.NoError(t, err)
	if os.Getenv("CERTCTL_UPDATE_DOCS") != "" {
		require.NoError(t, os.WriteFile(path, document, 0o644))
	}
	stored, err := os.ReadFile(path)
	require.NoError(t, err)
	was, is := strings.Split(strings.ReplaceAll(string(stored), "\r\n", "\n"), "\n"), strings.Split(string(document), "\n")
	for i := range min(len(was), len(is)) {
		require.Equal(t, is[i], was[i], "%s:%d: run \"make generate\"", path, i+1)
	}
	require.Len(t, was, len(is), "run \"make generate\"")

	again, err := OpenAPI()
	require.NoError(t, err)
	assert.Equal(t, string(document), string(again), "the document must not depend on the order of maps")
}
