package docs

import (
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	agentconfig "github.com/certctl/certctl/agent/config"
	certctl "github.com/certctl/certctl/coordinator/cli"
	coordinatorconfig "github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/shared/cli"
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

// Every variable that a settings struct declares is known to every program, so
// that programs which share an environment do not warn of each other's, and
// nothing is known that none of them has.
func TestEnvironmentListIsComplete(t *testing.T) {
	agent, err := settings.EnvNames(&agentconfig.Settings{})
	require.NoError(t, err)
	coordinator, err := settings.EnvNames(&coordinatorconfig.Settings{})
	require.NoError(t, err)
	// Variables that are read by hand rather than through a settings struct.
	declared := append([]string{cli.FileVariable}, certctl.Variables()...)
	declared = append(append(declared, agent...), coordinator...)
	slices.Sort(declared)
	known := slices.Sorted(slices.Values(cli.Environment))
	require.Equal(t, slices.Compact(declared), known)
}
