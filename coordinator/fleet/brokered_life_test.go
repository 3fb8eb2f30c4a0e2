package fleet_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func TestRetiringAnAgentWithOrdersAtAuthorities(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.enroll("other")
	ids := []string{"never", "back", "placing", "pending", "unknown", "rejected", "issued", "delivered"}
	for _, id := range ids {
		b.place("agent", slow(id))
		if id != "never" {
			b.claim("agent", id)
		}
	}
	b.place("other", slow("never"))
	b.record("agent", "back", fleet.OrderRequested)
	b.record("agent", "unknown", fleet.OrderUnknown)
	for _, id := range ids[3:] {
		if id != "unknown" {
			b.record("agent", id, fleet.OrderPending, handle(id))
		}
	}
	b.record("agent", "rejected", fleet.OrderRejected, refusedBy)
	b.record("agent", "issued", fleet.OrderIssued, certificate)
	b.record("agent", "delivered", fleet.OrderIssued, certificate)
	b.collect("agent", "delivered")

	var outcome fleet.Retirement
	require.NoError(t, b.ok(fleet.RetireAgent{Actor: "api_token:op", AgentID: "agent"}).Decode(&outcome))
	assert.Equal(t, 3, outcome.OpenOrders)
	stages := map[string]fleet.Stage{}
	for order := range b.view().AllOrders() {
		if order.Agent == "agent" {
			stages[order.ID] = order.Stage()
			assert.Equal(t, !order.Ended(), order.Brokering.Cancel != nil, order.ID)
		}
	}
	assert.Equal(t, map[string]fleet.Stage{
		"placing": fleet.StagePlacing, "pending": fleet.StagePending, "unknown": fleet.StageUnknown, "issued": fleet.StageCollected, "delivered": fleet.StageDelivered,
	}, stages, "what may be at the authority, and what could be revoked")
	assert.Equal(t, "api_token:op", b.order("agent", "pending").Brokering.Cancel.By)

	// They go when they have ended, but for what could be revoked.
	assert.Equal(t, wire.CodeAgentRetired, b.do(fleet.ClaimOrder{Agent: "agent", ID: "unknown", Revision: b.order("agent", "unknown").ModifyIndex, Node: "n", Term: 1, Again: true}).Code)
	gone := b.record("agent", "placing", fleet.OrderRequested)
	assert.Equal(t, fleet.OrderChange{ID: "placing", Revision: b.state.Index()}, gone)
	b.changed(fleet.ResolveOrder{Actor: "local", Agent: "agent", ID: "unknown", Action: fleet.ResolveGiveUp})
	assert.Equal(t, fleet.OrderCollected, b.record("agent", "pending", fleet.OrderIssued, certificate).State, "it came too late")
	for _, id := range []string{"placing", "unknown"} {
		_, ok := b.view().Order("agent", id)
		assert.False(t, ok, id)
	}
	assert.Equal(t, fleet.StageCollected, b.order("agent", "pending").Stage())
	assert.Empty(t, b.order("agent", "pending").ChainPEM)
	assert.Len(t, b.view().OpenOrders("", 0), 1, "the other agent's")
	b.now = testTime.Add(91 * 24 * time.Hour)
	b.ok(token("tick"))
	assert.Equal(t, 1, b.view().Rows(fleet.TableOrders))
}

func TestWhatIsLeftOfOrdersAtAuthorities(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	for _, id := range []string{"s1", "s2"} {
		b.place("agent", slow(id))
		b.claim("agent", id)
		b.record("agent", id, fleet.OrderPending, handle(id))
	}
	b.record("agent", "s1", fleet.OrderIssued, certificate)
	b.record("agent", "s2", fleet.OrderRejected, refusedBy)
	b.now = b.now.Add(30 * 24 * time.Hour)
	b.collect("agent", "s1", "s2")
	assert.Equal(t, fleet.StageRejected, b.order("agent", "s2").Stage())
	left := func() (ids []string) {
		b.ok(fleet.DropRestore{})
		for order := range b.view().AllOrders() {
			ids = append(ids, order.ID)
		}
		return ids
	}
	b.now = b.now.Add(7*24*time.Hour - time.Second)
	assert.Equal(t, []string{"s1", "s2"}, left())
	b.now = b.now.Add(time.Second)
	assert.Equal(t, []string{"s1"}, left(), "a week after the agent has heard of it")
	b.now = b.order("agent", "s1").NotAfter.Add(24*time.Hour - time.Second)
	assert.Equal(t, []string{"s1"}, left())
	b.now = b.now.Add(time.Second)
	assert.Empty(t, left(), "a day after the certificate's end")
}

