package clientgen

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// of is a document with one operation.
func of(parts ...string) []byte {
	parts = append([]string{`"operationId":"list-api-tokens"`, `"summary":"List tokens"`}, parts...)
	return []byte(`{"paths":{"/api/v1/tokens/{id}":{"get":{` + strings.Join(parts, ",") + `}}},"components":{"schemas":{
		"Token":{"type":"object"},
		"PageToken":{"properties":{"items":{"type":"array","items":{"$ref":"#/components/schemas/Token"}},"next_cursor":{"type":"string"}}},
		"Tokens":{"properties":{"items":{"type":"array","items":{"$ref":"#/components/schemas/Token"}},"next_cursor":{"type":"string"},"lost":{"type":"integer"}}}
	}}}`)
}

func parameters(more ...string) string {
	more = append([]string{`{"name":"id","in":"path","required":true,"description":"Its id.","schema":{"type":"string"}}`}, more...)
	return `"parameters":[` + strings.Join(more, ",") + `]`
}

func inQuery(name, schema string) string {
	return `{"name":"` + name + `","in":"query","description":"What it is.","schema":` + schema + `}`
}

const (
	cursor  = `{"name":"cursor","in":"query","description":"Where to begin.","schema":{"type":"string"}}`
	limit   = `{"name":"limit","in":"query","description":"How many.","schema":{"type":"integer"}}`
	answers = `"responses":{"200":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Token"}}}},"default":{"content":{"application/problem+json":{}}}}`
)

func TestWhatIsGenerated(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		document []byte
		has      []string
		hasNot   []string
	}{
		"one": {
			of(parameters(inQuery("dry_run", `{"type":"boolean"}`), inQuery("min_index", `{"type":"integer"}`), `{"name":"If-Match","in":"header","schema":{"type":"string"}}`), answers),
			[]string{
				"ListAPITokensParams struct", "// ListAPITokens (list-api-tokens): list tokens.", "DryRun bool", `query.flag("dry_run", p.DryRun)`,
				`path: "/api/v1/tokens" + Path(params.ID), query: params.query()`, "(*resource.Token, error)",
			},
			[]string{"MinIndex", "Match", "AllAPITokens"},
		},
		"a list": {
			of(parameters(cursor, limit), strings.Replace(answers, "Token\"", "PageToken\"", 1)),
			[]string{"(*resource.Page[resource.Token], error)", "func (c *Client) AllAPITokens(", "iter.Seq2[resource.Token, error]", "return c.ListAPITokens(ctx, p, options...)"}, nil,
		},
		"a list with more": {
			of(parameters(cursor, limit), strings.Replace(answers, "Token\"", "Tokens\"", 1)),
			[]string{"(*resource.Tokens, error)", "return &answer.Page, nil"}, nil,
		},
		"a list on one page": {
			of(parameters(), strings.Replace(answers, "Token\"", "PageToken\"", 1)),
			[]string{"(*resource.Page[resource.Token], error)"}, []string{"AllAPITokens"},
		},
		"two forms of an answer": {
			of(parameters(inQuery("since", `{"type":"string","format":"date-time"}`), inQuery("format", `{"type":"string"}`)),
				`"responses":{"200":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Token"}},"text/csv":{"schema":{"type":"string"}}}}}`),
			[]string{
				"func (c *Client) ListAPITokens(ctx context.Context, params ListAPITokensParams, options ...Option) (*resource.Token, error)",
				"func (c *Client) ListAPITokensCSV(ctx context.Context, params ListAPITokensParams, out io.Writer, most int64, options ...Option) error", `accept: "text/csv"`,
			},
			[]string{"ListAPITokensCSVParams", "Format"},
		},
		"kinds of parameters": {
			of(parameters(inQuery("a", `{"type":["array","null"],"items":{"type":"string","enum":["x","y"]}}`),
				`{"name":"b","in":"query","explode":true,"description":"What it is.","schema":{"type":"array","items":{"type":"string"}}}`,
				inQuery("c", `{"type":"integer","minimum":0}`), inQuery("d", `{"type":"string","enum":["p","q"]}`)), answers),
			[]string{`query.joined("a", p.A)`, `query.repeated("b", p.B)`, `query.count("c", p.C)`, "// What it is. One of: x, y.", "// What it is. One of: p, q."}, nil,
		},
		"a document that may be left out": {
			of(parameters(), `"requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Token"}}}}`, answers),
			[]string{"body *resource.Token", "if body != nil"}, nil,
		},
		"a document that may not": {
			of(parameters(), `"requestBody":{"required":true,"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Token"}}}}`, answers),
			[]string{"body resource.Token", "in: body"}, []string{"if body != nil"},
		},
		"a stream": {
			of(parameters(), `"requestBody":{"required":true,"content":{"application/x":{"schema":{"type":"string"}}}}`, answers),
			[]string{"body io.Reader", `send[resource.Token](ctx, c, request, "application/x", body, options)`}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := Generate(c.document)
			require.NoError(t, err)
			for _, part := range c.has {
				assert.Contains(t, string(text), part)
			}
			for _, part := range c.hasNot {
				assert.NotContains(t, string(text), part)
			}
		})
	}
}

// What the client could not say is an error, and not a method that does something else.
func TestWhatCannotBeGenerated(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		document []byte
		text     string
	}{
		"no document":              {[]byte("{"), "read the OpenAPI document"},
		"on unless said otherwise": {of(parameters(inQuery("deep", `{"type":"boolean","default":true}`)), answers), "parameter deep"},
		"a number below zero":      {of(parameters(inQuery("n", `{"type":"integer"}`)), answers), "parameter n"},
		"several types":            {of(parameters(inQuery("n", `{"type":["string","integer"]}`)), answers), "no single one"},
		"numbers":                  {of(parameters(inQuery("n", `{"type":"array","items":{"type":"integer"}}`)), answers), "parameter n"},
		"a number in the path":     {of(`"parameters":[{"name":"id","in":"path","description":"x","schema":{"type":"integer","minimum":0}}]`, answers), "part of the path"},
		"no such parameter":        {of(answers), "{id} is not among the parameters"},
		"an undescribed one":       {of(`"parameters":[{"name":"id","in":"path","schema":{"type":"string"}}]`, answers), "no description"},
		"no answer":                {of(parameters(), `"responses":{"default":{}}`), "no answer"},
		"an unnamed answer":        {of(parameters(), `"responses":{"200":{"content":{"application/json":{"schema":{"type":"object"}}}}}`), "no name"},
		"a cursor without a page":  {of(parameters(cursor, limit), answers), "no page"},
		"two kinds of a body":      {of(parameters(), `"requestBody":{"content":{"a/b":{},"a/c":{}}}`, answers), "not of one type"},
		"no summary":               {[]byte(strings.Replace(string(of(parameters(), answers)), "List tokens", "", 1)), "no summary"},
		"a list by another name": {
			[]byte(strings.Replace(string(of(parameters(cursor, limit), strings.Replace(answers, "Token\"", "PageToken\"", 1))), "list-api-tokens", "tokens", 1)),
			"does not begin with list-",
		},
		"the same name twice": {
			[]byte(strings.Replace(string(of(parameters(), answers)), `{"/api`, `{"/again":{"get":{"operationId":"list_api_tokens","summary":"x",`+answers+`}},"/api`, 1)),
			"two operations would both be ListAPITokens",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Generate(c.document)
			assert.ErrorContains(t, err, c.text)
		})
	}
}
