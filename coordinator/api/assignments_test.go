package api_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/wire"
)

const www = "/api/v1/assignments/www"

func put(w *world, path, body string) resource.AssignmentResult {
	w.t.Helper()
	return decode[resource.AssignmentResult](w.t, w.ask(http.MethodPut, path, body), http.StatusOK)
}

func TestAssignments(t *testing.T) {
	w := start(t)
	web := w.Agent("web1", "web1.example.com", map[string]string{"role": "web", "site": "north"})
	w.Agent("web2", "web2.example.org", map[string]string{"role": "web"})
	w.Agent("db1", "db1.example.com", map[string]string{"role": "db"})
	const body = `{"selector":"role in (web)","certificate":{"names":["${hostname}"],"lifetime":"720h"}}`

	dry := put(w, www+"?dry_run=true", body)
	assert.Equal(t, "created", dry.Change)
	assert.True(t, dry.DryRun)
	assert.Equal(t, 1, dry.Hosts.Added)
	assert.Equal(t, 1, dry.Hosts.NotAllowed)
	require.Len(t, dry.Hosts.Items, 2)
	assert.Equal(t, resource.AssignmentChange{AgentID: "web1", Hostname: "web1.example.com", Change: "added", Detail: "web1.example.com"}, dry.Hosts.Items[0])
	assert.Contains(t, dry.Hosts.Items[1].Detail, "web2.example.org")
	w.ask(http.MethodGet, www, nil).problem(t, http.StatusNotFound, wire.CodeNotFound)

	made := put(w, www, body)
	assert.Equal(t, "created", made.Change)
	assert.Equal(t, dry.Hosts, made.Hosts, "the dry run has told the truth")
	assert.Equal(t, "role=web", made.Assignment.Selector)
	assert.EqualValues(t, 1, made.Assignment.Revision)
	assert.Equal(t, "api_token:"+w.Admin.ID, made.Assignment.CreatedBy)
	again := put(w, www, `{"selector":"role=web","certificate":{"lifetime":"30d","names":["${hostname}"]}}`)
	assert.Equal(t, "unchanged", again.Change)
	assert.Equal(t, 1, again.Hosts.Unchanged)

	// What hosts say of it.
	shown := get[resource.AssignmentDetail](w, www)
	assert.Equal(t, 2, shown.Hosts.Matched)
	assert.Equal(t, 1, shown.Hosts.Waiting)
	assert.Equal(t, "not_allowed", shown.Hosts.Items[0].State, "what needs somebody comes first")
	web.Assignment(wire.AssignmentReport{Name: "www", Revision: 1, State: wire.AssignmentShadowed, Detail: "in agent.yaml"})
	shown = get[resource.AssignmentDetail](w, www)
	assert.Equal(t, 1, shown.Hosts.Shadowed)
	assert.Equal(t, "in agent.yaml", shown.Hosts.Items[1].Detail)

	// Changes are conditional if asked for, and say what they do.
	w.ask(http.MethodPut, www, `{"selector":"role=db","certificate":{"names":["${hostname}"]},"revision":7}`).problem(t, http.StatusConflict, wire.CodeConflict)
	changed := put(w, www, `{"selector":"role in (web,db)","certificate":{"names":["${hostname}"]},"revision":1}`)
	assert.Equal(t, "changed", changed.Change)
	assert.Equal(t, 1, changed.Hosts.Added)
	assert.Equal(t, 1, changed.Hosts.Changed)
	assert.True(t, changed.Hosts.Items[1].Shadowed, changed.Hosts.Items)
	assert.Equal(t, 2, get[resource.AssignmentDetail](w, www).Hosts.Waiting, "nobody has said anything of the new revision")

	w.ask(http.MethodDelete, www+"?revision=1", nil).problem(t, http.StatusConflict, wire.CodeConflict)
	for _, query := range []string{"?dry_run=true", "?revision=2"} {
		gone := decode[resource.AssignmentResult](t, w.ask(http.MethodDelete, www+query, nil), http.StatusOK)
		assert.Equal(t, "deleted", gone.Change)
		assert.Equal(t, 2, gone.Hosts.Removed)
	}
	w.ask(http.MethodDelete, www, nil).problem(t, http.StatusNotFound, wire.CodeNotFound)

	for _, kind := range []string{"assignment.created", "assignment.changed", "assignment.deleted"} {
		w.events("/api/v1/audit?kind="+kind, 1)
	}
}

