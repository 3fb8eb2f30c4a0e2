package api_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// divided is a coordinator with one host inside of a scope and one outside, and somebody
// with an admin's token for the scope.
func divided(t *testing.T) (w, inside *world) {
	w = start(t)
	summary := apitest.Valid(w.Now(), 30*24*time.Hour, "www.example.com")
	summary.Serial = "0abc"
	w.Agent("ours", "ours.example.com", map[string]string{"env": "prod", "region": "eu"}).Report("www", summary)
	w.Agent("theirs", "theirs.example.com", map[string]string{"env": "qa"}).Report("www", summary)
	made := post[resource.CreatedAPIToken](w, "/api/v1/tokens", map[string]any{"name": "prod", "role": "admin", "scope": []string{"env=prod"}}, http.StatusCreated)
	assert.Equal(t, []string{"env=prod"}, made.Scope)
	return w, w.as(made.Token)
}

// operations that are about more than some hosts.
var wideOperations = map[string]bool{
	"show-ca": true, "rotate-ca": true, "list-issuers": true, "test-issuer": true, "resume-issuer": true, "list-members": true, "show-cluster-health": true,
	"transfer-leadership": true, "remove-member": true, "leave-cluster": true, "rotate-cluster-ca": true, "diagnose-cluster": true, "create-join-token": true,
	"list-join-tokens": true, "revoke-join-token": true, "list-history": true, "list-day-report": true, "show-history-status": true, "show-audit-head": true, "prune-history": true, "save-snapshot": true, "restore-snapshot": true,
}

func TestOperationsUnderAScope(t *testing.T) {
	w, inside := divided(t)
	initClusterCA(w)
	for _, op := range operations {
		var body any
		if op.body != "" {
			body = op.body
		}
		answer := inside.ask(op.method, op.path, body)
		if !wideOperations[op.id] {
			if answer.StatusCode == http.StatusForbidden {
				assert.Contains(t, []string{"put-assignment", "create-enrollment-token", "create-api-token"}, op.id, answer.body)
			}
			continue
		}
		p := answer.problem(t, http.StatusForbidden, wire.CodeForbidden)
		assert.Contains(t, p.Detail, `limited to the hosts env=prod`, op.id)
		assert.Contains(t, p.Mend, "without a scope", op.id)
	}
	assert.Equal(t, []string{"env=prod"}, get[resource.Identified](inside, "/api/v1/whoami").Scope)
	assert.Equal(t, http.StatusForbidden, inside.ask(http.MethodGet, "/metrics", nil).StatusCode, "figures are of the fleet")
	assert.Equal(t, http.StatusOK, w.ask(http.MethodGet, "/metrics", nil).StatusCode)
}

func TestStatusAndAuditUnderAScope(t *testing.T) {
	w, inside := divided(t)
	status := get[resource.Status](inside, "/api/v1/status")
	assert.Equal(t, 1, status.Agents.Active)
	assert.Zero(t, status.Journal)
	assert.Equal(t, 2, get[resource.Status](w, "/api/v1/status").Agents.Active, "the counts of one are not those of another")
	assert.Equal(t, 1, get[resource.Status](inside, "/api/v1/status").Agents.Active)

	require.Eventually(t, func() bool { return w.Journal.Through() >= w.State().Index() }, time.Minute, time.Millisecond)
	whole := get[resource.Events](w, "/api/v1/audit?scope=all&limit=500")
	var want []string
	for _, event := range whole.Items {
		if event.AgentID == "ours" {
			want = append(want, event.Kind)
		}
	}
	require.NotEmpty(t, want)
	before := inside.tag("/api/v1/audit?scope=all&limit=500")
	assert.NotEqual(t, w.tag("/api/v1/audit?scope=all&limit=500"), before)
	some := get[resource.Events](inside, "/api/v1/audit?scope=all&limit=500")
	assert.Equal(t, want, idsOf(some.Items, func(e resource.Event) string { return e.Kind }))
	assert.Empty(t, get[resource.Events](inside, "/api/v1/audit?scope=all&agent=theirs").Items)
	assert.Empty(t, w.Log.String(), "all of the tags follow from what they are said to")
}

