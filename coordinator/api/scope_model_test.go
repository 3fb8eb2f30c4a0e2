package api_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/selector"
)

// Random things happen to a cluster, and what a token with a scope is then shown of each
// list is what everybody is shown, less what is of other hosts: to the octet, and page by
// page.
func TestListsUnderAScopeArePartsOfTheWhole(t *testing.T) {
	cluster := newTagCluster(t)
	cluster.apart = true
	rapid.Check(t, func(t *rapid.T) {
		m := newTagModel(t, cluster)
		for range rapid.IntRange(0, 30).Draw(t, "changes") {
			m.change(t)
		}
		m.pass(t)
		scope := fleet.Scope{"env": {"prod"}}
		inside := map[string]bool{}
		var active []map[string]string
		for _, raw := range m.list(t, m.token, "/api/v1/agents") {
			agent := shown(t, raw)
			if inside[agent.ID] = scope.Allows(agent.Labels); inside[agent.ID] && agent.State == "active" {
				active = append(active, agent.Labels)
			}
		}
		for path, there := range map[string]func(item) bool{
			"/api/v1/agents":                           func(i item) bool { return inside[i.ID] },
			"/api/v1/agents?sort=safe_until":           func(i item) bool { return inside[i.ID] },
			"/api/v1/agents?connection=cut_off":        func(i item) bool { return inside[i.ID] },
			"/api/v1/certificates":                     func(i item) bool { return inside[i.AgentID] },
			"/api/v1/certificates?health=expired":      func(i item) bool { return inside[i.AgentID] },
			"/api/v1/certificates?health=ok,unknown":   func(i item) bool { return inside[i.AgentID] },
			"/api/v1/certificates?q=example":           func(i item) bool { return inside[i.AgentID] },
			"/api/v1/certificates?serial=s0":           func(i item) bool { return inside[i.AgentID] },
			"/api/v1/orders":                           func(i item) bool { return inside[i.AgentID] },
			"/api/v1/orders?open=true&issuer=digicert": func(i item) bool { return inside[i.AgentID] },
			"/api/v1/jobs?ended=true": func(i item) bool {
				if i.Kind == "mass_renewal" {
					return scope.Covers(i.Object)
				}
				return inside[i.AgentID]
			},
			"/api/v1/renewals": func(i item) bool { return scope.Covers(i.Selector) },
			"/api/v1/assignments": func(i item) bool {
				chosen, err := selector.Parse(i.Selector)
				require.NoError(t, err)
				return scope.Covers(i.Selector) || slices.ContainsFunc(active, chosen.Matches)
			},
			"/api/v1/reports/sync":      func(i item) bool { return inside[i.AgentID] },
			"/api/v1/tokens":            func(i item) bool { return slices.Equal(i.Scope, []string{"env=prod"}) },
			"/api/v1/enrollment-tokens": func(i item) bool { return scope.Allows(i.Labels) },
		} {
			var want []string
			for _, raw := range m.list(t, m.token, path) {
				if there(shown(t, raw)) {
					want = append(want, raw)
				}
			}
			require.Equal(t, want, m.list(t, m.scoped, path), path)
		}
		// What is asked for by its name is not there, just as if it had never been.
		for _, agent := range m.agents {
			for _, path := range []string{"/api/v1/agents/%", "/api/v1/agents/%/commands", "/api/v1/certificates/%/www0", "/api/v1/orders/%/x1", "/api/v1/certificates?agent=%", "/api/v1/jobs?agent=%", "/api/v1/orders?agent=%"} {
				if inside[agent] {
					require.Equal(t, m.body(m.token, path, agent), m.body(m.scoped, path, agent), path)
					continue
				}
				answer := m.sendAs(m.nodes[0], m.scoped, strings.ReplaceAll(path, "%", agent), "")
				require.Equal(t, http.StatusNotFound, answer.Code, path)
				require.Equal(t, strings.ReplaceAll(m.body(m.scoped, path, "never"), "never", agent), m.body(m.scoped, path, agent), path)
			}
		}
	})
}

// item is what the items of lists say of where they belong.
type item struct {
	ID       string            `json:"id"`
	AgentID  string            `json:"agent_id"`
	State    string            `json:"state"`
	Kind     string            `json:"kind"`
	Object   string            `json:"object"`
	Selector string            `json:"selector"`
	Labels   map[string]string `json:"labels"`
	Scope    []string          `json:"scope"`
}

func shown(t *rapid.T, raw string) (i item) {
	require.NoError(t, json.Unmarshal([]byte(raw), &i))
	return i
}

// list follows a list to its end.
func (m *tagModel) list(t *rapid.T, token apitoken.Token, path string) (items []string) {
	joint := "?"
	if strings.Contains(path, "?") {
		joint = "&"
	}
	for cursor := ""; ; {
		paging := joint + "limit=3&cursor=" + cursor
		if path == "/api/v1/renewals" {
			paging = "" // it is on one page
		}
		answer := m.sendAs(m.nodes[0], token, path+paging, "")
		require.Equal(t, http.StatusOK, answer.Code, "%s: %s", path, answer.Body)
		var page struct {
			Items      []json.RawMessage `json:"items"`
			NextCursor string            `json:"next_cursor"`
			Total      *int              `json:"total"`
		}
		require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &page))
		for _, one := range page.Items {
			items = append(items, string(one))
		}
		if cursor = page.NextCursor; cursor == "" {
			if page.Total != nil {
				require.Len(t, items, *page.Total, path)
			}
			return items
		}
	}
}

// body is an answer without the id of its request.
func (m *tagModel) body(token apitoken.Token, path, agent string) string {
	answer := m.sendAs(m.nodes[0], token, strings.ReplaceAll(path, "%", agent), "")
	text, _, _ := strings.Cut(answer.Body.String(), `,"request_id"`)
	return text
}
