package orders_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/internal/fakeca"
)

// A host that makes one order after the other spends so much and no more, keeps none of
// another host's waiting, and loses nothing.
func TestAHostOrdersNotMoreThanItMay(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := fakes["sectigo"](t, fakeca.Config{})
		list := issuers(t, v)
		one := list["sectigo"]
		one.AgentOrders, one.Limits.Concurrency = 3, 1
		list["sectigo"] = one
		w.enroll("b")
		engine := w.engine("n1", list)
		engine.lead()
		for i := range 5 {
			id := fmt.Sprintf("o%d", i)
			w.sync("a", []fleet.OrderPlacement{placement(t, id, "sectigo", "www.example.com")})
			pass(10 * time.Minute)
			if i < 3 {
				require.Equal(t, fleet.StageCollected, w.stage(id))
				w.sync("a", nil, id) // what it has got counts all the same
			}
		}
		w.sync("b", []fleet.OrderPlacement{placement(t, "other", "sectigo", "www.example.com")})
		pass(10 * time.Minute)
		other, _ := w.state.View().Order("b", "other")
		assert.Equal(t, fleet.StageCollected, other.Stage())
		assert.Len(t, v.fake.Core().Ledger(nil), 4)
		for _, id := range []string{"o3", "o4"} {
			o := w.order(id)
			assert.Equal(t, fleet.StageNeedsPerson, o.Stage(), "a person is told")
			assert.Contains(t, o.Brokering.Detail, "3 orders of this agent were placed within 24 hours")
			assert.Contains(t, o.Brokering.Mend, "limits.agent_orders")
			assert.Zero(t, o.Brokering.Attempt)
		}
		stored := w.stored()
		pass(20 * time.Hour)
		assert.Less(t, w.stored()-stored, 4, "nobody looks again and again")
		engine.lose()
		engine = w.engine("n2", list) // and another leader goes on
		engine.lead()
		defer engine.lose()
		pass(8 * time.Hour)
		assert.Equal(t, fleet.StageCollected, w.stage("o3"))
		assert.Equal(t, fleet.StageCollected, w.stage("o4"))
		assert.Empty(t, w.order("o3").Brokering.Mend)
		assert.Len(t, v.fake.Core().Ledger(nil), 6)
	})
}

// What a clock that was ahead has set is not waited for, once it is right.
func TestAClockThatWasAheadHoldsUpNoOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := fakes["sectigo"](t, fakeca.Config{Approval: true})
		list := issuers(t, v)
		ahead := func(c *orders.Config) { c.Now = func() time.Time { return time.Now().AddDate(0, 6, 0) } }
		wrong := w.engine("n1", list, ahead)
		wrong.lead()
		defer wrong.lose()
		w.sync("a", []fleet.OrderPlacement{placement(t, "o1", "sectigo", "www.example.com")})
		pass(time.Minute)
		require.True(t, w.order("o1").Brokering.Next.After(time.Now().Add(100*day)))
		wrong.lose()
		right := w.engine("n2", list)
		right.lead()
		defer right.lose()
		require.Equal(t, 1, v.fake.Core().ApproveAll())
		pass(2 * time.Hour)
		assert.Equal(t, fleet.StageCollected, w.stage("o1"))
		assert.Len(t, v.fake.Core().Ledger(nil), 1)
	})
}

// A clock that is set forward proves nothing: the order that its authority does not show
// yet would be placed a second time.
func TestAClockThatIsSetForwardPlacesNothingTwice(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := fakes["digicert"](t, fakeca.Config{Hidden: 90 * time.Second})
		v.fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost})
		var step atomic.Int64
		e := w.engine("n1", issuers(t, v), func(c *orders.Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(step.Load())) }
		})
		e.lead()
		defer e.lose()
		w.sync("a", []fleet.OrderPlacement{placement(t, "o1", "digicert", "www.example.com")})
		pass(3 * time.Second)
		require.Equal(t, fleet.StageUnknown, w.stage("o1"))
		step.Store(int64(time.Hour))
		pass(10 * time.Hour)
		assert.Equal(t, fleet.StageCollected, w.stage("o1"))
		assert.Len(t, v.fake.Core().Ledger(nil), 1)
	})
}