// Whatever names a host outside is answered as if there were none.
func TestChangesOutsideOfAScopeFindNothing(t *testing.T) {
	w, inside := divided(t)
	for _, c := range []struct{ method, path, body string }{
		{http.MethodPost, "/api/v1/agents/%/retire", ""},
		{http.MethodPost, "/api/v1/certificates/%/www/renew", ""},
		{http.MethodPost, "/api/v1/orders/%/o1/cancel", ""},
		{http.MethodPost, "/api/v1/orders/%/o1/retry", ""},
		{http.MethodPost, "/api/v1/orders/%/o1/resolve", `{"action":"give_up","note":"x"}`},
		{http.MethodGet, "/api/v1/orders/%/o1/validations", ""},
		{http.MethodPost, "/api/v1/revocations", `{"agent_id":"%","certificate":"www","reason":"superseded"}`},
	} {
		told := map[string]*wire.Problem{}
		for _, host := range []string{"theirs", "nobody"} {
			var body any
			if c.body != "" {
				body = strings.ReplaceAll(c.body, "%", host)
			}
			p := inside.ask(c.method, strings.ReplaceAll(c.path, "%", host), body).problem(t, http.StatusNotFound, wire.CodeNotFound)
			p.RequestID, p.Detail = "", strings.ReplaceAll(p.Detail, host, "%")
			told[host] = p
		}
		assert.Equal(t, told["nobody"], told["theirs"], c.path)
	}
	const serial = "0abc" // of both
	revoked := post[resource.RevokedCertificate](inside, "/api/v1/revocations", map[string]any{"serial": serial, "reason": "superseded"}, http.StatusAccepted)
	assert.Equal(t, "ours", revoked.AgentID, "there is one")
	w.ask(http.MethodPost, "/api/v1/revocations", map[string]any{"serial": serial, "reason": "superseded"}).problem(t, http.StatusConflict, wire.CodeConflict)

	post[resource.Command](inside, "/api/v1/certificates/ours/www/renew", nil, http.StatusAccepted)
	assert.Empty(t, get[resource.Page[resource.Command]](w, "/api/v1/agents/theirs/commands").Items)
	post[resource.RetiredAgent](inside, "/api/v1/agents/ours/retire", nil, http.StatusOK)
	assert.Equal(t, "active", get[resource.AgentDetail](w, "/api/v1/agents/theirs").State)
}

