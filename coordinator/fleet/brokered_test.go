package fleet_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
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
	require.Equal(t, fleet.OrderReference("agent", "s1"), outcome.Reference)
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

func TestWhatIsKnownOfAnOrderIsKept(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.place("agent", slow("s1", "www.example.com", "api.example.com"))
	order := b.order("agent", "s1")
	assert.Nil(t, order.Brokering, "as a version that knows no authorities stores it")
	assert.Equal(t, []*fleet.Order{order}, b.view().OrdersDue(b.now, 0), "and to be placed at once")
	assert.Empty(t, b.view().BuiltinOrders(0))
	placed := b.now

	at := func(minutes int) time.Time { return placed.Add(time.Duration(minutes) * time.Minute) }
	b.now = at(1)
	claim := fleet.ClaimOrder{Agent: "agent", ID: "s1", Revision: order.ModifyIndex, Node: "n1", Term: 4, Renews: fleet.OrderHandle{Order: "5"}}
	outcome := b.changed(claim)
	assert.Equal(t, fleet.OrderChange{ID: "s1", State: fleet.OrderPlacing, Revision: b.state.Index(), Attempt: 1, Reference: fleet.OrderReference("agent", "s1")}, outcome)
	assert.Equal(t, wire.CodeConflict, b.do(claim).Code, "the revision is another one")
	claim.Revision = outcome.Revision
	assert.Equal(t, wire.CodeConflict, b.do(claim).Code, "and it is claimed")

	b.now = at(2)
	b.record("agent", "s1", fleet.OrderPending, handle("7"), func(p *fleet.RecordOrder) {
		p.Brokering.Raw, p.Brokering.Detail, p.Brokering.Mend = strings.Repeat("w", 100), "two\nlines \xff", strings.Repeat("ä", 400)
		p.Brokering.Reference, p.Brokering.Attempt, p.Brokering.Claim, p.Brokering.SubmittedAt = "other", 9, fleet.OrderClaim{}, at(99)
	})
	got := *b.order("agent", "s1").Brokering
	assert.Equal(t, strings.Repeat("w", fleet.MaxOrderRaw), got.Raw, "an authority's words cannot be too long")
	assert.Equal(t, "two lines \uFFFD", got.Detail)
	assert.Equal(t, strings.Repeat("ä", fleet.MaxOrderText/2), got.Mend)
	assert.Equal(t, fleet.OrderClaim{Node: "n1", Term: 4, At: at(1)}, got.Claim, "what a leader has no say in stays")
	assert.Equal(t, outcome.Reference, got.Reference)
	assert.EqualValues(t, 1, got.Attempt)
	assert.Equal(t, at(2), got.SubmittedAt)
	assert.Equal(t, fleet.OrderHandle{Order: "5"}, got.Renews)

	b.now = at(3)
	b.record("agent", "s1", fleet.OrderNeedsPerson, func(p *fleet.RecordOrder) { p.Brokering.Slow, p.Brokering.Next = true, time.Time{} })
	assert.Equal(t, at(3), b.order("agent", "s1").Brokering.NeedsPersonSince)
	assert.Empty(t, b.view().OrdersDue(at(1e6), 0), "only a person can do anything")
	assert.True(t, b.view().NextOrderDue().IsZero())
	b.now = at(4)
	b.changed(fleet.RetryOrder{Actor: "api_token:op", Agent: "agent", ID: "s1"})
	got = *b.order("agent", "s1").Brokering
	assert.Equal(t, at(4), got.Next)
	assert.Equal(t, at(4), got.Since)
	assert.False(t, got.Slow)
	assert.Equal(t, at(4), b.view().NextOrderDue())

	b.now = at(5)
	b.record("agent", "s1", fleet.OrderReady)
	b.now = at(6)
	b.record("agent", "s1", fleet.OrderIssued, certificate)
	b.now = at(7)
	b.collect("agent", "s1")
	order = b.order("agent", "s1")
	got = *order.Brokering
	assert.Equal(t, []time.Time{at(5), at(6), at(7), {}}, []time.Time{got.ReadyAt, got.FetchedAt, got.DeliveredAt, got.NeedsPersonSince})
	assert.Nil(t, order.CSR)
	assert.Empty(t, order.ChainPEM)
	assert.Equal(t, []string{"api.example.com", "www.example.com"}, order.Names)
	assert.Equal(t, "7", got.Handle.Order, "it can be revoked, and renewed, by it")
	assert.Equal(t, "0a", order.Serial)

	var kinds []fleet.Kind
	for _, fact := range b.facts {
		if fact.Object == "s1" {
			kinds = append(kinds, fact.Kind)
		}
		audited := fact.Kind == fleet.KindOrderClaimed || fact.Kind == fleet.KindOrderRetried
		assert.True(t, fact.Audit > 0 == audited || fact.Object != "s1", "%v", fact)
	}
	assert.Equal(t, []fleet.Kind{
		fleet.KindOrderRequested, fleet.KindOrderClaimed, fleet.KindOrderSubmitted, fleet.KindOrderNeedsPerson, fleet.KindOrderSlow,
		fleet.KindOrderRetried, fleet.KindOrderReady, fleet.KindOrderIssued, fleet.KindOrderDelivered,
	}, kinds)
}

