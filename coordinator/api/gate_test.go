package api_test

import (
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func TestEachTokenHasARate(t *testing.T) {
	w := start(t)
	var mu sync.Mutex
	reasons := map[string]int{}
	now := w.Now()
	w.URL = w.Beside(func(c *api.Config) {
		c.Now = func() time.Time { return now }
		c.Gate = api.NewGate(2, 3, func(reason string) {
			mu.Lock()
			defer mu.Unlock()
			reasons[reason]++
		})
	})
	for range 3 {
		get[resource.Identified](w, "/api/v1/whoami")
	}
	answer := w.ask(http.MethodGet, "/api/v1/whoami", nil)
	p := answer.problem(t, http.StatusTooManyRequests, wire.CodeRateLimited)
	assert.Equal(t, "1", answer.Header.Get("Retry-After"), "whole seconds, rounded up")
	assert.EqualValues(t, 1, p.RetryAfterSeconds)
	assert.Contains(t, p.Detail, "api.rate")
	viewer := w.Token(fleet.RoleViewer, 0)
	other := w.as(viewer.Reveal())
	get[resource.Identified](other, "/api/v1/whoami")

	// An answer that nothing has changed costs a tenth.
	scoped := w.as(w.Token(fleet.RoleViewer, 0).Reveal())
	tag := scoped.tag("/api/v1/agents")
	for i := range 10 {
		require.True(t, scoped.unchanged("/api/v1/agents", tag), strconv.Itoa(i))
	}
	other.ask(http.MethodPost, "/api/v1/ca/rotate", map[string]any{"authority": "root"}).problem(t, http.StatusForbidden, wire.CodeForbidden)
	w.as("").ask(http.MethodGet, "/api/v1/whoami", nil).problem(t, http.StatusUnauthorized, wire.CodeUnauthorized)
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, map[string]int{api.RefusedRate: 1, api.RefusedRole: 1, api.RefusedUnauthorized: 1}, reasons)
}