func TestMassRenewalsAreNarrowedToAScope(t *testing.T) {
	w, inside := divided(t)
	planned := post[resource.Renewals](inside, "/api/v1/renewals?dry_run=true", map[string]any{"selector": "*"}, http.StatusAccepted)
	assert.Equal(t, 1, planned.Targets)
	assert.Equal(t, "env=prod", planned.NarrowedTo)
	begun := post[resource.Renewals](inside, "/api/v1/renewals", map[string]any{"selector": "region=eu", "over_seconds": 3600}, http.StatusAccepted)
	assert.Equal(t, "region=eu,env=prod", begun.Selector)
	assert.Equal(t, "env=prod", begun.NarrowedTo)
	assert.Equal(t, 1, begun.Targets)
	assert.Empty(t, post[resource.Renewals](inside, "/api/v1/renewals?dry_run=true", map[string]any{"selector": "env=prod,region=eu"}, http.StatusAccepted).NarrowedTo)
	inside.ask(http.MethodPost, "/api/v1/renewals", map[string]any{"selector": "env=qa"}).problem(t, http.StatusBadRequest, wire.CodeInvalid)

	wide := post[resource.Renewals](w, "/api/v1/renewals", map[string]any{"selector": "*", "over_seconds": 3600}, http.StatusAccepted)
	assert.Equal(t, 2, wide.Targets)
	inside.ask(http.MethodGet, "/api/v1/renewals/"+wide.ID, nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
	inside.ask(http.MethodPost, "/api/v1/renewals/"+wide.ID+"/cancel", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
	assert.Zero(t, get[resource.Renewals](w, "/api/v1/renewals/"+wide.ID).CancelledAt)
	post[resource.Renewals](inside, "/api/v1/renewals/"+begun.ID+"/cancel", nil, http.StatusOK)
}

func TestAssignmentsUnderAScope(t *testing.T) {
	w, inside := divided(t)
	put := func(who *world, name, selector string) answer {
		return who.ask(http.MethodPut, "/api/v1/assignments/"+name, map[string]any{"selector": selector, "certificate": map[string]any{"names": []string{"${hostname}"}}})
	}
	p := put(inside, "web", "role=web").problem(t, http.StatusForbidden, wire.CodeForbidden)
	assert.Equal(t, "selector", p.Field)
	assert.Contains(t, p.Mend, `"role=web,env=prod"`)
	decode[resource.AssignmentResult](t, put(inside, "web", "env=prod,region=eu"), http.StatusOK)
	decode[resource.AssignmentResult](t, put(inside, "web", "env=prod"), http.StatusOK)

	for _, name := range []string{"all", "qa"} {
		decode[resource.AssignmentResult](t, put(w, name, map[string]string{"all": "*", "qa": "env=qa"}[name]), http.StatusOK)
		p = put(inside, name, "env=prod").problem(t, http.StatusForbidden, wire.CodeForbidden)
		assert.Equal(t, "name", p.Field, "it would be taken from hosts outside")
	}
	items, _ := all[resource.ListedAssignment](inside, "/api/v1/assignments?hosts=true", "50")
	assert.Equal(t, []string{"all", "web"}, idsOf(items, func(a resource.ListedAssignment) string { return a.Name }))
	assert.Equal(t, 1, items[0].Hosts.Matched, "of all hosts one is there")
	inside.ask(http.MethodDelete, "/api/v1/assignments/all", nil).problem(t, http.StatusForbidden, wire.CodeForbidden)
	inside.ask(http.MethodDelete, "/api/v1/assignments/qa", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
	decode[resource.AssignmentResult](t, inside.ask(http.MethodDelete, "/api/v1/assignments/web", nil), http.StatusOK)
}

// racing is a node on which something else is changed just before.
type racing struct {
	api.Node
	before func()
}

func (n *racing) Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error) {
	n.before()
	return n.Node.Propose(ctx, commands...)
}

// A revision that a token with a scope names by itself does not let it change what it has
// not been allowed to.
func TestAnAssignmentThatLeavesAScopeMeanwhile(t *testing.T) {
	w, inside := divided(t)
	definition := func(selector string, revision int) map[string]any {
		return map[string]any{"selector": selector, "certificate": map[string]any{"names": []string{"${hostname}"}}, "revision": revision}
	}
	before := func() {}
	w.URL = w.Beside(func(c *api.Config) {
		c.Node = &racing{c.Node, func() {
			change := before
			before = func() {}
			change()
		}}
	})
	for _, method := range []string{http.MethodPut, http.MethodDelete} {
		path := "/api/v1/assignments/" + strings.ToLower(method)
		decode[resource.AssignmentResult](t, inside.ask(http.MethodPut, path, definition("env=prod", 0)), http.StatusOK)
		before = func() {
			decode[resource.AssignmentResult](t, w.ask(http.MethodPut, path, definition("*", 1)), http.StatusOK)
		}
		target, body := path, any(definition("env=prod,region=eu", 2))
		if method == http.MethodDelete {
			target, body = path+"?revision=2", nil
		}
		inside.ask(method, target, body).problem(t, http.StatusConflict, wire.CodeConflict)
		assert.NotEqual(t, "env=prod,region=eu", get[resource.AssignmentDetail](w, path).Selector)
	}
}

// New hosts of a scope get the names that such hosts have, and no others.
func TestNamesUnderAScope(t *testing.T) {
	w, inside := divided(t)
	wish := func(patterns ...string) map[string]any {
		return map[string]any{"labels": map[string]string{"env": "prod"}, "name_patterns": patterns}
	}
	refused := func(patterns ...string) {
		p := inside.ask(http.MethodPost, "/api/v1/enrollment-tokens", wish(patterns...)).problem(t, http.StatusForbidden, wire.CodeForbidden)
		assert.Equal(t, "name_patterns", p.Field)
		assert.NotEmpty(t, p.Mend)
	}
	own := get[resource.AgentDetail](w, "/api/v1/agents/ours").NamePatterns
	require.NotEmpty(t, own)
	post[resource.CreatedEnrollmentToken](inside, "/api/v1/enrollment-tokens", wish(own...), http.StatusCreated)
	post[resource.CreatedEnrollmentToken](inside, "/api/v1/enrollment-tokens", wish(), http.StatusCreated)
	refused("**.example.org")
	refused(append([]string{"www.example.org"}, own...)...)
	post[resource.CreatedEnrollmentToken](w, "/api/v1/enrollment-tokens", wish("**.example.org"), http.StatusCreated)
	post[resource.RetiredAgent](w, "/api/v1/agents/ours/retire", map[string]any{}, http.StatusOK)
	refused(own...) // the host outside that has them is no reason
}

func TestTokensUnderAScope(t *testing.T) {
	w, inside := divided(t)
	p := inside.ask(http.MethodPost, "/api/v1/enrollment-tokens", map[string]any{"labels": map[string]string{"env": "qa"}}).problem(t, http.StatusForbidden, wire.CodeForbidden)
	assert.Equal(t, "labels", p.Field)
	assert.Contains(t, p.Mend, "env=prod")
	enrol := post[resource.CreatedEnrollmentToken](inside, "/api/v1/enrollment-tokens", map[string]any{"labels": map[string]string{"env": "prod", "site": "x"}}, http.StatusCreated)
	post[resource.EnrollmentToken](inside, "/api/v1/enrollment-tokens/"+enrol.ID+"/revoke", nil, http.StatusOK)
	inside.ask(http.MethodPost, "/api/v1/enrollment-tokens/ttheirs/revoke", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)

	for _, scope := range [][]string{nil, {"env=qa"}, {"env=prod", "env=qa"}, {"region=eu"}} {
		p := inside.ask(http.MethodPost, "/api/v1/tokens", map[string]any{"name": "x", "role": "viewer", "scope": scope}).problem(t, http.StatusForbidden, wire.CodeForbidden)
		assert.Equal(t, "scope", p.Field)
	}
	narrow := post[resource.CreatedAPIToken](inside, "/api/v1/tokens", map[string]any{"name": "x", "role": "viewer", "scope": []string{"env=prod", "region=eu"}}, http.StatusCreated)
	assert.Equal(t, []string{"env=prod", "region=eu"}, narrow.Scope)
	p = w.ask(http.MethodPost, "/api/v1/tokens", map[string]any{"name": "x", "role": "viewer", "scope": []string{"env"}}).problem(t, http.StatusBadRequest, wire.CodeInvalid)
	assert.Equal(t, "scope", p.Field)

	other := w.Token(fleet.RoleViewer, 0)
	items, _ := all[resource.APIToken](inside, "/api/v1/tokens", "50")
	assert.Len(t, items, 2, "itself, and the one that it made")
	for _, verb := range []string{"revoke", "rotate"} {
		var body any
		if verb == "rotate" {
			body = map[string]any{}
		}
		inside.ask(http.MethodPost, "/api/v1/tokens/"+other.ID+"/"+verb, body).problem(t, http.StatusNotFound, wire.CodeNotFound)
		inside.ask(http.MethodPost, "/api/v1/tokens/"+w.Admin.ID+"/"+verb, body).problem(t, http.StatusNotFound, wire.CodeNotFound)
	}
	p = w.ask(http.MethodPost, "/api/v1/tokens/"+w.Admin.ID+"/revoke", nil).problem(t, http.StatusConflict, wire.CodeConflict)
	assert.Contains(t, p.Detail, "without a scope", "an admin of some hosts cannot make tokens for all")
	post[resource.APIToken](inside, "/api/v1/tokens/"+narrow.ID+"/revoke", nil, http.StatusOK)
}

func TestTagsOfTwoScopesAreNeverOne(t *testing.T) {
	w, inside := divided(t)
	twin := w.as(post[resource.CreatedAPIToken](w, "/api/v1/tokens", map[string]any{"name": "twin", "role": "viewer", "scope": []string{"env=prod"}}, http.StatusCreated).Token)
	narrow := w.as(post[resource.CreatedAPIToken](w, "/api/v1/tokens", map[string]any{"name": "eu", "role": "viewer", "scope": []string{"env=prod", "region=eu"}}, http.StatusCreated).Token)
	const path = "/api/v1/certificates"
	assert.Equal(t, inside.tag(path), twin.tag(path), "the same scope has the same answer")
	assert.NotEqual(t, inside.tag(path), w.tag(path))
	assert.NotEqual(t, inside.tag(path), narrow.tag(path), "even if the answer is the same")
	assert.False(t, inside.unchanged(path, w.tag(path)))
	assert.True(t, inside.unchanged(path, inside.tag(path)))
	assert.Len(t, get[resource.Page[resource.Certificate]](w, path).Items, 2)
	assert.Len(t, get[resource.Page[resource.Certificate]](inside, path).Items, 1, "what is kept for one is not given to another")
	before := inside.tag(path)
	w.Agent("more", "more.example.com", map[string]string{"env": "prod"})
	assert.False(t, inside.unchanged(path, before), "who is in the scope is a part of it")
}
