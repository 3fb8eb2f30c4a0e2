package fleet_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// slow is an order at an authority that takes its time.
func slow(id string, names ...string) fleet.OrderPlacement {
	if len(names) == 0 {
		names = []string{"www.example.com"}
	}
	p := placement(id, names...)
	p.Issuer, p.PublicKeyFingerprint = "slow", "key-of-"+id
	return p
}

// furnishOrders has both furnished agents order at an authority: one of them has an
// order that is being placed, the other one that is at the authority.
func (b *bench) furnishOrders() {
	b.t.Helper()
	for _, agent := range []string{"a1", "a2"} {
		b.ok(fleet.SyncAgent{AgentID: agent, BootID: "b1", Sequence: 2, BaseRevision: 1, Revision: 1, HeadRevision: 1,
			Orders: []fleet.OrderPlacement{slow("s1"), slow("s2")}})
		b.claim(agent, "s1")
	}
	b.record("a2", "s1", fleet.OrderPending, func(p *fleet.RecordOrder) { p.Brokering.Handle.Order = "7" })
}

func (b *bench) order(agent, id string) *fleet.Order {
	b.t.Helper()
	order, ok := b.view().Order(agent, id)
	require.True(b.t, ok, "order %s of %s", id, agent)
	return order
}

func (b *bench) changed(payload fleet.Payload) fleet.OrderChange {
	b.t.Helper()
	var outcome fleet.OrderChange
	require.NoError(b.t, b.ok(payload).Decode(&outcome))
	return outcome
}

// claim claims an order as it stands.
func (b *bench) claim(agent, id string) fleet.OrderChange {
	b.t.Helper()
	order := b.order(agent, id)
	return b.changed(fleet.ClaimOrder{Agent: agent, ID: id, Revision: order.ModifyIndex, Node: "n1", Term: 3, Again: order.State == fleet.OrderUnknown})
}

// next is what a leader says of an order as it stands.
func (b *bench) next(agent, id string, state fleet.OrderState, more ...func(*fleet.RecordOrder)) fleet.RecordOrder {
	b.t.Helper()
	order := b.order(agent, id)
	p := fleet.RecordOrder{Agent: agent, ID: id, Revision: order.ModifyIndex, State: state}
	if order.Brokering != nil {
		p.Brokering = *order.Brokering
	}
	p.Brokering.Next = b.now.Add(time.Minute)
	for _, change := range more {
		change(&p)
	}
	return p
}

func (b *bench) record(agent, id string, state fleet.OrderState, more ...func(*fleet.RecordOrder)) fleet.OrderChange {
	b.t.Helper()
	return b.changed(b.next(agent, id, state, more...))
}

func handle(id string) func(*fleet.RecordOrder) {
	return func(p *fleet.RecordOrder) { p.Brokering.Handle = fleet.OrderHandle{Order: id} }
}

func certificate(p *fleet.RecordOrder) {
	p.ChainPEM, p.Serial, p.Fingerprint, p.NotAfter = "chain of "+p.ID, "0a", "fp-"+p.ID, testTime.Add(90*24*time.Hour)
}

func nothingFound(p *fleet.RecordOrder) { p.Brokering.Searches++ }

func refusedBy(p *fleet.RecordOrder) {
	p.Problem = &wire.Problem{Code: wire.CodeInvalid, Detail: "the authority refuses"}
}

func TestAnOrderGoesThroughItsStages(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.place("agent", slow("s1"))
	stage := func(want fleet.Stage) {
		t.Helper()
		require.Equal(t, want, b.order("agent", "s1").Stage())
	}
	stage(fleet.StageRequested)
	outcome := b.claim("agent", "s1")
	require.Equal(t, fleet.OrderReference("agent", "s1", 1), outcome.Reference)
	require.Regexp(t, `^[0-9a-f]{32}$`, outcome.Reference)
	stage(fleet.StagePlacing)
	b.record("agent", "s1", fleet.OrderPending, handle("7"))
	stage(fleet.StagePending)
	b.record("agent", "s1", fleet.OrderNeedsPerson)
	stage(fleet.StageNeedsPerson)
	b.record("agent", "s1", fleet.OrderReady)
	stage(fleet.StageIssued)
	b.record("agent", "s1", fleet.OrderIssued, certificate)
	stage(fleet.StageCollected)
	b.collect("agent", "s1")
	stage(fleet.StageDelivered)
}

func (b *bench) collect(agent string, ids ...string) {
	b.t.Helper()
	b.ok(fleet.SyncAgent{AgentID: agent, BootID: "boot", Sequence: b.agent(agent).Sync.Sequence + 1, Collected: ids})
}
