package docs

import (
	"bytes"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/report"
	"github.com/certctl/certctl/shared/sheet"
	"github.com/certctl/certctl/shared/wire"
)

// The page about reports says of every column, every sum and every risk what it means,
// and of nothing that there is not.
func TestReportsPageNamesEveryColumn(t *testing.T) {
	page, err := os.ReadFile("../../docs/operator/reports.md")
	require.NoError(t, err)
	var sums, risks []string
	for field := range reflect.TypeFor[resource.FleetStanding]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		sums = append(sums, name)
	}
	for _, risk := range report.Risks {
		risks = append(risks, string(risk))
	}
	reasons := []string{
		string(wire.ReasonUnavailable), string(wire.ReasonLimited), string(wire.ReasonRefused), string(wire.ReasonOrderGone), string(wire.ReasonPending),
		string(wire.ReasonUnknownOutcome), string(wire.ReasonHost), string(wire.ReasonReenrol), string(wire.ReasonNoTurn), string(wire.ReasonDeployment),
		string(wire.ReasonNotInService),
	}
	assert.ElementsMatch(t, columns(t, reflect.TypeFor[resource.HostStanding]()), rowNames(string(page), "column"))
	assert.ElementsMatch(t, columns(t, reflect.TypeFor[resource.DayReport]()), rowNames(string(page), "of a day"))
	assert.Equal(t, reasons, rowNames(string(page), "reason of a failure"))
	assert.ElementsMatch(t, sums, rowNames(string(page), "field"))
	assert.Equal(t, risks, rowNames(string(page), "risk"))
}

// columns are those of a sheet.
func columns(t *testing.T, item reflect.Type) []string {
	t.Helper()
	var header bytes.Buffer
	w := sheet.NewWriter(&header, item)
	require.NoError(t, w.Header())
	require.NoError(t, w.Flush())
	return strings.Split(strings.TrimSpace(header.String()), ",")
}

// rowNames are what the first cells of a table name, by what stands above them.
func rowNames(page, title string) []string {
	_, table, _ := strings.Cut(page, "\n| "+title+" | ")
	table, _, _ = strings.Cut(table, "\n\n")
	var names []string
	for i, line := range strings.Split(table, "\n") {
		if i < 2 {
			continue
		}
		for _, match := range regexp.MustCompile("`([a-z_.]+)`").FindAllStringSubmatch(strings.Split(line, "|")[1], -1) {
			names = append(names, match[1])
		}
	}
	return names
}
