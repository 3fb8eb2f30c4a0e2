package fleet

import (
	"fmt"
	"slices"
	"time"
)

// doubtOrders makes of the orders of a backup that may have been placed since then
// such of unknown outcome: they are searched for before anybody places them.
func (c *change) doubtOrders() {
	c.position.RestoredAt = c.at
	for records := c.scan(TableOrders, indexOpen, nil); ; {
		stored, ok := records.Next().(*Order)
		if !ok {
			return
		}
		if stored.Brokering != nil && !stored.Brokering.Handle.IsZero() {
			continue
		}
		order := edit(stored)
		order.ModifyIndex = c.index
		c.doubt(order)
		c.put(TableOrders, order)
	}
}

// doubt makes an order one of unknown outcome, of which this state does not know whether
// it was placed.
func (c *change) doubt(order *Order) {
	b := order.brokering()
	b.Reference = OrderReference(order.Agent, order.ID)
	b.Claim = OrderClaim{}
	b.RestoredAt, b.UnknownSince = c.at, c.at
	b.Searches, b.SearchedAt, b.Candidates = 0, zero, nil
	b.NeedsPersonSince = zero
	order.State = OrderUnknown
	c.anew(b)
	c.orderFact(KindOrderUnknown, "system", order, map[string]any{
		"detail": "the state was restored from a backup; the order may have been placed since",
	})
}

// DoubtOrders is for a state that goes on although changes may have been lost that were
// made after it, without the log that a restore goes through: its orders at authorities
// are doubted as those of a backup are. It reports how many of them are of unknown
// outcome then. Where some node may not know of such orders, none of them was ever
// placed, and the state stays as it is.
func (s *State) DoubtOrders(at time.Time) (unknown int, err error) {
	if !s.View().ordersBegan() {
		return 0, nil
	}
	c := &change{txn: s.db.Load().Write(), index: s.index.Load(), at: at.UTC(), infos: map[Table]*tableInfo{}}
	if stored := find[position](c, tablePosition, indexID, key("position")); stored != nil {
		c.position = *stored
	}
	c.doubtOrders()
	c.finish()
	if c.err != nil {
		return 0, fmt.Errorf("fleet state: doubt the orders: %w", c.err)
	}
	s.db.Store(c.txn.Commit())
	for _, order := range s.View().OpenOrders("", 0) {
		if order.State == OrderUnknown {
			unknown++
		}
	}
	return unknown, nil
}

// ordersBegan reports whether an order at an authority may have been claimed.
func (v *View) ordersBegan() bool {
	nodes := v.ClusterNodes()
	if len(nodes) > 0 && !slices.ContainsFunc(nodes, func(n *ClusterNode) bool { return n.Level < ordersLevel }) {
		return true
	}
	for records := v.scan(TableOrders, indexIssuer, nil); ; {
		order, ok := records.Next().(*Order)
		if !ok || order.Brokering != nil {
			return ok
		}
	}
}
