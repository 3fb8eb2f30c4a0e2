package api_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// events reads a page of the journal, which is written a moment after a change
// is stored, when it has a number of facts.
func (w *world) events(path string, count int) resource.Page[resource.Event] {
	w.t.Helper()
	var page resource.Page[resource.Event]
	require.Eventually(w.t, func() bool {
		page = get[resource.Page[resource.Event]](w, path)
		return len(page.Items) == count
	}, 60*time.Second, 5*time.Millisecond, "%s has not %d facts", path, count)
	return page
}

func kindsOf(events []resource.Event) string {
	var kinds []string
	for _, event := range events {
		kinds = append(kinds, event.Kind)
	}
	return strings.Join(kinds, " ")
}

func TestAudit(t *testing.T) {
	w := start(t)
	operator := w.Token(fleet.RoleOperator, 0)
	asOperator := w.as(operator.Reveal())
	token := post[resource.CreatedEnrollmentToken](asOperator, enrollmentTokens,
		resource.CreateEnrollmentToken{Description: "rack 7", NamePatterns: []string{"*.example.com"}}, http.StatusCreated)
	post[resource.EnrollmentToken](asOperator, enrollmentTokens+"/"+token.ID+"/revoke", nil, http.StatusOK)
	agent := w.Agent("agent1", "web1.example.com", nil)
	agent.Event(wire.EventRenewed, "www", "serial 0a")
	agent.Event(wire.EventFailed, "www", "no route")
	post[resource.AgentDetail](asOperator, "/api/v1/agents/agent1/retire", resource.RetireAgent{Reason: "rack is gone"}, http.StatusOK)
	post[resource.APIToken](w, apiTokens+"/"+operator.ID+"/revoke", nil, http.StatusOK)

	trail := w.events("/api/v1/audit?order=oldest", 11).Items
	assert.Equal(t, "audit.chain_begun ca.created ca.changed api_token.created api_token.created enrollment_token.created enrollment_token.revoked "+
		"enrollment_token.created agent.enrolled agent.retired api_token.revoked", kindsOf(trail))
	for i, fact := range trail {
		assert.EqualValues(t, i+1, fact.Audit, "numbered without a hole")
		assert.NotZero(t, fact.Time)
		assert.NotEmpty(t, fact.Actor)
	}
	created := trail[5]
	assert.Equal(t, "api_token:"+operator.ID, created.Actor)
	assert.Equal(t, token.ID, created.Object)
	assert.Contains(t, string(created.Detail), "rack 7")
	assert.Equal(t, "enrollment_token:tagent1", trail[8].Actor)
	assert.Equal(t, "agent1", trail[8].AgentID)
	assert.Equal(t, "api_token:"+w.Admin.ID, trail[10].Actor)

	newest, _ := all[resource.Event](w, "/api/v1/audit", "2")
	require.Len(t, newest, 11)
	for i := range newest {
		assert.Equal(t, trail[len(trail)-1-i], newest[i])
	}
	for query, want := range map[string]string{
		"kind=agent.enrolled":                            "agent.enrolled",
		"kind=agent.enrolled%2Cagent.retired":            "agent.retired agent.enrolled",
		"kind=certificate.renewed":                       "",
		"scope=all&kind=certificate.renewed":             "certificate.renewed",
		"agent=agent1":                                   "agent.retired agent.enrolled",
		"scope=all&agent=agent1&order=oldest":            "agent.enrolled certificate.renewed certificate.failed agent.retired",
		"scope=all&object=www":                           "certificate.failed certificate.renewed",
		"object=" + token.ID:                             "enrollment_token.revoked enrollment_token.created",
		"object=" + token.ID + "&kind=api_token.created": "",
		"scope=audit&agent=agent1&order=newest":          "agent.retired agent.enrolled",
		"actor=local&order=oldest":                       "audit.chain_begun ca.created ca.changed api_token.created api_token.created enrollment_token.created",
		"actor=agent%3Aagent1&scope=all":                 "certificate.failed certificate.renewed",
		"from=10&order=oldest":                           "agent.retired api_token.revoked",
		"from=10&scope=all":                              "api_token.revoked agent.retired",
		"from=12":                                        "",
		"until=2020-01-01T00%3A00%3A00Z":                 "",
		"since=2020-01-01T00%3A00%3A00Z&actor=nobody":    "",
		"since=" + url.QueryEscape(trail[10].Time.Format(time.RFC3339Nano)) + "&kind=api_token.revoked": "api_token.revoked",
		"until=" + url.QueryEscape(trail[10].Time.Format(time.RFC3339Nano)) + "&kind=api_token.revoked": "",
	} {
		items, _ := all[resource.Event](w, "/api/v1/audit?"+query, "1")
		assert.Equal(t, want, kindsOf(items), query)
	}
	for query, field := range map[string]string{"from=x": "from", "from=-1": "from", "since=yesterday": "since", "until=1": "until", "scope=none": "scope", "order=best": "order", "kind=" + strings.Repeat("a,", 51): "kind"} {
		assert.Equal(t, field, w.ask(http.MethodGet, "/api/v1/audit?"+query, nil).problem(t, http.StatusBadRequest, wire.CodeInvalid).Field)
	}
}
