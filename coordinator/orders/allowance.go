package orders

import (
	"fmt"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
)

const (
	// AgentOrdersSpan is the time within which [Issuer.AgentOrders] counts.
	AgentOrdersSpan = 24 * time.Hour
	// fullPause is the least time until an order is looked at again that waits for its
	// agent's allowance. Many of them may, and few go on at a time.
	fullPause = time.Hour
)

// full says that the agent of an order has had as many placed lately as it may, and has
// the order wait: orders cost money, and a host that makes one after the other, by a
// defect or in the wrong hands, is not to spend that of all. Those that are begun in the
// same moment are not seen, so that it may be exceeded by as many as the account has
// under way.
func (s *step) full(o *fleet.Order) (turn, bool) {
	most := s.account.issuer.AgentOrders
	if most <= 0 || s.account.rules.repeatable {
		return turn{}, false
	}
	now := s.now()
	count, first := s.e.config.Node.State().View().OrdersPlaced(o.Agent, o.Issuer, now.Add(-AgentOrdersSpan))
	if count < most {
		return turn{}, false
	}
	return s.account.rules.put(o, count, first.Add(AgentOrdersSpan), now), true
}

// put has an order wait that its agent may not have placed before a moment.
func (r *rules) put(o *fleet.Order, count int, until, now time.Time) turn {
	t := begin(o)
	t.b.Detail = fmt.Sprintf("%d orders of this agent were placed within 24 hours, which is as many as limits.agent_orders of the issuer allows", count)
	t.b.Mend = "see why the host orders so much; if it should, raise limits.agent_orders, else cancel what is not wanted; it goes on by itself when it may"
	t.b.Next = latest(until, now.Add(fullPause))
	t.b.Next = t.b.Next.Add(r.scatter(fullPause) - fullPause)
	return t
}
