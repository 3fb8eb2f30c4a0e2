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
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/shared/wire"
)

// A host has no account at an authority behind the coordinator, and cannot have it
// revoke: the coordinator does.
func TestTheAuthorityOfAnOrderRevokes(t *testing.T) {
	w := start(t)
	web := w.Agent("web1", "web1.example.com", nil)
	web.AtEveryStage()
	order := get[resource.Order](w, orderPath("web1", fleet.StageDelivered))
	summary := apitest.Valid(w.Now(), 10*24*time.Hour, "www.example.com")
	summary.Serial, summary.Fingerprint, summary.Issuer = order.Serial, order.Fingerprint, "coordinator/ov"
	web.Report("delivered", summary)
	w.Agent("evil", "evil.example.com", nil).Report("mine", summary)
	const path = "/api/v1/revocations"
	body := `{"agent_id":"web1","certificate":"delivered","reason":"keyCompromise"}`
	engine := &someOrders{err: &connector.Error{Class: connector.ClassRetry, Detail: "connection refused"}}
	w.UseOrders(engine)

	index := w.State().Index()
	planned := post[resource.RevokedCertificate](w, path+"?dry_run=true", body, http.StatusAccepted)
	assert.Equal(t, resource.RevokedCertificate{
		DryRun: true, Serial: order.Serial, AgentID: "web1", Certificate: "delivered", InService: true, By: "authority", OrderID: order.ID, Issuer: "ov",
	}, planned)
	assert.Equal(t, index, w.State().Index())
	assert.Empty(t, engine.asked)

	// What the authority does not do is no success, and its host is not told that it is
	// revoked.
	p := w.ask(http.MethodPost, path, body).problem(t, http.StatusServiceUnavailable, wire.CodeUnavailable)
	assert.Contains(t, p.Detail, "NOT REVOKED: connection refused")
	assert.Equal(t, []string{"revoke web1/" + order.ID + " for 1"}, engine.asked)
	assert.Empty(t, w.State().View().AgentCommands("web1"))
	assert.Equal(t, "connection refused", get[resource.Order](w, orderPath("web1", fleet.StageDelivered)).Revocation.Failure)
	for _, c := range []struct {
		err  error
		text string
	}{
		{orders.ErrUnsupported, "no way of revoking"},
		{orders.ErrUnknownIssuer, "no issuer ov in its settings"},
		{&connector.Error{Class: connector.ClassCredentials, Detail: "the key may not revoke"}, "the key may not revoke"},
	} {
		engine.err = fmt.Errorf("wrapped: %w", c.err)
		assert.Contains(t, w.ask(http.MethodPost, path, body).problem(t, http.StatusConflict, wire.CodeConflict).Detail, c.text)
	}

	// One that waits for approval there is replaced, and not called revoked.
	engine.err = nil
	told := post[resource.RevokedCertificate](w, path, body, http.StatusAccepted)
	assert.True(t, told.Pending)
	require.NotNil(t, told.Command)
	asked, ok := w.State().View().AgentCommand("web1", told.Command.ID)
	require.True(t, ok)
	assert.Equal(t, wire.CommandRenew, asked.Kind)
	assert.True(t, asked.RevokedAt.IsZero())

	// Nobody revokes another's by a lie.
	before := len(engine.asked)
	p = w.ask(http.MethodPost, path, `{"agent_id":"evil","certificate":"mine","reason":"superseded"}`).problem(t, http.StatusConflict, wire.CodeConflict)
	assert.Contains(t, p.Detail, "issued to the agent web1")
	assert.Len(t, engine.asked, before)

	engine.revoked = true
	told = post[resource.RevokedCertificate](w, path, body, http.StatusAccepted)
	assert.False(t, told.Pending)
	assert.False(t, told.Already)
	require.NotNil(t, told.Command)
	asked, ok = w.State().View().AgentCommand("web1", told.Command.ID)
	require.True(t, ok)
	stored := web.StoredOrder(order.ID).Revocation
	require.NotNil(t, stored)
	assert.Equal(t, "api_token:"+w.Admin.ID, stored.By)
	assert.True(t, stored.DoneAt.Equal(asked.RevokedAt), "its host is told that it is revoked, why and when")
	assert.Equal(t, 1, asked.Reason)
	assert.Equal(t, wire.CommandRenew, asked.Kind)
	done := len(engine.asked)
	again := post[resource.RevokedCertificate](w, path, body, http.StatusAccepted)
	assert.True(t, again.Already)
	assert.Equal(t, told.Command, again.Command)
	assert.Len(t, engine.asked, done, "once is enough")
}

// A certificate whose host is gone, or has another one by now, is revoked all the same.
func TestWhatNoHostHasInServiceIsRevoked(t *testing.T) {
	w := start(t)
	web := w.Agent("web1", "web1.example.com", nil)
	web.AtEveryStage()
	order := get[resource.Order](w, orderPath("web1", fleet.StageDelivered))
	engine := &someOrders{revoked: true}
	w.UseOrders(engine)
	told := post[resource.RevokedCertificate](w, "/api/v1/revocations", fmt.Sprintf(`{"serial":%q,"reason":"superseded"}`, order.Serial), http.StatusAccepted)
	assert.Equal(t, resource.RevokedCertificate{Serial: order.Serial, AgentID: "web1", Certificate: "delivered", By: "authority", OrderID: order.ID, Issuer: "ov"}, told)
	assert.Equal(t, []string{"revoke web1/" + order.ID + " for 4"}, engine.asked)
	// Somebody looked at it while it was in service, and it was replaced since.
	planned := post[resource.RevokedCertificate](w, "/api/v1/revocations?dry_run=true",
		fmt.Sprintf(`{"agent_id":"web1","certificate":"delivered","serial":%q,"reason":"superseded"}`, order.Serial), http.StatusAccepted)
	assert.Equal(t, order.ID, planned.OrderID)
}
