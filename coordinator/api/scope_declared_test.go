package api

import (
	"net/http"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/fleet"
)

// What is not said is refused; and all of it is said.
func TestEveryOperationSaysWhatAScopeDoes(t *testing.T) {
	s := &server{}
	for path, item := range s.register(http.NewServeMux()).OpenAPI().Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete} {
			if op == nil {
				continue
			}
			rule, said := op.Metadata[scopeKey].(scopeRule)
			assert.True(t, said, "%s %s (%s): say with narrows, ofHost, minds or fleetWide (scope.go) what it does for a token that is limited to some hosts; now it is refused to it", op.Method, path, op.OperationID)
			assert.Contains(t, op.Description, rule.doc, op.OperationID)
		}
	}
	op := huma.Operation{OperationID: "x", Path: "/x/{agent}", Metadata: map[string]any{}}
	assert.False(t, ruleOf(&op).lets)
	assert.Panics(t, func() { ofHost(op, "id") }, "no such parameter")
	assert.Panics(t, func() { narrows(narrows(op)) }, "said twice")
}

func TestParseScope(t *testing.T) {
	scope, problem := parseScope("scope", []string{"region=us", "env=prod", "region=eu", "region=us"})
	assert.Nil(t, problem)
	assert.Equal(t, fleet.Scope{"env": {"prod"}, "region": {"eu", "us"}}, scope)
	assert.Equal(t, []string{"env=prod", "region=eu", "region=us"}, scopeTexts(scope))
	scope, problem = parseScope("scope", nil)
	assert.Nil(t, problem)
	assert.True(t, scope.IsZero())
	for _, text := range []string{"env", "=prod", "env=a b", "env=a,b", "a b=c"} {
		_, problem = parseScope("scope", []string{text})
		if assert.NotNil(t, problem, text) {
			assert.Equal(t, "scope", problem.Field, text)
			assert.NotEmpty(t, problem.Mend)
		}
	}
}

func FuzzParseScope(f *testing.F) {
	f.Add("env=prod", "env=qa")
	f.Add("a=", "b=\x00")
	f.Fuzz(func(t *testing.T, one, two string) {
		scope, problem := parseScope("scope", []string{one, two})
		if problem != nil {
			return
		}
		again, problem := parseScope("scope", scopeTexts(scope))
		assert.Nil(t, problem)
		assert.Equal(t, scope, again)
		assert.True(t, scope.Within(scope))
		assert.True(t, scope.Covers(scope.String()))
	})
}
