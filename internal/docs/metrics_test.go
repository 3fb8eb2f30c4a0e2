package docs

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentmetrics "github.com/certctl/certctl/agent/metrics"
	coordinatormetrics "github.com/certctl/certctl/coordinator/metrics"
	"github.com/certctl/certctl/shared/settings"
)

const metricsPage = "../../docs/reference/metrics.md"

// The page in the tree names every metric. "make generate" rewrites it.
func TestMetricsPageIsFresh(t *testing.T) {
	page := Metrics()
	if os.Getenv("CERTCTL_UPDATE_DOCS") != "" {
		require.NoError(t, os.WriteFile(metricsPage, page, 0o644))
	}
	require.NoError(t, settings.Check(metricsPage, page))
}

// What the text speaks of exists, with the labels that it gives.
func TestRulesAreAboutMetricsThatExist(t *testing.T) {
	labels := map[string][]string{}
	for _, f := range agentmetrics.Families() {
		require.NotContains(t, labels, f.Name, "two metrics of one name")
		labels[f.Name] = f.Labels
	}
	for _, f := range coordinatormetrics.Families() {
		require.NotContains(t, labels, f.Name, "two metrics of one name")
		labels[f.Name] = f.Labels
	}
	named := regexp.MustCompile(`\b(certctl_[a-z_]+)(?:\{([a-z_]+)=)?`).FindAllStringSubmatch(metricsIntroduction, -1)
	require.NotEmpty(t, named)
	for _, found := range named {
		name := strings.TrimSuffix(found[1], "_bucket") // of a histogram
		require.Contains(t, labels, name)
		if found[2] != "" {
			assert.True(t, slices.Contains(labels[name], found[2]), found[0])
		}
	}
}