func TestKeptOrdersAreBounded(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	var ids []string
	for i := range fleet.MaxKeptOrders + 1 {
		ids = append(ids, fmt.Sprint("s", i))
	}
	// together does one thing to many orders in one entry.
	together := func(ids []string, payload func(id string) fleet.Payload) {
		var commands []fleet.Command
		for _, id := range ids {
			commands = append(commands, b.command(payload(id)))
		}
		for _, result := range b.entry(commands...) {
			require.NoError(t, result.Err())
		}
	}
	for ids := range slices.Chunk(ids, fleet.MaxOpenOrders) {
		for ids := range slices.Chunk(ids, wire.MaxOrders) {
			var orders []fleet.OrderPlacement
			for _, id := range ids {
				orders = append(orders, slow(id))
			}
			b.place("agent", orders...)
		}
		together(ids, func(id string) fleet.Payload {
			return fleet.ClaimOrder{Agent: "agent", ID: id, Revision: b.order("agent", id).ModifyIndex, Node: "n", Term: 1}
		})
		together(ids, func(id string) fleet.Payload {
			return b.next("agent", id, fleet.OrderIssued, handle(id), certificate, func(p *fleet.RecordOrder) {
				if id == "s1234" {
					p.NotAfter = p.NotAfter.Add(-time.Hour)
				}
			})
		})
		for ids := range slices.Chunk(ids, wire.MaxOrders) {
			b.collect("agent", ids...)
		}
	}
	assert.Equal(t, fleet.MaxKeptOrders, b.view().Rows(fleet.TableOrders))
	_, ok := b.view().Order("agent", "s1234")
	assert.False(t, ok, "that goes first which expires first")
}

func TestARestoreDoubtsWhatMayHaveBeenPlacedSince(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	ids := []string{"never", "back", "placing", "pending", "unknown", "issued", "delivered"}
	for _, id := range ids {
		b.place("agent", slow(id))
		if id != "never" {
			b.claim("agent", id)
		}
	}
	b.place("agent", placement("o1", "www.example.com"))
	b.record("agent", "back", fleet.OrderRequested)
	b.record("agent", "unknown", fleet.OrderUnknown)
	b.record("agent", "unknown", fleet.OrderUnknown, nothingFound)
	b.record("agent", "pending", fleet.OrderPending, handle("7"))
	for _, id := range []string{"issued", "delivered"} {
		b.record("agent", id, fleet.OrderPending, handle(id))
		b.record("agent", id, fleet.OrderIssued, certificate)
	}
	b.collect("agent", "delivered")
	saved := packed(t, snapshot(t, b.state))
	older := b.order("agent", "never")

	apply := func(level uint32) {
		b.stage("r", saved)
		command := b.command(fleet.ApplyRestore{ID: "r", Pieces: uint32(len(saved)), Note: fleet.NoteRestore{Actor: "local", Snapshot: "s", TakenAt: testTime}})
		if level != fleet.Level {
			var p fleet.ApplyRestore
			require.NoError(t, cbor.Unmarshal(command.Payload, &p))
			p.Level = level
			command.Payload, _ = cbor.Marshal(p)
		}
		require.NoError(t, b.entry(command)[0].Err())
	}
	b.now = b.now.Add(time.Hour)
	apply(2) // of a log that a version of before wrote
	assert.Equal(t, older, b.order("agent", "never"), "is replayed as it was applied")
	assert.True(t, b.view().RestoredAt().IsZero())

	apply(fleet.Level)
	assert.Equal(t, b.now, b.view().RestoredAt())
	for id, want := range map[string]fleet.Stage{
		"never": fleet.StageUnknown, "back": fleet.StageUnknown, "placing": fleet.StageUnknown, "unknown": fleet.StageUnknown,
		"pending": fleet.StagePending, "issued": fleet.StageCollected, "delivered": fleet.StageDelivered, "o1": fleet.StageRequested,
	} {
		order := b.order("agent", id)
		assert.Equal(t, want, order.Stage(), id)
		if want != fleet.StageUnknown {
			continue
		}
		assert.Equal(t, fleet.OrderReference("agent", id), order.Brokering.Reference, "it can be searched for")
		assert.Equal(t, b.now, order.Brokering.Next)
		assert.Zero(t, order.Brokering.Searches, "anew")
		assert.Equal(t, b.now, order.Brokering.RestoredAt)
		assert.Equal(t, wire.CodeConflict, b.do(fleet.ClaimOrder{Agent: "agent", ID: id, Revision: order.ModifyIndex, Node: "n", Term: 1, Again: true}).Code)
	}
	// What agents made before, and only they know of, may have been placed as well.
	lost := slow("lost")
	lost.Doubtful = true
	outcome := b.place("agent", lost, slow("new"))
	assert.Equal(t, fleet.OrderUnknown, outcome[0].State)
	assert.Equal(t, fleet.OrderRequested, outcome[1].State)
	builtin := placement("o2", "www.example.com")
	builtin.Issuer, builtin.Doubtful = "builtin", true
	assert.Equal(t, fleet.OrderRequested, b.place("agent", builtin)[0].State, "the built-in CA loses nothing")
	assert.Len(t, b.view().BuiltinOrders(0), 2)
}

