package docs

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/settings"
)

const configurationPage = "../../docs/operator/configuration.md"

// The page in the tree is the one that the structs make. "make generate"
// rewrites it.
func TestConfigurationPageIsFresh(t *testing.T) {
	page, err := Configuration()
	require.NoError(t, err)
	if os.Getenv("CERTCTL_UPDATE_DOCS") != "" {
		require.NoError(t, os.WriteFile(configurationPage, page, 0o644))
	}
	require.NoError(t, settings.Check(configurationPage, page))
}
