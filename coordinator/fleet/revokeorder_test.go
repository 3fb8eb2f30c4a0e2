package fleet_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func TestARevocationAtAnAuthorityIsKept(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.place("agent", slow("s1"))
	revoke := fleet.RevokeOrder{Actor: "api_token:x", Agent: "agent", ID: "s1", Step: fleet.RevocationAsked, Reason: 1}
	assert.Equal(t, wire.CodeConflict, b.do(revoke).Code, "there is no certificate")
	b.claim("agent", "s1")
	b.record("agent", "s1", fleet.OrderIssued, handle("7"), certificate)
	b.collect("agent", "s1")
	step := func(step fleet.RevocationStep) *fleet.OrderRevocation {
		t.Helper()
		revoke.Step = step
		require.Equal(t, fleet.OrderCollected, b.changed(revoke).State)
		return b.order("agent", "s1").Revocation
	}
	listed := func(agent string, open bool) (ids []string) {
		t.Helper()
		list, next, err := b.view().OrderRevocations(agent, open, fleet.Page{Limit: 10})
		require.NoError(t, err)
		assert.Empty(t, next)
		for _, o := range list {
			ids = append(ids, o.ID)
		}
		return ids
	}
	assert.Empty(t, listed("", false))
	asked := step(fleet.RevocationAsked)
	assert.Equal(t, []*fleet.Order{b.order("agent", "s1")}, b.view().OpenRevocations(0))
	assert.Equal(t, []string{"s1"}, listed("agent", true))
	assert.Empty(t, listed("other", true))
	assert.Equal(t, &fleet.OrderRevocation{By: "api_token:x", Reason: 1, At: b.now}, asked)
	fact := b.facts[len(b.facts)-1]
	assert.Equal(t, fleet.KindOrderRevocationAsked, fact.Kind)
	assert.NotZero(t, fact.Audit, "before the authority is asked")
	revoke.Failure = strings.Repeat("long ", 1000)
	assert.Len(t, step(fleet.RevocationFailed).Failure, fleet.MaxOrderText)
	revoke.Failure = ""
	assert.True(t, step(fleet.RevocationTaken).DoneAt.IsZero())
	assert.Equal(t, b.now, step(fleet.RevocationDone).DoneAt)
	assert.Empty(t, b.view().OpenRevocations(0))
	assert.Empty(t, listed("", true))
	assert.Equal(t, []string{"s1"}, listed("", false))
	fact = b.facts[len(b.facts)-1]
	assert.Equal(t, fleet.KindCertificateRevoked, fact.Kind)
	assert.NotZero(t, fact.Audit)
	assert.Equal(t, b.now, step(fleet.RevocationFailed).DoneAt, "what is done stays so")
	assert.Equal(t, []*fleet.Order{b.order("agent", "s1")}, b.view().OrdersBySerial("0a"))
	assert.Empty(t, b.view().OrdersBySerial(""))

	// It outlives its host.
	b.ok(fleet.RetireAgent{AgentID: "agent"})
	assert.Len(t, b.view().OrdersBySerial("0a"), 1)
	for _, wrong := range []fleet.RevokeOrder{
		{Agent: "agent", ID: "s1", Step: fleet.RevocationAsked, Reason: 7},
		{Agent: "agent", ID: "none", Step: fleet.RevocationAsked},
	} {
		assert.NotEmpty(t, b.do(wrong).Code)
	}
}
