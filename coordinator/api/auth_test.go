package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func TestEveryTokenThatIsNoGoodIsRefused(t *testing.T) {
	w := start(t)
	short := w.Token(fleet.RoleViewer, time.Minute)
	revoked := w.Token(fleet.RoleAdmin, 0)
	post[resource.APIToken](w, "/api/v1/tokens/"+revoked.ID+"/revoke", nil, http.StatusOK)
	wrongSecret := w.Admin
	wrongSecret.Secret[31] ^= 1
	get[resource.Identified](w.as(short.Reveal()), "/api/v1/whoami")
	w.Sleep(time.Minute)

	before := w.State().Index()
	for name, c := range map[string]struct {
		header []string
		detail string
	}{
		"none":            {nil, "the request has no API token"},
		"another scheme":  {[]string{"Basic YWRtaW46YWRtaW4="}, "the Authorization header is not of the scheme Bearer"},
		"no scheme":       {[]string{w.Admin.Reveal()}, "the Authorization header is not of the scheme Bearer"},
		"malformed":       {[]string{"Bearer hunter2"}, "the API token is malformed: not an API token: expected cta1.<id>.<secret>, as printed when the token was created"},
		"cut short":       {[]string{"Bearer " + w.Admin.Reveal()[:50]}, "the API token is malformed: the secret is cut short or altered: not an API token: expected cta1.<id>.<secret>, as printed when the token was created"},
		"unknown":         {[]string{"Bearer " + apitoken.New().Reveal()}, "the API token is not known here"},
		"a wrong secret":  {[]string{"Bearer " + wrongSecret.Reveal()}, "the API token is not known here"},
		"revoked":         {[]string{"Bearer " + revoked.Reveal()}, `the API token "test admin" was revoked`},
		"expired":         {[]string{"Bearer " + short.Reveal()}, `the API token "test viewer" expired at `},
		"the second good": {[]string{"Bearer hunter2", "Bearer " + w.Admin.Reveal()}, "the API token is malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequest(http.MethodPost, w.URL+"/api/v1/tokens", strings.NewReader(`{"this is": "not even read`))
			require.NoError(t, err)
			request.Header["Authorization"] = c.header
			answer := w.send(request)
			p := answer.problem(t, http.StatusUnauthorized, wire.CodeUnauthorized)
			assert.Contains(t, p.Detail, c.detail)
			assert.Equal(t, `Bearer realm="certctl"`, answer.Header.Get("WWW-Authenticate"))
			assert.NotContains(t, answer.body, "hunter2", "what was sent is not repeated")
			assert.NotContains(t, answer.body, strings.Split(w.Admin.Reveal(), ".")[2])
		})
	}
	assert.Equal(t, before, w.State().Index(), "a refused request changes nothing")
	assert.Empty(t, w.Log.String(), "what clients do wrong is no error of the coordinator")

	t.Run("the scheme has no case, and spaces do no harm", func(t *testing.T) {
		request, err := http.NewRequest(http.MethodGet, w.URL+"/api/v1/whoami", nil)
		require.NoError(t, err)
		request.Header.Set("Authorization", "bearer   "+w.Admin.Reveal())
		who := decode[resource.Identified](t, w.send(request), http.StatusOK)
		assert.Equal(t, resource.Identified{TokenID: w.Admin.ID, Name: "first administrator", Role: "admin"}, who)
	})
}

// operations are all that there are, with the least role that each needs. The
// requests are refused for what they ask, or succeed; what counts is whether
// they come that far.
var operations = []struct {
	id, method, path, body string
	role                   fleet.Role
}{
	{"whoami", http.MethodGet, "/api/v1/whoami", "", fleet.RoleViewer},
	{"show-status", http.MethodGet, "/api/v1/status", "", fleet.RoleViewer},
	{"list-agents", http.MethodGet, "/api/v1/agents", "", fleet.RoleViewer},
	{"show-host-report", http.MethodGet, "/api/v1/reports/sync/none", "", fleet.RoleViewer},
	{"show-agent", http.MethodGet, "/api/v1/agents/none", "", fleet.RoleViewer},
	{"retire-agent", http.MethodPost, "/api/v1/agents/none/retire", "", fleet.RoleOperator},
	{"list-certificates", http.MethodGet, "/api/v1/certificates", "", fleet.RoleViewer},
	{"show-certificate", http.MethodGet, "/api/v1/certificates/none/www", "", fleet.RoleViewer},
	{"show-ca", http.MethodGet, "/api/v1/ca", "", fleet.RoleViewer},
	{"rotate-ca", http.MethodPost, "/api/v1/ca/rotate", `{"authority":"root","step":"retire"}`, fleet.RoleAdmin},
	{"list-issuers", http.MethodGet, "/api/v1/issuers", "", fleet.RoleViewer},
	{"test-issuer", http.MethodPost, "/api/v1/issuers/none/test", "", fleet.RoleOperator},
	{"resume-issuer", http.MethodPost, "/api/v1/issuers/none/resume", "", fleet.RoleOperator},
	{"list-assignments", http.MethodGet, "/api/v1/assignments", "", fleet.RoleViewer},
	{"show-assignment", http.MethodGet, "/api/v1/assignments/none", "", fleet.RoleViewer},
	{"put-assignment", http.MethodPut, "/api/v1/assignments/role?dry_run=true", `{"selector":"*","certificate":{"names":["${hostname}"]}}`, fleet.RoleOperator},
	{"delete-assignment", http.MethodDelete, "/api/v1/assignments/none", "", fleet.RoleOperator},
	{"renew-certificate", http.MethodPost, "/api/v1/certificates/none/www/renew", "", fleet.RoleOperator},
	{"list-agent-commands", http.MethodGet, "/api/v1/agents/none/commands", "", fleet.RoleViewer},
	{"create-renewals", http.MethodPost, "/api/v1/renewals?dry_run=true", `{"selector":"*"}`, fleet.RoleOperator},
	{"list-renewals", http.MethodGet, "/api/v1/renewals", "", fleet.RoleViewer},
	{"list-sync-report", http.MethodGet, "/api/v1/reports/sync", "", fleet.RoleViewer},
	{"list-day-report", http.MethodGet, "/api/v1/reports/days", "", fleet.RoleViewer},
	{"show-renewals", http.MethodGet, "/api/v1/renewals/none", "", fleet.RoleViewer},
	{"cancel-renewals", http.MethodPost, "/api/v1/renewals/none/cancel", "", fleet.RoleOperator},
	{"list-orders", http.MethodGet, "/api/v1/orders", "", fleet.RoleViewer},
	{"show-order", http.MethodGet, "/api/v1/orders/none/none", "", fleet.RoleViewer},
	{"cancel-order", http.MethodPost, "/api/v1/orders/none/none/cancel", "", fleet.RoleOperator},
	{"retry-order", http.MethodPost, "/api/v1/orders/none/none/retry", "", fleet.RoleOperator},
	{"resolve-order", http.MethodPost, "/api/v1/orders/none/none/resolve", `{"action":"give_up","note":"x"}`, fleet.RoleOperator},
	{"list-order-validations", http.MethodGet, "/api/v1/orders/none/none/validations", "", fleet.RoleViewer},
	{"list-jobs", http.MethodGet, "/api/v1/jobs", "", fleet.RoleViewer},
	{"revoke-certificate", http.MethodPost, "/api/v1/revocations", `{"serial":"0a","reason":"superseded"}`, fleet.RoleOperator},
	{"list-members", http.MethodGet, "/api/v1/cluster/members", "", fleet.RoleViewer},
	{"show-cluster-health", http.MethodGet, "/api/v1/cluster/health", "", fleet.RoleViewer},
	{"transfer-leadership", http.MethodPost, "/api/v1/cluster/transfer", `{"to":"none"}`, fleet.RoleAdmin},
	{"remove-member", http.MethodDelete, "/api/v1/cluster/members/none", "", fleet.RoleAdmin},
	{"leave-cluster", http.MethodPost, "/api/v1/cluster/leave", `{"dry_run":true}`, fleet.RoleAdmin},
	{"rotate-cluster-ca", http.MethodPost, "/api/v1/cluster/rotate-ca", "", fleet.RoleAdmin},
	{"diagnose-cluster", http.MethodGet, "/api/v1/cluster/diagnosis", "", fleet.RoleAdmin},
	{"create-join-token", http.MethodPost, "/api/v1/cluster/join-tokens", `{}`, fleet.RoleAdmin},
	{"list-join-tokens", http.MethodGet, "/api/v1/cluster/join-tokens", "", fleet.RoleAdmin},
	{"revoke-join-token", http.MethodDelete, "/api/v1/cluster/join-tokens/none", "", fleet.RoleAdmin},
	{"list-audit", http.MethodGet, "/api/v1/audit", "", fleet.RoleViewer},
	{"show-audit-head", http.MethodGet, "/api/v1/audit/head", "", fleet.RoleViewer},
	{"list-history", http.MethodGet, "/api/v1/history", "", fleet.RoleViewer},
	{"show-history-status", http.MethodGet, "/api/v1/history/status", "", fleet.RoleViewer},
	{"prune-history", http.MethodPost, "/api/v1/history/prune", `{"before":"2020-01-01T00:00:00Z","dry_run":true}`, fleet.RoleAdmin},
	{"create-enrollment-token", http.MethodPost, "/api/v1/enrollment-tokens", `{}`, fleet.RoleOperator},
	{"list-enrollment-tokens", http.MethodGet, "/api/v1/enrollment-tokens", "", fleet.RoleOperator},
	{"revoke-enrollment-token", http.MethodPost, "/api/v1/enrollment-tokens/none/revoke", "", fleet.RoleOperator},
	{"create-api-token", http.MethodPost, "/api/v1/tokens", `{"name":"x","role":"viewer"}`, fleet.RoleAdmin},
	{"list-api-tokens", http.MethodGet, "/api/v1/tokens", "", fleet.RoleAdmin},
	{"revoke-api-token", http.MethodPost, "/api/v1/tokens/none/revoke", "", fleet.RoleAdmin},
	{"rotate-api-token", http.MethodPost, "/api/v1/tokens/SELF/rotate", `{}`, fleet.RoleViewer},
	{"save-snapshot", http.MethodGet, "/api/v1/cluster/snapshot?stale=true", "", fleet.RoleAdmin},
	{"restore-snapshot", http.MethodPut, "/api/v1/cluster/snapshot?dry_run=true", "no snapshot", fleet.RoleAdmin},
}

func TestRolesOfEveryOperation(t *testing.T) {
	w := start(t)
	initClusterCA(w)
	document := decodeText[openAPI](t, w.ask(http.MethodGet, "/openapi.json", nil).body)
	declared := map[string]bool{}
	for _, methods := range document.Paths {
		for _, op := range methods {
			declared[op.OperationID] = true
		}
	}
	for _, role := range []fleet.Role{fleet.RoleViewer, fleet.RoleOperator, fleet.RoleAdmin} {
		own := w.Token(role, 0)
		somebody := w.as(own.Reveal())
		for _, op := range operations {
			var body any
			if op.body != "" {
				body = op.body
			}
			answer := somebody.ask(op.method, strings.ReplaceAll(op.path, "SELF", own.ID), body)
			if role.Includes(op.role) {
				assert.NotEqual(t, http.StatusForbidden, answer.StatusCode, "%s as %s: %s", op.id, role, answer.body)
				assert.Less(t, answer.StatusCode, 500, "%s as %s: %s", op.id, role, answer.body)
				continue
			}
			p := answer.problem(t, http.StatusForbidden, wire.CodeForbidden)
			assert.Contains(t, p.Detail, "has the role "+string(role)+"; this needs "+string(op.role), op.id)
		}
	}
	for _, op := range operations {
		w.as("").ask(op.method, op.path, nil).problem(t, http.StatusUnauthorized, wire.CodeUnauthorized)
		assert.True(t, declared[op.id], op.id)
		delete(declared, op.id)
	}
	assert.Empty(t, declared, "operations that this test does not know")
}