// A poll that finds nothing new is no fact.
func TestPollsAreNoFacts(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.place("agent", slow("s1"))
	b.claim("agent", "s1")
	b.record("agent", "s1", fleet.OrderPending, handle("7"))
	facts := len(b.facts)
	for range 20 {
		b.record("agent", "s1", fleet.OrderPending, func(p *fleet.RecordOrder) { p.Brokering.Polls++; p.Brokering.Failure = "no answer" })
	}
	assert.Len(t, b.facts, facts)
	assert.EqualValues(t, 20, b.order("agent", "s1").Brokering.Polls)
	b.record("agent", "s1", fleet.OrderPending, func(p *fleet.RecordOrder) { p.Brokering.Slow = true })
	b.record("agent", "s1", fleet.OrderPending, func(p *fleet.RecordOrder) { p.Brokering.Slow = true })
	require.Len(t, b.facts, facts+1, "that the budget is spent is told once")
	assert.Equal(t, fleet.KindOrderSlow, b.facts[facts].Kind)
}

func TestStepsThatThereAreNot(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.place("agent", slow("s1"), placement("o1", "www.example.com"))
	refused := func(want wire.Code, p fleet.RecordOrder) {
		t.Helper()
		before := b.order("agent", "s1")
		assert.Equal(t, want, b.do(p).Code)
		assert.Equal(t, before, b.order("agent", "s1"))
	}
	refused(wire.CodeNotFound, fleet.RecordOrder{Agent: "agent", ID: "none", Revision: 1, State: fleet.OrderPending})
	refused(wire.CodeConflict, fleet.RecordOrder{Agent: "agent", ID: "o1", Revision: b.order("agent", "o1").ModifyIndex, State: fleet.OrderRequested})
	refused(wire.CodeInvalid, fleet.RecordOrder{Agent: "agent", ID: "s1", State: fleet.OrderRequested})
	refused(wire.CodeConflict, b.next("agent", "s1", fleet.OrderPending, handle("7")))
	refused(wire.CodeInvalid, b.next("agent", "s1", fleet.OrderRequested, handle("7")))
	refused(wire.CodeInvalid, b.next("agent", "s1", fleet.OrderRequested, refusedBy))
	b.record("agent", "s1", fleet.OrderRequested, func(p *fleet.RecordOrder) { p.Brokering.Failure = "the account is paused" })
	b.claim("agent", "s1")
	refused(wire.CodeConflict, b.next("agent", "s1", fleet.OrderCancelled))
	refused(wire.CodeInvalid, b.next("agent", "s1", fleet.OrderPending))
	refused(wire.CodeInvalid, b.next("agent", "s1", fleet.OrderUnknown, handle("7")))
	refused(wire.CodeInvalid, b.next("agent", "s1", fleet.OrderPending, handle("7"), certificate))
	refused(wire.CodeInvalid, b.next("agent", "s1", fleet.OrderPending, handle(strings.Repeat("7", fleet.MaxOrderHandle+1))))
	refused(wire.CodeInvalid, b.next("agent", "s1", fleet.OrderPending, handle("7\n8")))
	refused(wire.CodeInvalid, b.next("agent", "s1", fleet.OrderRejected))
	b.record("agent", "s1", fleet.OrderPending, handle("7"))
	refused(wire.CodeConflict, b.next("agent", "s1", fleet.OrderRequested))
	refused(wire.CodeConflict, b.next("agent", "s1", fleet.OrderUnknown, handle("")))
	refused(wire.CodeInvalid, b.next("agent", "s1", fleet.OrderRejected, refusedBy, handle("")))
	for _, incomplete := range []func(*fleet.RecordOrder){
		func(p *fleet.RecordOrder) { p.ChainPEM = "" }, func(p *fleet.RecordOrder) { p.Serial = "" },
		func(p *fleet.RecordOrder) { p.Fingerprint = "" }, func(p *fleet.RecordOrder) { p.NotAfter = time.Time{} },
	} {
		refused(wire.CodeInvalid, b.next("agent", "s1", fleet.OrderIssued, certificate, incomplete))
	}
	b.record("agent", "s1", fleet.OrderIssued, certificate)
	for _, state := range []fleet.OrderState{fleet.OrderPending, fleet.OrderRequested, fleet.OrderCancelled, fleet.OrderIssued} {
		refused(wire.CodeConflict, b.next("agent", "s1", state))
	}
	for _, late := range []fleet.Payload{
		fleet.CancelOrder{Agent: "agent", ID: "s1"}, fleet.RetryOrder{Agent: "agent", ID: "s1"}, fleet.ResolveOrder{Agent: "agent", ID: "s1", Action: fleet.ResolveGiveUp},
		fleet.ClaimOrder{Agent: "agent", ID: "s1", Revision: b.order("agent", "s1").ModifyIndex, Node: "n1", Term: 1},
		fleet.CancelOrder{Agent: "agent", ID: "o1"}, fleet.RetryOrder{Agent: "agent", ID: "o1"},
	} {
		assert.Equal(t, wire.CodeConflict, b.do(late).Code, "%T", late)
	}
}

