package fleet_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func placement(id string, names ...string) fleet.OrderPlacement {
	return fleet.OrderPlacement{
		ID: id, Certificate: "web", CSR: []byte("csr of " + id), Names: pki.MustParseNames(names...), PublicKeyFingerprint: "k",
	}
}

// place sends a sync with nothing but orders.
func (b *bench) place(agent string, orders ...fleet.OrderPlacement) []fleet.OrderOutcome {
	b.t.Helper()
	progress := b.agent(agent).Sync
	var outcome fleet.SyncOutcome
	require.NoError(b.t, b.ok(fleet.SyncAgent{
		AgentID: agent, BootID: "boot", Sequence: progress.Sequence + 1, Orders: orders,
	}).Decode(&outcome))
	return outcome.Orders
}

func TestAnOrderIsPlacedOnce(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	first := placement("o1", "www.example.com", "api.example.com")
	for range 3 {
		assert.Equal(t, []fleet.OrderOutcome{{ID: "o1", State: fleet.OrderRequested}}, b.place("agent", first))
	}
	require.Len(t, b.view().OrdersIn(fleet.OrderRequested, 0), 1)
	other := first
	other.CSR = []byte("another")
	outcome := b.place("agent", other)
	assert.Empty(t, outcome[0].State)
	require.NotNil(t, outcome[0].Problem)
	assert.Equal(t, wire.CodeConflict, outcome[0].Problem.Code)

	b.enroll("second")
	b.place("second", other)
	assert.Len(t, b.view().OrdersIn(fleet.OrderRequested, 0), 2, "ids of different agents do not meet")
	assert.Len(t, b.view().OrdersIn(fleet.OrderRequested, 1), 1)
}

func TestOrdersThatAreNotAllowedAreRejected(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	damaged := placement("damaged", "www.example.com")
	damaged.Problem = &wire.Problem{Code: wire.CodeCSRInvalid, Status: 422}
	outcome := b.place("agent", placement("elsewhere", "www.example.org"), placement("mixed", "www.example.com", "192.0.2.1"), damaged, placement("fine", "a.example.com"))
	assert.Equal(t, fleet.OrderRejected, outcome[0].State)
	assert.Equal(t, wire.CodeNamesRefused, outcome[0].Problem.Code)
	assert.Contains(t, outcome[0].Problem.Detail, "www.example.org")
	assert.Equal(t, wire.CodeNamesRefused, outcome[1].Problem.Code)
	assert.Equal(t, wire.CodeCSRInvalid, outcome[2].Problem.Code)
	assert.Equal(t, fleet.OrderRequested, outcome[3].State, "one bad order does not spoil the others")
	assert.Equal(t, outcome[0], b.place("agent", placement("elsewhere", "www.example.org"))[0], "and stays rejected")
}

func TestTheFirstOutcomeOfAnOrderWins(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.place("agent", placement("o1", "www.example.com"), placement("o2", "www.example.com"))
	complete := fleet.CompleteOrder{Agent: "agent", ID: "o1", ChainPEM: "first", Serial: "01", Fingerprint: "f", NotAfter: testTime.Add(time.Hour)}
	reject := fleet.RejectOrder{Agent: "agent", ID: "o1", Problem: wire.Problem{Code: wire.CodeInternal}}
	assert.Equal(t, wire.CodeInvalid, b.do(fleet.CompleteOrder{Agent: "agent", ID: "o1"}).Code)

	var outcome fleet.OrderOutcome
	require.NoError(t, b.ok(complete).Decode(&outcome))
	assert.Equal(t, fleet.OrderIssued, outcome.State)
	second := complete
	second.ChainPEM = "second"
	require.NoError(t, b.ok(second).Decode(&outcome))
	require.NoError(t, b.ok(reject).Decode(&outcome))
	assert.Equal(t, fleet.OrderIssued, outcome.State)
	order, ok := b.view().Order("agent", "o1")
	require.True(t, ok)
	assert.Equal(t, "first", order.ChainPEM)

	reject.ID = "o2"
	require.NoError(t, b.ok(reject).Decode(&outcome))
	assert.Equal(t, fleet.OrderRejected, outcome.State)
	complete.ID = "o2"
	require.NoError(t, b.ok(complete).Decode(&outcome))
	assert.Equal(t, fleet.OrderRejected, outcome.State)
	assert.Equal(t, wire.CodeNotFound, b.do(fleet.CompleteOrder{Agent: "agent", ID: "none", ChainPEM: "x"}).Code)

	kinds := map[fleet.Kind]int{}
	for _, fact := range b.facts {
		kinds[fact.Kind]++
	}
	assert.Equal(t, 2, kinds[fleet.KindOrderRequested])
	assert.Equal(t, 1, kinds[fleet.KindOrderIssued])
	assert.Equal(t, 1, kinds[fleet.KindOrderRejected])
}

func TestACollectedOrderIsKnownForADay(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	order := placement("o1", "www.example.com")
	collect := func() {
		b.ok(fleet.SyncAgent{AgentID: "agent", BootID: "boot", Sequence: b.agent("agent").Sync.Sequence + 1, Collected: []string{"o1", "none"}})
	}
	b.place("agent", order)
	collect()
	assert.Len(t, b.view().OrdersOf("agent"), 1, "an order without outcome cannot be collected")
	b.ok(fleet.CompleteOrder{Agent: "agent", ID: "o1", ChainPEM: "chain"})
	collect()
	assert.Empty(t, b.view().OrdersOf("agent"))
	assert.Equal(t, fleet.OrderCollected, b.place("agent", order)[0].State, "a late duplicate orders nothing")
	assert.Empty(t, b.view().OrdersIn(fleet.OrderRequested, 0))

	b.now = b.now.Add(24*time.Hour - time.Second)
	b.ok(token("tick"))
	_, ok := b.view().Order("agent", "o1")
	assert.True(t, ok)
	b.now = b.now.Add(time.Second)
	b.ok(token("tock"))
	_, ok = b.view().Order("agent", "o1")
	assert.False(t, ok)
	assert.Zero(t, b.view().Rows(fleet.TableOrders))
}

func TestOpenOrdersAreBounded(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	for i := 0; i < fleet.MaxOpenOrders; i += wire.MaxOrders {
		var orders []fleet.OrderPlacement
		for j := range wire.MaxOrders {
			orders = append(orders, placement(fmt.Sprintf("o%d", i+j), "www.example.com"))
		}
		b.place("agent", orders...)
	}
	outcome := b.place("agent", placement("more", "www.example.com"), placement("o1", "www.example.com"))
	assert.Equal(t, wire.CodeOverloaded, outcome[0].Problem.Code)
	assert.Equal(t, fleet.OrderRequested, outcome[1].State, "known ones are answered")
	_, ok := b.view().Order("agent", "more")
	assert.False(t, ok)
}
