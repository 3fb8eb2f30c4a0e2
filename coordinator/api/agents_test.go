package api_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func TestAgentFilters(t *testing.T) {
	w := start(t)
	early := w.Now()
	old := w.Agent("old1", "db1.example.com", map[string]string{"env": "prod", "role": "db"})
	w.Agent("gone", "gone.example.com", map[string]string{"env": "prod"})
	post[resource.AgentDetail](w, "/api/v1/agents/gone/retire", nil, http.StatusOK)
	old.SafeUntil(early.Add(48 * time.Hour))
	w.Sleep(time.Hour) // old1 is cut off from now on
	fresh := w.Agent("new1", "WEB1.example.com", map[string]string{"env": "prod", "role": "web", "note": "a,b=c"})
	fresh.SafeUntil(early.Add(24 * time.Hour))
	w.Agent("new2", "web2.example.com", nil)

	for query, want := range map[string]string{
		"":                                  "gone new1 new2 old1",
		"state=active":                      "new1 new2 old1",
		"state=retired":                     "gone",
		"label=env%3Dprod":                  "gone new1 old1",
		"label=env%3Dprod&label=role%3Dweb": "new1",
		"label=note%3Da%2Cb%3Dc":            "new1",
		"label=env%3D":                      "",
		"label=env%3Dprod&state=retired":    "gone",
		"connection=connected":              "new1 new2",
		"connection=cut_off":                "old1",
		"connection=cut_off&state=active":   "old1",
		"q=web":                             "new1 new2",
		"q=NEW1":                            "new1",
		"q=old":                             "old1",
		"q=%25":                             "",
		"safe_before=" + stamp(early.Add(25*time.Hour)): "new1",
		"safe_before=" + stamp(early.Add(49*time.Hour)): "new1 old1",
		"safe_before=" + stamp(early.Add(time.Hour)):    "",
		"sort=id":                       "gone new1 new2 old1",
		"sort=safe_until":               "new1 old1",
		"sort=-safe_until":              "old1 new1",
		"sort=-id":                      "old1 new2 new1 gone",
		"sort=hostname":                 "old1 gone new1 new2",
		"sort=-hostname":                "new2 new1 gone old1",
		"sort=hostname&state=active":    "old1 new1 new2",
		"sort=safe_until&state=retired": "",
		"sort=safe_until&q=old":         "old1",
		"sort=safe_until&safe_before=" + stamp(early.Add(25*time.Hour)): "new1",
	} {
		items, _ := all[resource.Agent](w, "/api/v1/agents?"+query, "500")
		assert.Equal(t, strings.Fields(want), idsOf(items, agentID), query)
		one, _ := all[resource.Agent](w, "/api/v1/agents?"+query, "1")
		assert.Equal(t, strings.Fields(want), idsOf(one, agentID), "%s, one at a time", query)
	}

	page := get[resource.Page[resource.Agent]](w, "/api/v1/agents?limit=2")
	require.NotNil(t, page.Total)
	assert.Equal(t, 4, *page.Total, "retired agents are listed, and counted")
	assert.Nil(t, get[resource.Page[resource.Agent]](w, "/api/v1/agents?state=active").Total, "not known at no cost")

	p := w.ask(http.MethodGet, "/api/v1/agents?state=retired&connection=connected", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	assert.Equal(t, "connection", p.Field)
}

// A host that is not safe now comes before all others, with no moment ahead, and
// what asks for a person is counted.
func TestHostsThatAreNotSafe(t *testing.T) {
	w := start(t)
	now := w.Now().UTC().Truncate(time.Second)
	good := w.Agent("good", "good.example.com", nil)
	good.SafeUntil(now.Add(time.Hour))
	bad := w.Agent("zbad", "bad.example.com", nil)
	bad.Report("www", apitest.Valid(now, 48*time.Hour, "www.example.com"))
	lost := wire.Summary{State: wire.StateFailed, Attempt: 3, NeedsAttention: "give credentials"}
	bad.Report("lost", lost)
	bad.NotSafe(1)
	w.Agent("idle", "idle.example.com", nil)

	list := get[resource.Page[resource.Agent]](w, "/api/v1/agents?sort=safe_until")
	assert.Equal(t, []string{"zbad", "good"}, idsOf(list.Items, agentID))
	shown := get[resource.AgentDetail](w, "/api/v1/agents/zbad")
	for _, a := range []resource.Agent{list.Items[0], shown.Agent} {
		assert.Zero(t, a.SafeUntil)
		assert.Equal(t, 1, a.NotSafe)
		assert.Equal(t, 1, a.NeedingAttention)
	}
	assert.Zero(t, list.Items[1].NotSafe)
	assert.Zero(t, list.Items[1].NeedingAttention)
	list = get[resource.Page[resource.Agent]](w, "/api/v1/agents?safe_before="+stamp(now))
	assert.Equal(t, []string{"zbad"}, idsOf(list.Items, agentID))

	status := get[resource.Status](w, "/api/v1/status")
	assert.Zero(t, status.SafeUntil)
	assert.Equal(t, []int{1, 1}, []int{status.NotSafe, status.NeedingAttention})
	assert.Equal(t, []int{1, 1}, []int{status.Agents.NotSafe, status.Agents.NeedingAttention})
	assert.Equal(t, []resource.HostHorizon{
		{AgentID: "zbad", Hostname: "bad.example.com", NotSafe: 1},
		{AgentID: "good", Hostname: "good.example.com", SafeUntil: now.Add(time.Hour)},
	}, status.Earliest)

	lost.NeedsAttention = ""
	bad.Report("lost", lost)
	bad.SafeUntil(now.Add(48 * time.Hour))
	status = get[resource.Status](w, "/api/v1/status")
	assert.Equal(t, now.Add(time.Hour), status.SafeUntil)
	assert.Zero(t, status.NotSafe+status.NeedingAttention+status.Agents.NotSafe+status.Agents.NeedingAttention)

	bad.NotSafe(2)
	bad.Report("lost", wire.Summary{State: wire.StatePending, NeedsAttention: "look"})
	gone := post[resource.RetiredAgent](w, "/api/v1/agents/zbad/retire", nil, http.StatusOK)
	assert.Zero(t, gone.NotSafe+gone.NeedingAttention, "a retired host is nobody's worry")
	assert.Zero(t, get[resource.Status](w, "/api/v1/status").NotSafe)
}

func stamp(at time.Time) string { return url.QueryEscape(at.UTC().Format(time.RFC3339Nano)) }

func TestAgentFacts(t *testing.T) {
	w := start(t)
	before := w.Now().UTC()
	agent := w.Agent("agent1", "web1.example.com", map[string]string{"env": "prod"})
	safe := before.Add(12 * time.Hour).Truncate(time.Second)
	agent.SafeUntil(safe)
	agent.Report("www", apitest.Valid(w.Now(), 48*time.Hour, "www.example.com"))
	agent.Report("api", wire.Summary{State: wire.StatePending})

	shown := get[resource.AgentDetail](w, "/api/v1/agents/agent1")
	assert.Equal(t, "active", shown.State)
	assert.Equal(t, "web1.example.com", shown.Hostname)
	assert.Equal(t, "linux/amd64/1.2.3", shown.OS+"/"+shown.Arch+"/"+shown.Version)
	assert.Equal(t, map[string]string{"env": "prod"}, shown.Labels)
	assert.Equal(t, []string{"**.example.com"}, shown.NamePatterns)
	assert.Equal(t, "tagent1", shown.EnrollmentTokenID)
	assert.Equal(t, resource.Identity{Serial: "0a", Fingerprint: "fagent1", NotAfter: shown.Identity.NotAfter}, shown.Identity)
	assert.True(t, shown.Connected)
	assert.Zero(t, shown.CutOffSince)
	assert.True(t, safe.Equal(shown.SafeUntil))
	assert.Equal(t, 2, shown.Certificates)
	assert.Equal(t, resource.HealthCounts{OK: 1, Unserved: 1}, shown.CertificateHealth)
	assert.WithinDuration(t, before, shown.LastSeen, time.Minute)

	// Three syncs may be missed; TestCutOff knows to the moment.
	w.Sleep(2 * apitest.SyncInterval)
	assert.True(t, get[resource.AgentDetail](w, "/api/v1/agents/agent1").Connected)
	w.Sleep(2 * apitest.SyncInterval)
	shown = get[resource.AgentDetail](w, "/api/v1/agents/agent1")
	assert.False(t, shown.Connected)
	assert.Equal(t, shown.LastSeen, shown.CutOffSince)
	assert.Equal(t, resource.HealthCounts{Unknown: 1, Unserved: 1}, shown.CertificateHealth, "what was well is unknown now")
	assert.True(t, safe.Equal(shown.SafeUntil), "the horizon is what the host was last known to have")

	p := w.ask(http.MethodGet, "/api/v1/agents/"+strings.Repeat("x", 100), nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
	assert.Equal(t, "there is no agent with the id "+strings.Repeat("x", 63)+"...", p.Detail)
	assert.Equal(t, "id", w.ask(http.MethodGet, "/api/v1/agents/"+strings.Repeat("x", 129), nil).problem(t, http.StatusBadRequest, wire.CodeInvalid).Field)
}

func TestRetire(t *testing.T) {
	w := start(t)
	agent := w.Agent("agent1", "web1.example.com", nil)
	agent.Report("www", apitest.Valid(w.Now(), time.Hour, "www.example.com"))
	operator := w.Token(fleet.RoleOperator, 0)

	retired := post[resource.AgentDetail](w.as(operator.Reveal()), "/api/v1/agents/agent1/retire", resource.RetireAgent{Reason: "taken down"}, http.StatusOK)
	assert.Equal(t, "retired", retired.State)
	assert.False(t, retired.Connected)
	assert.NotZero(t, retired.RetiredAt)
	assert.Zero(t, retired.Certificates)
	assert.Zero(t, retired.CutOffSince, "it is not cut off, it is gone")
	assert.Empty(t, get[resource.Page[resource.Certificate]](w, "/api/v1/certificates").Items)

	at := retired.RetiredAt
	w.Sleep(time.Minute)
	assert.Equal(t, at, post[resource.AgentDetail](w, "/api/v1/agents/agent1/retire", nil, http.StatusOK).RetiredAt, "retiring it again changes nothing")
	facts := w.events("/api/v1/audit?kind=agent.retired", 1).Items
	assert.Equal(t, "api_token:"+operator.ID, facts[0].Actor)
	assert.Contains(t, string(facts[0].Detail), "taken down")

	index := w.State().Index()
	w.ask(http.MethodPost, "/api/v1/agents/agent1/retire", `{"reasons": "misspelt"}`).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	assert.Equal(t, index, w.State().Index())
	w.ask(http.MethodPost, "/api/v1/agents/agent2/retire", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
}
