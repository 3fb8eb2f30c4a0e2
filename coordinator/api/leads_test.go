package api

import (
	"net/http"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

// What the leader alone can answer is passed on, and nothing else is.
func TestOperationsOfTheLeaderArePassedOn(t *testing.T) {
	mux := http.NewServeMux()
	says := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) })
	}
	for _, pattern := range []string{"GET /api/v1/a/{id}", "POST /api/v1/a/{id}", "GET /api/v1/b"} {
		mux.Handle(pattern, says("here"))
	}
	document := &huma.OpenAPI{Paths: map[string]*huma.PathItem{}}
	led := leads(needs(fleet.RoleViewer, huma.Operation{Method: http.MethodGet, Path: "/api/v1/a/{id}"}))
	kept := needs(fleet.RoleViewer, huma.Operation{Method: http.MethodPost, Path: "/api/v1/a/{id}"})
	other := needs(fleet.RoleViewer, huma.Operation{Method: http.MethodGet, Path: "/api/v1/b"})
	document.Paths["/api/v1/a/{id}"] = &huma.PathItem{Get: &led, Post: &kept}
	document.Paths["/api/v1/b"] = &huma.PathItem{Get: &other}
	assert.Contains(t, led.Description, "Needs the role `viewer`")
	handler := passing(mux, document, mux, says("leader"))
	for _, c := range []struct{ method, path, want string }{
		{http.MethodGet, "/api/v1/a/x", "leader"},
		{http.MethodPost, "/api/v1/a/x", "here"},
		{http.MethodGet, "/api/v1/b", "here"},
	} {
		answer := newAnswer()
		request, err := http.NewRequest(c.method, c.path, nil)
		require.NoError(t, err)
		handler.ServeHTTP(answer, request)
		assert.Equal(t, c.want, answer.body.String(), "%s %s", c.method, c.path)
	}
}