func TestAssignmentsAreReadStrictly(t *testing.T) {
	w := start(t)
	for body, want := range map[string]struct{ field, says string }{
		`{"selector":"role=web","certificate":{"names":["${hostname}"],"isuer":"x"}}`: {"certificate.isuer", `did you mean "issuer"?`},
		`{"selector":"role=web","certificate":{"names":["${host}"]}}`:                 {"certificate.names[0]", "${hostname}"},
		`{"selector":"role=web","certificate":{"name":"x","names":["a.example"]}}`:    {"certificate.name", "unknown key"},
		`{"selector":"role web","certificate":{"names":["${hostname}"]}}`:             {"selector", "a comma should be"},
		`{"selector":"","certificate":{"names":["${hostname}"]}}`:                     {"selector", ""},
		`{"selector":"*","certificate":{"names":["a.example"]},"colour":1}`:           {"colour", ""},
	} {
		p := w.ask(http.MethodPut, www, body).problem(t, http.StatusBadRequest, wire.CodeInvalid)
		assert.Equal(t, want.field, p.Field, body)
		assert.Contains(t, p.Detail, want.says)
	}
	assert.Empty(t, get[resource.Page[resource.Assignment]](w, "/api/v1/assignments").Items)
}

func TestAssignmentsArePaged(t *testing.T) {
	w := start(t)
	for i := range 5 {
		put(w, fmt.Sprintf("/api/v1/assignments/a%d", i), `{"selector":"*","certificate":{"names":["a.example.com"]}}`)
	}
	w.Agent("web1", "web1.example.com", nil)
	first := get[resource.Page[resource.ListedAssignment]](w, "/api/v1/assignments?limit=1&hosts=true")
	assert.Equal(t, &resource.AssignmentCounts{Matched: 1, Waiting: 1}, first.Items[0].Hosts)
	assert.Nil(t, get[resource.Page[resource.ListedAssignment]](w, "/api/v1/assignments").Items[0].Hosts, "only if asked for")
	var names []string
	cursor := ""
	for {
		page := get[resource.Page[resource.Assignment]](w, "/api/v1/assignments?limit=2&cursor="+cursor)
		assert.Equal(t, 5, *page.Total)
		for _, a := range page.Items {
			names = append(names, a.Name)
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	assert.Equal(t, []string{"a0", "a1", "a2", "a3", "a4"}, names)
	w.ask(http.MethodGet, "/api/v1/assignments?cursor=%25", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
}

func TestRenewals(t *testing.T) {
	w := start(t)
	web := w.Agent("web1", "web1.example.com", map[string]string{"env": "prod"})
	web.Report("www", apitest.Valid(w.Now(), 10*24*time.Hour, "www.example.com"))
	web.Report("api", apitest.Valid(w.Now(), 50*24*time.Hour, "api.example.com"))
	w.Agent("db1", "db1.example.com", nil).Report("db", apitest.Valid(w.Now(), 10*24*time.Hour, "db.example.com"))

	one := post[resource.Command](w, "/api/v1/certificates/web1/www/renew", nil, http.StatusAccepted)
	assert.Equal(t, "open", one.State)
	assert.Equal(t, apitest.Valid(w.Now(), 0, "www.example.com").Serial, one.Serial)
	asked := get[resource.Page[resource.Command]](w, "/api/v1/agents/web1/commands")
	require.Len(t, asked.Items, 1)
	assert.Equal(t, one, asked.Items[0])
	w.ask(http.MethodPost, "/api/v1/certificates/web1/none/renew", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)

	const body = `{"selector":"env=prod","over_seconds":21600,"reason":"weak keys"}`
	planned := post[resource.Renewals](w, "/api/v1/renewals?dry_run=true", body, http.StatusAccepted)
	assert.Equal(t, "planned", planned.State)
	assert.Equal(t, 2, planned.Targets)
	assert.Equal(t, []resource.RenewalsHost{{AgentID: "web1", Hostname: "web1.example.com", Remaining: 2}}, planned.Hosts)
	assert.Empty(t, get[resource.Page[resource.Renewals]](w, "/api/v1/renewals").Items)
	assert.Equal(t, 1, post[resource.Renewals](w, "/api/v1/renewals?dry_run=true", `{"selector":"env=prod","expiring_within_seconds":1728000}`, http.StatusAccepted).Targets)
	for pattern, targets := range map[string]int{"**.example.com": 2, "*.example.com": 2, "WWW.example.com": 1, "*.www.example.com": 0, "10.0.0.0/8": 0} {
		assert.Equal(t, targets, post[resource.Renewals](w, "/api/v1/renewals?dry_run=true", `{"selector":"env=prod","name_pattern":"`+pattern+`"}`, http.StatusAccepted).Targets, pattern)
	}
	named := post[resource.Renewals](w, "/api/v1/renewals", `{"selector":"env=prod","name_pattern":"Www.example.com"}`, http.StatusAccepted)
	assert.Equal(t, "www.example.com", named.NamePattern)
	assert.Equal(t, 1, named.Targets)
	assert.Equal(t, "cancelled", post[resource.Renewals](w, "/api/v1/renewals/"+named.ID+"/cancel", nil, http.StatusOK).State)
	assert.Equal(t, "name_pattern", w.ask(http.MethodPost, "/api/v1/renewals", `{"selector":"*","name_pattern":"*"}`).problem(t, http.StatusBadRequest, wire.CodeInvalid).Field)

	begun := post[resource.Renewals](w, "/api/v1/renewals", body, http.StatusAccepted)
	assert.Equal(t, "running", begun.State)
	assert.Equal(t, 2, begun.Remaining)
	renewed := apitest.Valid(w.Now(), 50*24*time.Hour, "api.example.com")
	renewed.Serial = "77"
	web.Report("api", renewed)
	w.Sleep(7 * time.Hour)
	shown := get[resource.Renewals](w, "/api/v1/renewals/"+begun.ID)
	assert.Equal(t, 1, shown.Replaced)
	assert.Equal(t, 1, shown.Remaining)
	assert.Equal(t, 1, shown.Overdue)
	assert.Equal(t, 1, shown.CutOff)
	assert.Equal(t, []resource.RenewalsHost{{AgentID: "web1", Hostname: "web1.example.com", Remaining: 1, Overdue: 1, CutOff: true}}, shown.Hosts)
	assert.Empty(t, get[resource.Page[resource.Renewals]](w, "/api/v1/renewals").Items[0].Hosts, "a list is short")
	renewed.Serial = "78"
	web.Report("www", renewed)
	assert.Equal(t, "done", get[resource.Renewals](w, "/api/v1/renewals/"+begun.ID).State)
	assert.Equal(t, "cancelled", post[resource.Renewals](w, "/api/v1/renewals/"+begun.ID+"/cancel", nil, http.StatusOK).State)
	assert.Len(t, get[resource.Page[resource.Renewals]](w, "/api/v1/renewals").Items, 2)
	for _, refused := range []string{`{"selector":"env=none"}`, `{"selector":"env prod"}`} {
		assert.Equal(t, "selector", w.ask(http.MethodPost, "/api/v1/renewals", refused).problem(t, http.StatusBadRequest, wire.CodeInvalid).Field)
	}
}

func TestRevoke(t *testing.T) {
	w := start(t)
	web := w.Agent("web1", "web1.example.com", nil)
	public := apitest.Valid(w.Now(), 10*24*time.Hour, "www.example.com")
	web.Report("www", public)
	builtin := apitest.Valid(w.Now(), 10*24*time.Hour, "api.example.com")
	web.Issued("api", builtin)
	web.Report("api", builtin)
	stolen := w.Agent("evil", "evil.example.com", nil)
	stolen.Report("mine", builtin)

	// A dry run says who would revoke it, and changes nothing.
	index := w.State().Index()
	planned := post[resource.RevokedCertificate](w, "/api/v1/revocations?dry_run=true", `{"agent_id":"web1","certificate":"www","reason":"superseded"}`, http.StatusAccepted)
	assert.Equal(t, resource.RevokedCertificate{DryRun: true, Serial: public.Serial, AgentID: "web1", Certificate: "www", InService: true, By: "agent"}, planned)
	planned = post[resource.RevokedCertificate](w, "/api/v1/revocations?dry_run=true", `{"agent_id":"web1","certificate":"api","reason":"superseded"}`, http.StatusAccepted)
	assert.Equal(t, resource.RevokedCertificate{DryRun: true, Serial: builtin.Serial, AgentID: "web1", Certificate: "api", InService: true, By: "builtin"}, planned)
	assert.Equal(t, index, w.State().Index())

	// An ACME certificate is its host's to revoke.
	body := fmt.Sprintf(`{"serial":%q,"reason":"keyCompromise"}`, public.Serial)
	told := post[resource.RevokedCertificate](w, "/api/v1/revocations", body, http.StatusAccepted)
	assert.Equal(t, "agent", told.By)
	require.NotNil(t, told.Command)
	assert.Equal(t, "revoke", told.Command.Kind)
	assert.False(t, told.Already)
	told.Already = true
	assert.Equal(t, told, post[resource.RevokedCertificate](w, "/api/v1/revocations", body, http.StatusAccepted), "asked for once")

	// The built-in CA's is revoked at once, and its host replaces it. That it was
	// asked to renew it before does not tell it so.
	post[resource.Command](w, "/api/v1/certificates/web1/api/renew", nil, http.StatusAccepted)
	told = post[resource.RevokedCertificate](w, "/api/v1/revocations", `{"agent_id":"web1","certificate":"api","reason":"superseded"}`, http.StatusAccepted)
	assert.Equal(t, "builtin", told.By)
	require.NotNil(t, told.Command)
	assert.Equal(t, "renew", told.Command.Kind)
	revoked, ok := w.State().View().Revocation(builtin.Serial)
	require.True(t, ok)
	assert.Equal(t, 4, revoked.Reason)
	assert.Equal(t, "api_token:"+w.Admin.ID, revoked.Actor)
	asked, ok := w.State().View().AgentCommand("web1", told.Command.ID)
	require.True(t, ok)
	assert.Equal(t, 4, asked.Reason, "its host is told that it is revoked, why and when")
	assert.True(t, revoked.At.Equal(asked.RevokedAt))
	// It is called revoked although its host has not said so yet.
	shown := get[resource.Certificate](w, "/api/v1/certificates/web1/api")
	assert.Equal(t, resource.HealthRevoked, shown.Health)
	assert.Equal(t, "superseded", shown.Revocation)
	again := post[resource.RevokedCertificate](w, "/api/v1/revocations?dry_run=true", `{"agent_id":"web1","certificate":"api","reason":"superseded"}`, http.StatusAccepted)
	assert.True(t, again.Already)
	assert.Equal(t, told.Command, again.Command)

	// Nobody revokes another's by a lie.
	p := w.ask(http.MethodPost, "/api/v1/revocations", `{"agent_id":"evil","certificate":"mine","reason":"superseded"}`).problem(t, http.StatusConflict, wire.CodeConflict)
	assert.Contains(t, p.Detail, "issued to the agent web1")
	for body, field := range map[string]string{
		`{"reason":"superseded"}`:                                    "serial",
		`{"agent_id":"web1","reason":"superseded"}`:                  "serial",
		`{"agent_id":"web1","certificate":"api","reason":"boredom"}`: "reason",
	} {
		assert.Equal(t, field, w.ask(http.MethodPost, "/api/v1/revocations", body).problem(t, http.StatusBadRequest, wire.CodeInvalid).Field, body)
	}
	w.ask(http.MethodPost, "/api/v1/revocations", `{"serial":"0fff","reason":"superseded"}`).problem(t, http.StatusNotFound, wire.CodeNotFound)

	// Of several with one number, the one that is meant, unless it is there no more.
	stolen.Report("too", public)
	w.ask(http.MethodPost, "/api/v1/revocations", body).problem(t, http.StatusConflict, wire.CodeConflict)
	meant := fmt.Sprintf(`{"agent_id":"web1","certificate":"www","serial":%q,"reason":"superseded"}`, public.Serial)
	assert.Equal(t, "web1", post[resource.RevokedCertificate](w, "/api/v1/revocations?dry_run=true", meant, http.StatusAccepted).AgentID)
	next := public
	next.Serial = "78"
	web.Report("www", next)
	p = w.ask(http.MethodPost, "/api/v1/revocations", meant).problem(t, http.StatusConflict, wire.CodeConflict)
	assert.Contains(t, p.Detail, "any more under the name www")
	meant = fmt.Sprintf(`{"agent_id":"web1","certificate":"www","serial":%q,"reason":"superseded"}`, builtin.Serial)
	assert.Equal(t, resource.RevokedCertificate{DryRun: true, Serial: builtin.Serial, AgentID: "web1", Certificate: "api", By: "builtin", Already: true},
		post[resource.RevokedCertificate](w, "/api/v1/revocations?dry_run=true", meant, http.StatusAccepted))
	assert.Len(t, w.State().View().Revocations(), 1)
}