// Only a sync that needs it has the version that nodes of before do not know.
func TestSyncsOfBeforeStayAsTheyAre(t *testing.T) {
	b := newBench(t)
	sync := fleet.SyncAgent{AgentID: "agent", BootID: "boot", Orders: []fleet.OrderPlacement{slow("s1")}}
	assert.EqualValues(t, 1, fleet.RequiredLevel(b.command(sync)))
	sync.Orders[0].Doubtful = true
	assert.EqualValues(t, 3, fleet.RequiredLevel(b.command(sync)))
	sync.Events = []wire.Event{{Sequence: 1, Kind: wire.EventFailed}}
	assert.EqualValues(t, 3, fleet.RequiredLevel(b.command(sync)))
	sync.Events[0].Reason = wire.ReasonRefused
	assert.EqualValues(t, 4, fleet.RequiredLevel(b.command(sync)))
	sync.Events[0] = wire.Event{Sequence: 1, Kind: wire.EventRenewed, Issuer: "corp"}
	assert.EqualValues(t, 4, fleet.RequiredLevel(b.command(sync)))
	for _, payload := range []fleet.Payload{fleet.ClaimOrder{}, fleet.RecordOrder{}, fleet.CancelOrder{}, fleet.RetryOrder{}, fleet.ResolveOrder{}} {
		assert.EqualValues(t, 3, fleet.RequiredLevel(b.command(payload)), "%T", payload)
	}
}