func TestAnOrderOfUnknownOutcome(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	ids := []string{"s1", "s2", "s3", "s4", "s5"}
	for _, id := range ids {
		b.place("agent", slow(id))
		b.claim("agent", id)
		b.record("agent", id, fleet.OrderUnknown, func(p *fleet.RecordOrder) { p.Brokering.Searches = 7 })
		assert.Zero(t, b.order("agent", id).Brokering.Searches, "searches are those since it is unknown")
		assert.Equal(t, b.now, b.order("agent", id).Brokering.UnknownSince)
	}
	refused := func(id string, payload fleet.Payload) {
		t.Helper()
		assert.Contains(t, []wire.Code{wire.CodeConflict, wire.CodeInvalid}, b.do(payload).Code)
		assert.Equal(t, fleet.OrderUnknown, b.order("agent", id).State)
	}
	claim := func(id string) fleet.ClaimOrder {
		return fleet.ClaimOrder{Agent: "agent", ID: id, Revision: b.order("agent", id).ModifyIndex, Node: "n2", Term: 5, Again: true}
	}
	// Two searches that find nothing prove that it is not there.
	refused("s1", claim("s1"))
	refused("s1", b.next("agent", "s1", fleet.OrderRequested, nothingFound))
	refused("s1", b.next("agent", "s1", fleet.OrderUnknown, func(p *fleet.RecordOrder) { p.Brokering.Searches = 2 }))
	refused("s1", b.next("agent", "s1", fleet.OrderCancelled))
	refused("s1", b.next("agent", "s1", fleet.OrderRejected, refusedBy))
	b.record("agent", "s1", fleet.OrderUnknown, nothingFound)
	assert.Equal(t, b.now, b.order("agent", "s1").Brokering.SearchedAt)
	refused("s1", claim("s1"))
	refused("s1", b.next("agent", "s1", fleet.OrderRequested, nothingFound, func(p *fleet.RecordOrder) { p.Brokering.Candidates = []fleet.OrderHandle{{Order: "1"}} }))
	assert.Equal(t, fleet.OrderRequested, b.record("agent", "s1", fleet.OrderRequested, nothingFound).State)
	assert.EqualValues(t, 2, b.claim("agent", "s1").Attempt)
	// Or at once, when the second one was recorded by itself.
	b.record("agent", "s2", fleet.OrderUnknown, nothingFound)
	b.record("agent", "s2", fleet.OrderUnknown, nothingFound)
	again := claim("s2")
	again.Again = false
	refused("s2", again)
	assert.Equal(t, fleet.OrderPlacing, b.claim("agent", "s2").State)
	assert.True(t, b.order("agent", "s2").Brokering.UnknownSince.IsZero())

	// An operator's word.
	resolve := fleet.ResolveOrder{Actor: "api_token:op", Agent: "agent", ID: "s3", Action: fleet.ResolveAdopt, Note: "found it"}
	refused("s3", resolve)
	resolve.Action = "guess"
	refused("s3", resolve)
	resolve.Action, resolve.Handle.Order = fleet.ResolvePlaceAgain, "7"
	refused("s3", resolve)
	resolve.Action = fleet.ResolveAdopt
	b.now = b.now.Add(time.Hour)
	assert.Equal(t, fleet.OrderPending, b.changed(resolve).State)
	adopted := b.order("agent", "s3").Brokering
	assert.Equal(t, "7", adopted.Handle.Order)
	assert.Equal(t, []time.Time{b.now, b.now, b.now, {}}, []time.Time{adopted.Next, adopted.Since, adopted.SubmittedAt, adopted.UnknownSince})
	assert.Equal(t, wire.CodeConflict, b.do(resolve).Code, "there is no doubt any more")
	resolve.ID, resolve.Action, resolve.Handle = "s4", fleet.ResolvePlaceAgain, fleet.OrderHandle{}
	assert.Equal(t, fleet.OrderRequested, b.changed(resolve).State)
	assert.EqualValues(t, 2, b.claim("agent", "s4").Attempt)
	resolve.ID, resolve.Action = "s5", fleet.ResolveGiveUp
	given := b.changed(resolve)
	assert.Equal(t, fleet.OrderRejected, given.State)
	assert.Equal(t, wire.CodeOrderGivenUp, given.Problem.Code)
	assert.Contains(t, given.Problem.Detail, "found it")
	last := b.facts[len(b.facts)-2]
	assert.Equal(t, fleet.KindOrderResolved, last.Kind)
	assert.NotZero(t, last.Audit)
	assert.Contains(t, string(last.Detail), "found it")
}

