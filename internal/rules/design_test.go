package rules

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// designed are the packages with a contract about durability or concurrency,
// which must say on a page of their own why it is as it is.
var designed = []string{
	"agent/clock", "agent/cmd/certctl-agent", "agent/command", "agent/control", "agent/deploy/command", "agent/deploy/file",
	"agent/enroll", "agent/issuer/acme", "agent/keys", "agent/metrics", "agent/renewal", "agent/revocation", "agent/store", "agent/sync",
	"coordinator/agentapi", "coordinator/api", "coordinator/backup", "coordinator/ca", "coordinator/cluster", "coordinator/clusterca",
	"coordinator/daybook", "coordinator/desired", "coordinator/fleet", "coordinator/history", "coordinator/history/postgres", "coordinator/issuers", "coordinator/join", "coordinator/metrics", "coordinator/orders",
	"coordinator/pass", "coordinator/peer", "coordinator/recovery", "coordinator/report", "coordinator/revocation", "coordinator/server",
	"coordinator/standing", "coordinator/trail", "internal/clusterfaults",
	"shared/durable", "shared/jitter", "shared/runner", "shared/service", "shared/tlsutil", "shared/trust",
}

// The list and the pages are the same: none is missing, empty or without a
// package, and a new one is named here.
func TestPackagesWithAContractHaveADesign(t *testing.T) {
	var found []string
	require.NoError(t, filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != "../.." {
			return filepath.SkipDir
		}
		if entry.Name() != "DESIGN.md" {
			return nil
		}
		dir, err := filepath.Rel("../..", filepath.Dir(path))
		if err != nil {
			return err
		}
		found = append(found, filepath.ToSlash(dir))
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		assert.True(t, strings.HasPrefix(string(text), "# "), "%s has no title", path)
		assert.Greater(t, len(text), 1000, "%s says next to nothing", path)
		sources, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.go"))
		assert.NotEmpty(t, sources, "%s is about no package", path)
		return err
	}))
	assert.ElementsMatch(t, designed, found, "DESIGN.md")
}