func TestOrdersAtAuthoritiesAreListed(t *testing.T) {
	b := newBench(t)
	b.enroll("a1")
	b.enroll("a2")
	for i := range 25 {
		for _, agent := range []string{"a1", "a2"} {
			order := slow(fmt.Sprintf("s%02d", i))
			order.Certificate = fmt.Sprint("web", i%2)
			if i%5 == 0 {
				order.Issuer = "other"
			}
			b.place(agent, order)
			if i%3 == 0 {
				b.claim(agent, order.ID)
			}
			b.place(agent, placement(fmt.Sprintf("o%02d", i), "www.example.com"))
		}
		b.now = b.now.Add(time.Second)
	}
	b.record("a1", "s03", fleet.OrderPending, handle("3"))
	b.record("a1", "s03", fleet.OrderIssued, certificate)
	b.record("a1", "s06", fleet.OrderPending, handle("6"))
	b.record("a1", "s06", fleet.OrderIssued, certificate)
	b.collect("a1", "s06")
	b.changed(fleet.CancelOrder{Actor: "local", Agent: "a1", ID: "s01"})
	view := b.view()
	back := false
	list := func(f fleet.OrderFilter, limit int) (all []*fleet.Order) {
		page := fleet.Page{Limit: limit, Back: back}
		for {
			part, next, err := view.BrokeredOrders(f, page)
			require.NoError(t, err)
			all = append(all, part...)
			if next == "" {
				return all
			}
			page.Cursor = next
		}
	}
	for _, f := range []fleet.OrderFilter{
		{}, {Stage: fleet.StagePlacing}, {Stage: fleet.StagePlacing, Issuer: "other"}, {Issuer: "other"}, {Issuer: "oth"}, {Agent: "a1"}, {Agent: "a1", Stage: fleet.StageDelivered},
		{Certificate: "web1"}, {Open: true}, {Open: true, Issuer: "slow"}, {Open: true, Stage: fleet.StageCollected}, {Agent: "a2", Certificate: "web0", Issuer: "other", Open: true},
		{ByAge: true}, {ByAge: true, Agent: "a1"}, {ByAge: true, Open: true}, {ByAge: true, Stage: fleet.StagePlacing, Issuer: "other"},
	} {
		var want []*fleet.Order
		for order := range view.AllOrders() {
			if order.Brokered() && (f.Stage == "" || order.Stage() == f.Stage) && (f.Issuer == "" || order.Issuer == f.Issuer) && (f.Agent == "" || order.Agent == f.Agent) &&
				(f.Certificate == "" || order.Certificate == f.Certificate) && (!f.Open || !order.Ended()) {
				want = append(want, order)
			}
		}
		for _, limit := range []int{1, 7, 1000} {
			got := list(f, limit)
			assert.ElementsMatch(t, want, got, "%+v", f)
			if f.ByAge {
				assert.True(t, slices.IsSortedFunc(got, func(a, b *fleet.Order) int { return a.PlacedAt.Compare(b.PlacedAt) }), "%+v", f)
			}
			back = true
			reversed := list(f, limit)
			back = false
			slices.Reverse(reversed)
			assert.Equal(t, got, reversed, "%+v, from its end", f)
		}
	}
	_, next, err := view.BrokeredOrders(fleet.OrderFilter{}, fleet.Page{Limit: 1})
	require.NoError(t, err)
	_, _, err = view.BrokeredOrders(fleet.OrderFilter{Open: true}, fleet.Page{Cursor: next})
	require.ErrorIs(t, err, fleet.ErrCursor)

	assert.Equal(t, []fleet.OrderCount{
		{Issuer: "other", Stage: fleet.StageRequested, Count: 6}, {Issuer: "slow", Stage: fleet.StageRequested, Count: 25},
		{Issuer: "other", Stage: fleet.StagePlacing, Count: 4}, {Issuer: "slow", Stage: fleet.StagePlacing, Count: 12},
		{Issuer: "slow", Stage: fleet.StageCollected, Count: 1}, {Issuer: "slow", Stage: fleet.StageCancelled, Count: 1},
	}, view.OrderCounts(), "what is delivered is not counted")
	assert.Len(t, view.OrdersByKey("slow", "key-of-s03"), 2)
	assert.Empty(t, view.OrdersByKey("other", "key-of-s03"))
	assert.Len(t, view.OrdersByKey("slow", "key-of-s06"), 2, "delivered ones too")
	assert.Len(t, view.OrdersDue(testTime, 0), 2, "those of the first moment")
	assert.Len(t, view.OrdersDue(b.now, 3), 3)
	assert.Len(t, view.BuiltinOrders(0), 50)
	assert.Len(t, view.BuiltinOrders(4), 4)
	assert.Len(t, view.OpenOrders("other", 0), 10)
}

// A state that goes on without what came after it is doubted, unless no order can have
// been placed: then nodes of before can read it as it is.
func TestAStateThatGoesOnAloneIsDoubted(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.place("agent", slow("s1"))
	doubt := func() int {
		unknown, err := b.state.DoubtOrders(b.now)
		require.NoError(t, err)
		return unknown
	}
	assert.Zero(t, doubt())
	b.ok(fleet.AnnounceNode{Node: clusterNode("n1", "k1")}) // of a version of before
	before := snapshot(t, b.state)
	assert.Zero(t, doubt())
	assert.Equal(t, before, snapshot(t, b.state))

	node := clusterNode("n1", "k1")
	node.Level = 3
	b.ok(fleet.AnnounceNode{Node: node})
	index := b.state.Index()
	assert.Equal(t, 1, doubt())
	assert.Equal(t, index, b.state.Index())
	assert.Equal(t, fleet.OrderUnknown, b.order("agent", "s1").State)
	assert.Equal(t, b.now, b.view().RestoredAt())
	again := newBench(t)
	restore(t, again.state, snapshot(t, b.state))

	other := newBench(t)
	other.enroll("agent")
	other.place("agent", slow("s1"), slow("s2"))
	other.claim("agent", "s1")
	unknown, err := other.state.DoubtOrders(other.now)
	require.NoError(t, err)
	assert.Equal(t, 2, unknown, "one was claimed: nodes know of such orders")
}
