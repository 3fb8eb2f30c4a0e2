package clientgen

import (
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api"
)

// A line of the page that asks the API: its options, then the path and query.
var requestLine = regexp.MustCompile(`(?m)^.*\bapi ([^\n]*)"\$SERVER(/api/v1/[^"?]*)(?:\?([^"]*))?"`)

// What the page has curl ask for is an operation, with parameters that it has.
func TestRequestsOfThePageAreOperations(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/reference/api.md")
	require.NoError(t, err)
	document, err := api.OpenAPI()
	require.NoError(t, err)
	operations, err := Read(document)
	require.NoError(t, err)
	lines := requestLine.FindAllStringSubmatch(string(page), -1)
	require.Len(t, lines, strings.Count(string(page), `"$SERVER/`), "every request is looked at")
	require.NotEmpty(t, lines)
	for _, line := range lines {
		method, path := "GET", line[2]
		if strings.Contains(line[1], "--request POST") {
			method = "POST"
		}
		query, err := url.ParseQuery(line[3])
		require.NoError(t, err)
		var found []Operation
		for _, op := range operations {
			if op.Method == method && matches(op.Path, path) {
				found = append(found, op)
			}
		}
		if !assert.NotEmpty(t, found, "%s %s is no operation", method, path) {
			continue
		}
		for name := range query {
			has := false
			for _, p := range found[0].Params {
				has = has || p.Parameter == name && p.InQuery()
			}
			assert.True(t, has, "%s has no parameter %s", found[0].ID, name)
		}
	}
}

func matches(pattern, path string) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i] != got[i] && !strings.HasPrefix(want[i], "{") {
			return false
		}
	}
	return true
}
