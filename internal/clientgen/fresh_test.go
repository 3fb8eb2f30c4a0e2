package clientgen

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/shared/settings"
)

// The client in the tree is the one of the API as its handlers describe it. "make generate"
// rewrites it; it needs neither docs/reference/openapi.json nor a client that compiles.
func TestClientIsFresh(t *testing.T) {
	path := filepath.Join("..", "..", "coordinator", "client", "operations_gen.go")
	document, err := api.OpenAPI()
	require.NoError(t, err)
	client, err := Generate(document)
	require.NoError(t, err)
	if os.Getenv("CERTCTL_UPDATE_DOCS") != "" {
		require.NoError(t, os.WriteFile(path, client, 0o644))
	}
	require.NoError(t, settings.Check(path, client), "run \"make generate\"")
}