func TestAnOrderIsTakenBack(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	for _, id := range []string{"s1", "s2", "s3", "s4"} {
		b.place("agent", slow(id))
	}
	cancel := func(id string) fleet.OrderChange {
		return b.changed(fleet.CancelOrder{Actor: "api_token:op", Agent: "agent", ID: id, Note: "wrong names"})
	}
	// What was not placed is cancelled at once.
	outcome := cancel("s1")
	assert.Equal(t, fleet.OrderCancelled, outcome.State)
	assert.Equal(t, wire.CodeOrderCancelled, outcome.Problem.Code)
	assert.Contains(t, outcome.Problem.Detail, "wrong names")
	assert.Contains(t, outcome.Problem.Mend, "certctl-agent renew web")
	b.collect("agent", "s1")
	assert.Equal(t, fleet.StageCancelled, b.order("agent", "s1").Stage())

	// What the authority has, is noted, and stays noted.
	b.claim("agent", "s2")
	b.record("agent", "s2", fleet.OrderPending, handle("7"), func(p *fleet.RecordOrder) { p.Brokering.Next = b.now.Add(time.Hour) })
	b.now = b.now.Add(time.Minute)
	assert.Equal(t, fleet.OrderPending, cancel("s2").State)
	noted := *b.order("agent", "s2").Brokering.Cancel
	assert.Equal(t, fleet.OrderCancel{By: "api_token:op", Note: "wrong names", At: b.now}, noted)
	assert.Equal(t, b.now, b.order("agent", "s2").Brokering.Next, "the leader is to do it now")
	b.now = b.now.Add(time.Minute)
	b.record("agent", "s2", fleet.OrderNeedsPerson, func(p *fleet.RecordOrder) { p.Brokering.Cancel = nil })
	facts := len(b.facts)
	cancel("s2")
	assert.Equal(t, noted, *b.order("agent", "s2").Brokering.Cancel, "asking again changes nothing")
	assert.Len(t, b.facts, facts)
	assert.Equal(t, fleet.OrderCancelled, b.record("agent", "s2", fleet.OrderCancelled).State)
	assert.Equal(t, "7", b.order("agent", "s2").Brokering.Handle.Order)

	// What is being placed may be there: only if it is not, it is done with.
	b.claim("agent", "s3")
	cancel("s3")
	assert.Equal(t, fleet.OrderPlacing, b.order("agent", "s3").State)
	assert.Equal(t, fleet.OrderCancelled, b.record("agent", "s3", fleet.OrderRequested).State)
	b.claim("agent", "s4")
	b.record("agent", "s4", fleet.OrderUnknown)
	cancel("s4")
	b.record("agent", "s4", fleet.OrderUnknown, nothingFound)
	assert.Equal(t, fleet.OrderCancelled, b.record("agent", "s4", fleet.OrderRequested, nothingFound).State)
}

// A command that was made for a revision must find what has that revision.
func TestAPersonsCommandDoesNotShareAnEntryWithAnothersChange(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.place("agent", slow("s1"))
	claim := fleet.ClaimOrder{Agent: "agent", ID: "s1", Revision: b.order("agent", "s1").ModifyIndex, Node: "n1", Term: 1}
	for _, second := range []fleet.Payload{
		fleet.CancelOrder{Agent: "agent", ID: "s1"}, fleet.RetryOrder{Agent: "agent", ID: "s1"}, fleet.ResolveOrder{Agent: "agent", ID: "s1", Action: fleet.ResolveGiveUp},
	} {
		results := b.entry(b.command(claim), b.command(second))
		require.NoError(t, results[0].Err())
		assert.Equal(t, wire.CodeConflict, results[1].Code)
		b.record("agent", "s1", fleet.OrderRequested)
		claim.Revision = b.order("agent", "s1").ModifyIndex
	}
}
