package fleet_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/trust"
	"github.com/certctl/certctl/shared/wire"
)

func authorities(n int) []fleet.Authority {
	list := make([]fleet.Authority, n)
	for i := range list {
		list[i] = fleet.Authority{Name: "root", Certificate: []byte{byte(i)}, SealedKey: []byte{1}}
	}
	return list
}

func TestChangeCA(t *testing.T) {
	b := newBench(t)
	change := fleet.ChangeCA{Actor: "api_token:x", Authorities: authorities(2), Generations: [][]byte{{1}, {2}}, What: "publish of the root CA"}
	assert.Equal(t, wire.CodeNotFound, b.do(change).Code)
	b.ok(fleet.InitCA{Authorities: authorities(1)})
	ca := func() *fleet.CA {
		stored, ok := b.view().CA()
		require.True(t, ok)
		return stored
	}
	first := ca()
	assert.Empty(t, first.Generations)
	assert.Equal(t, wire.CodeConflict, b.do(change).Code, "it was made for another CA")
	change.Base = first.ModifyIndex
	b.ok(change)
	assert.Len(t, first.Authorities, 1, "who reads an earlier state sees that state")
	second := ca()
	assert.Equal(t, change.Authorities, second.Authorities)
	assert.Equal(t, [][]byte{{1}, {2}}, second.Generations)
	assert.Equal(t, first.CreatedAt, second.CreatedAt)
	assert.Equal(t, wire.CodeConflict, b.do(change).Code, "two administrators at once: one wins")
	fact := b.facts[len(b.facts)-1]
	assert.Equal(t, fleet.KindCAChanged, fact.Kind)
	assert.Equal(t, "api_token:x", fact.Actor)
	assert.NotZero(t, fact.Audit)
	assert.JSONEq(t, `{"change":"publish of the root CA","trust_generation":2}`, string(fact.Detail))

	change.Base = second.ModifyIndex
	change.Authorities = nil
	assert.Equal(t, wire.CodeInvalid, b.do(change).Code)
	change.Authorities = authorities(fleet.MaxAuthorities + 1)
	assert.Equal(t, wire.CodeInvalid, b.do(change).Code)
	change.Authorities, change.Generations = authorities(1), make([][]byte, trust.MaxGenerations-1)
	refused := b.do(change)
	assert.Equal(t, wire.CodeConflict, refused.Code)
	assert.Contains(t, refused.Detail, "limit of 256 generations")
	assert.Equal(t, second, ca())
}

func TestAgentsBehind(t *testing.T) {
	b := newBench(t)
	for _, id := range []string{"a1", "a2", "a3", "a4"} {
		b.enroll(id)
	}
	b.ok(fleet.AcknowledgeTrust{AgentID: "a1", Generation: 2})
	b.ok(fleet.AcknowledgeTrust{AgentID: "a2", Generation: 1})
	before := b.agent("a2").ModifyIndex
	b.ok(fleet.AcknowledgeTrust{AgentID: "a2", Generation: 1})
	assert.Equal(t, before, b.agent("a2").ModifyIndex, "what is known changes nothing")
	b.ok(fleet.RetireAgent{AgentID: "a3"})
	assert.Equal(t, wire.CodeAgentRetired, b.do(fleet.AcknowledgeTrust{AgentID: "a3", Generation: 2}).Code)
	assert.Equal(t, wire.CodeIdentityUnknown, b.do(fleet.AcknowledgeTrust{AgentID: "nobody", Generation: 2}).Code)
	list, count := b.view().AgentsBehind(2, 1)
	assert.Equal(t, 2, count, "a retired one is not waited for")
	require.Len(t, list, 1)
	assert.Equal(t, "a2", list[0].ID)
	b.ok(fleet.AcknowledgeTrust{AgentID: "a1", Generation: 0})
	_, count = b.view().AgentsBehind(1, 0)
	assert.Equal(t, 2, count, "an agent that was set back, or left the chain, is behind again")
}
