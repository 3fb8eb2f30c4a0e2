package fleet

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
