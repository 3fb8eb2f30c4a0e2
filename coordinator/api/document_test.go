package api

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"
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

// Whoever reads the document need not guess: each operation, parameter, answer and field
// says what it is.
func TestEverythingInTheDocumentIsDescribed(t *testing.T) {
	document := (&server{}).register(http.NewServeMux()).OpenAPI()
	operations := 0
	for path, item := range document.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete, item.Patch, item.Head} {
			if op == nil {
				continue
			}
			operations++
			where := op.Method + " " + path
			assert.NotEmpty(t, op.Summary, where)
			assert.NotEmpty(t, op.Description, where)
			assert.NotEmpty(t, op.Tags, where)
			for _, p := range op.Parameters {
				assert.NotEmpty(t, p.Description, "%s: the parameter %s", where, p.Name)
			}
			for status, response := range op.Responses {
				assert.NotEmpty(t, response.Description, "%s: the answer %s", where, status)
				for name, header := range response.Headers {
					assert.NotEmpty(t, header.Description+header.Schema.Description, "%s: the header %s of the answer %s", where, name, status)
				}
			}
		}
	}
	assert.NotZero(t, operations)
	used := map[string]bool{}
	for name, schema := range document.Components.Schemas.Map() {
		require.NotEmpty(t, name)
		for field, s := range schema.Properties {
			used[field], used[name+"."+field] = true, true
			assert.True(t, s.Description != "" || s.Ref != "", "%s.%s: say what it is in its doc tag, or in fieldWords", name, field)
		}
	}
	for name := range fieldWords {
		assert.True(t, used[name], "fieldWords: there is no field %s", name)
	}
}

// The document is one of OpenAPI 3.1, and its schemas are ones of JSON Schema 2020-12,
// which the examples in them pass.
func TestTheDocumentIsValid(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	load := func(text []byte) any {
		loaded, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		require.NoError(t, err)
		return loaded
	}
	// The schema of the OpenAPI Initiative, as published.
	published, err := os.ReadFile(filepath.Join("testdata", "openapi-3.1.json"))
	require.NoError(t, err)
	const standard = "https://spec.openapis.org/oas/3.1/schema/2022-10-07"
	require.NoError(t, compiler.AddResource(standard, load(published)))
	openAPI, err := compiler.Compile(standard)
	require.NoError(t, err)
	text, err := OpenAPI()
	require.NoError(t, err)
	document := load(text)
	require.NoError(t, openAPI.Validate(document))

	const own = "https://certctl.invalid/openapi.json"
	require.NoError(t, compiler.AddResource(own, document))
	at := func(v any, keys ...string) any {
		for _, key := range keys {
			object, _ := v.(map[string]any)
			v = object[key]
		}
		return v
	}
	schemas, _ := at(document, "components", "schemas").(map[string]any)
	require.NotEmpty(t, schemas)
	examples := 0
	check := func(pointer string, schema any) {
		compiled, err := compiler.Compile(own + "#" + pointer)
		require.NoError(t, err, pointer)
		given, _ := at(schema, "examples").([]any)
		for _, example := range given {
			examples++
			assert.NoError(t, compiled.Validate(example), "%s: the example", pointer)
		}
	}
	for name, schema := range schemas {
		check("/components/schemas/"+name, schema)
		properties, _ := at(schema, "properties").(map[string]any)
		for field, s := range properties {
			check("/components/schemas/"+name+"/properties/"+field, s)
		}
	}
	paths, _ := at(document, "paths").(map[string]any)
	for path, item := range paths {
		operations, _ := item.(map[string]any)
		for method, op := range operations {
			parameters, _ := at(op, "parameters").([]any)
			for i, p := range parameters {
				check(fmt.Sprintf("/paths/%s/%s/parameters/%d/schema", strings.ReplaceAll(strings.ReplaceAll(path, "/", "~1"), "{", "%7B"), method, i), at(p, "schema"))
			}
		}
	}
	assert.Greater(t, examples, 5)

	// It would be noticed.
	broken := load([]byte(strings.Replace(string(text), `"in": "query"`, `"in": "body"`, 1)))
	assert.Error(t, openAPI.Validate(broken))
}
