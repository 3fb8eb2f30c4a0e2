package api_test

import (
	"net/http"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api"
)

// openAPI is what the tests read of the document.
type openAPI struct {
	OpenAPI string                          `json:"openapi"`
	Paths   map[string]map[string]operation `json:"paths"`
}

type operation struct {
	OperationID string                `json:"operationId"`
	Summary     string                `json:"summary"`
	Security    []map[string][]string `json:"security"`
	Responses   map[string]struct {
		Content map[string]any `json:"content"`
	} `json:"responses"`
}

func TestServedDocument(t *testing.T) {
	w := start(t).as("")
	written, err := api.OpenAPI()
	require.NoError(t, err)

	asJSON := w.ask(http.MethodGet, "/openapi.json", nil)
	require.Equal(t, http.StatusOK, asJSON.StatusCode)
	assert.Equal(t, "application/vnd.oai.openapi+json", asJSON.Header.Get("Content-Type"))
	assert.JSONEq(t, string(written), asJSON.body)

	asYAML := w.ask(http.MethodGet, "/openapi.yaml", nil)
	require.Equal(t, http.StatusOK, asYAML.StatusCode)
	assert.Equal(t, "application/vnd.oai.openapi", asYAML.Header.Get("Content-Type"))
	converted, err := yaml.YAMLToJSON([]byte(asYAML.body))
	require.NoError(t, err)
	assert.JSONEq(t, string(written), string(converted))

	document := decodeText[openAPI](t, asJSON.body)
	assert.Equal(t, "3.1.0", document.OpenAPI)
	require.NotEmpty(t, document.Paths)
	for path, methods := range document.Paths {
		for method, op := range methods {
			where := method + " " + path
			assert.NotEmpty(t, op.Summary, where)
			assert.Equal(t, []map[string][]string{{"api_token": {}}}, op.Security, where)
			assert.Contains(t, op.Responses["default"].Content, "application/problem+json", where)
		}
	}
}
