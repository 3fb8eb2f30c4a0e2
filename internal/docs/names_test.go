package docs

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentconfig "github.com/certctl/certctl/agent/config"
	agentmetrics "github.com/certctl/certctl/agent/metrics"
	coordinatorconfig "github.com/certctl/certctl/coordinator/config"
	coordinatormetrics "github.com/certctl/certctl/coordinator/metrics"
	"github.com/certctl/certctl/shared/settings"
)

// names are those that a page may use of settings, of the API and of metrics.
type names struct {
	settings, sections map[string]bool
	paths              []*regexp.Regexp // of the API
	metrics            map[string]bool
}

var (
	settingSpan = regexp.MustCompile(`^([a-z_]+)(?:\.[a-z0-9_]+)+$`)
	// apiPath is one of certctl's own, also behind the names that its servers have on pages.
	apiPath    = regexp.MustCompile("(?:^|[\\s\"'(`]|https://(?:certctl[\\w.]*|c[0-9][\\w.]*|localhost)(?::[0-9]+)?)(/api/v1(?:/[\\w{}<>.-]+)+)")
	metricName = regexp.MustCompile(`\bcertctl_[a-z_]+\b`)
)

// alike look like settings and are none: a kind of facts, and a file.
var alike = []string{"revocation.unknown", "journal.db"}

func knownNames(t *testing.T) names {
	t.Helper()
	n := names{settings: map[string]bool{}, sections: map[string]bool{}, metrics: map[string]bool{}}
	for _, config := range []any{(*agentconfig.Settings)(nil), (*coordinatorconfig.Settings)(nil)} {
		known := settingNames(t, config)
		maps.Copy(n.settings, known)
		list, err := settings.Describe(config)
		require.NoError(t, err)
		for _, setting := range list {
			if section, _, below := strings.Cut(setting.Path, "."); below {
				n.sections[section] = true
			}
		}
	}
	text, err := os.ReadFile("../../docs/reference/openapi.json")
	require.NoError(t, err)
	var document struct {
		Paths map[string]json.RawMessage `json:"paths"`
	}
	require.NoError(t, json.Unmarshal(text, &document))
	for path := range document.Paths {
		n.paths = append(n.paths, regexp.MustCompile("^"+regexp.MustCompile(`\\\{[^}]*\\\}`).ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`)+"$"))
	}
	require.Greater(t, len(n.paths), 10)
	for _, f := range agentmetrics.Families() {
		n.metrics[f.Name] = true
	}
	for _, f := range coordinatormetrics.Families() {
		n.metrics[f.Name] = true
	}
	return n
}

// strange are the names on a page that nothing has, and found counts those of each kind.
func (n names) strange(page string, found map[string]int) (problems []string) {
	for number, line := range strings.Split(page, "\n") {
		say := func(what, name string) {
			problems = append(problems, fmt.Sprintf("%d: there is no %s %s", number+1, what, name))
		}
		for _, span := range codeSpan.FindAllStringSubmatch(line, -1) {
			setting := settingSpan.FindStringSubmatch(span[1])
			if setting == nil || !n.sections[setting[1]] {
				continue
			}
			found["setting"]++
			if !n.settings[span[1]] && !slices.Contains(alike, span[1]) {
				say("setting", span[1])
			}
		}
		for _, match := range apiPath.FindAllStringSubmatch(line, -1) {
			path := strings.TrimRight(match[1], ".")
			found["path"]++
			if !slices.ContainsFunc(n.paths, func(known *regexp.Regexp) bool { return known.MatchString(path) }) {
				say("path of the API", path)
			}
		}
		for _, at := range metricName.FindAllStringIndex(line, -1) {
			if strings.HasPrefix(line[at[1]:], "*") || strings.HasPrefix(line[at[1]:], "_*") || strings.HasPrefix(line[at[1]:], " metrics") {
				continue // the beginning of several
			}
			metric := line[at[0]:at[1]]
			found["metric"]++
			base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(metric, "_bucket"), "_sum"), "_count")
			if !n.metrics[metric] && !n.metrics[base] {
				say("metric", metric)
			}
		}
	}
	return problems
}

// What pages say of settings, of the API and of metrics is by names that there are.
func TestPagesNameWhatThereIs(t *testing.T) {
	n, found := knownNames(t), map[string]int{}
	for path, text := range written(t) {
		if strings.HasSuffix(path, "CHANGELOG.md") {
			continue // which tells of the past
		}
		for _, problem := range n.strange(text, found) {
			t.Errorf("%s:%s", path, problem)
		}
	}
	for kind, least := range map[string]int{"setting": 50, "path": 2, "metric": 50} {
		assert.GreaterOrEqual(t, found[kind], least, kind)
	}
}

func TestStrangeNamesAreFound(t *testing.T) {
	n := knownNames(t)
	for text, want := range map[string]string{
		"`renewal.concurrency`, `database.url`, `issuers.<name>.limits`, `prometheus.yml`, https://ca.example.com/api/v1/hosts, `certctl_fleet_*`, all certctl_fleet metrics": "",
		"`renewal.concurency`": "1: there is no setting renewal.concurency",
		"`database.gone`":      "1: there is no setting database.gone",
		"`GET /api/v1/agents/ID` and `/api/v1/agents/{agent}`.": "",
		"https://certctl.example.com:8443/api/v1/reports/gone":  "1: there is no path of the API /api/v1/reports/gone",
		"`GET /api/v1/hosts`": "1: there is no path of the API /api/v1/hosts",
		"`certctl_database_lag_seconds`, certctl_raft_store_duration_seconds_bucket": "",
		"certctl_database_gone": "1: there is no metric certctl_database_gone",
	} {
		problems := n.strange(text, map[string]int{})
		if want == "" {
			assert.Empty(t, problems, text)
		} else {
			assert.Equal(t, []string{want}, problems, text)
		}
	}
}
