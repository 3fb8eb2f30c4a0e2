package fleet

import (
	"crypto/sha256"
	"net/http"

	"github.com/certctl/certctl/shared/wire"
)

// MaxOpenOrders bounds the orders of one agent that are not collected.
const MaxOpenOrders = 1000

// MaxKeptOrders bounds what is kept of an agent's collected orders at authorities.
// Beyond it, that goes first which would go first by its time.
const MaxKeptOrders = 2000

// place stores a new order, or finds what became of it. It makes no difference
// how often an order is placed.
func (c *change) place(agent *Agent, p *OrderPlacement) OrderOutcome {
	digest := sha256.Sum256(p.CSR)
	if stored := find[Order](c, TableOrders, indexID, key(agent.ID, p.ID)); stored != nil {
		if stored.CSRDigest != digest {
			return OrderOutcome{ID: p.ID, Problem: problem(refuse(wire.CodeConflict, "orders",
				"an order with this id and another certificate request exists", "place the order under a new id"))}
		}
		return OrderOutcome{ID: p.ID, State: stored.State, Problem: stored.Problem}
	}
	open := 0
	for records := c.scan(TableOrders, indexID, key(agent.ID)); ; {
		order, ok := records.Next().(*Order)
		if !ok {
			break
		}
		if order.State != OrderCollected {
			open++
		}
	}
	if open >= MaxOpenOrders {
		return OrderOutcome{ID: p.ID, Problem: problem(refuse(wire.CodeOverloaded, "orders",
			"this agent has too many open orders", "collect the results of earlier orders first"))}
	}

	order := &Order{
		Agent: agent.ID, ID: p.ID, Certificate: p.Certificate, Issuer: p.Issuer, CSR: p.CSR, CSRDigest: digest,
		Names: p.Names.Strings(), PublicKeyFingerprint: p.PublicKeyFingerprint, Validity: p.Validity,
		State: OrderRequested, PlacedAt: c.at, ModifyIndex: c.index,
	}
	switch refusal := namesAllowed(agent.NamePatterns, p.Names, "csr"); {
	case p.Problem != nil:
		order.Problem = p.Problem
	case !refusal.OK():
		order.Problem = problem(refusal)
	}
	c.event(Fact{Kind: KindOrderRequested, Actor: "agent:" + agent.ID, Object: p.ID, Agent: agent.ID}, map[string]any{
		"certificate": p.Certificate, "issuer": p.Issuer, "names": order.Names,
	})
	switch {
	case order.Problem != nil:
		order.State, order.DoneAt = OrderRejected, c.at
		c.orderRejected(order)
	case p.Doubtful && order.Brokered():
		c.doubt(order)
	}
	c.insert(TableOrders, order)
	return OrderOutcome{ID: p.ID, State: order.State, Problem: order.Problem}
}

func (c *change) orderRejected(o *Order) {
	c.event(Fact{Kind: KindOrderRejected, Actor: "system", Object: o.ID, Agent: o.Agent}, map[string]any{
		"certificate": o.Certificate, "issuer": o.Issuer, "code": o.Problem.Code, "detail": o.Problem.Detail,
	})
}

// problem is a refusal in the form in which it reaches an agent.
func problem(r Result) *wire.Problem {
	status := http.StatusUnprocessableEntity
	switch r.Code {
	case wire.CodeConflict:
		status = http.StatusConflict
	case wire.CodeNamesRefused:
		status = http.StatusForbidden
	case wire.CodeOverloaded:
		status = http.StatusTooManyRequests
	}
	return &wire.Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status,
		Code: r.Code, Field: r.Field, Detail: r.Detail, Mend: r.Mend,
	}
}

// collect ends orders whose results the agent has stored. What is left is
// enough to know the order again.
func (c *change) collect(agent *Agent, ids []string) {
	for _, id := range ids {
		stored := find[Order](c, TableOrders, indexID, key(agent.ID, id))
		if stored == nil || (stored.State != OrderIssued && stored.State != OrderRejected && stored.State != OrderCancelled) {
			continue
		}
		order := edit(stored)
		if stored.State == OrderIssued && stored.Brokering != nil {
			order.brokering().DeliveredAt = c.at
			c.orderFact(KindOrderDelivered, "agent:"+agent.ID, order, map[string]any{"serial": order.Serial})
		}
		order.State, order.DoneAt, order.ModifyIndex = OrderCollected, c.at, c.index
		order.shrink()
		c.put(TableOrders, order)
		if order.Brokering != nil {
			c.boundKept(agent.ID)
		}
	}
}

// boundKept keeps to MaxKeptOrders.
func (c *change) boundKept(agent string) {
	var kept int
	var next *Order
	for records := c.scan(TableOrders, indexID, key(agent)); ; {
		order, ok := records.Next().(*Order)
		if !ok {
			break
		}
		if order.State != OrderCollected || order.Brokering == nil {
			continue
		}
		if kept++; next == nil || order.keptUntil().Before(next.keptUntil()) {
			next = order
		}
	}
	if kept > MaxKeptOrders {
		c.delete(TableOrders, next)
	}
}

// requestedOrder looks up an order that has no outcome yet. It is nil if there
// is nothing to do, and the result says why.
func requestedOrder(c *change, agent, id string) (*Order, Result) {
	stored := find[Order](c, TableOrders, indexID, key(agent, id))
	switch {
	case stored == nil:
		return nil, refuse(wire.CodeNotFound, "id", "there is no such order", "")
	case stored.State != OrderRequested || stored.Brokering != nil:
		return nil, c.success(OrderOutcome{ID: id, State: stored.State, Problem: stored.Problem})
	}
	return edit(stored), Result{}
}

func completeOrder(c *change, p *CompleteOrder) Result {
	order, result := requestedOrder(c, p.Agent, p.ID)
	if order == nil {
		return result
	}
	if p.ChainPEM == "" {
		return refuse(wire.CodeInvalid, "chain", "an issued order needs its certificate", "")
	}
	order.State, order.DoneAt, order.ModifyIndex = OrderIssued, c.at, c.index
	order.ChainPEM, order.Serial, order.Fingerprint, order.NotAfter = p.ChainPEM, p.Serial, p.Fingerprint, p.NotAfter
	c.put(TableOrders, order)
	c.issued(order, p.Signer)
	c.orderIssued(order)
	return c.success(OrderOutcome{ID: order.ID, State: order.State})
}

func (c *change) orderIssued(o *Order) {
	c.event(Fact{Kind: KindOrderIssued, Actor: "system", Object: o.ID, Agent: o.Agent}, map[string]any{
		"certificate": o.Certificate, "issuer": o.Issuer, "names": o.Names,
		"serial": o.Serial, "fingerprint": o.Fingerprint, "not_after": o.NotAfter,
	})
}

func rejectOrder(c *change, p *RejectOrder) Result {
	order, result := requestedOrder(c, p.Agent, p.ID)
	if order == nil {
		return result
	}
	order.State, order.DoneAt, order.ModifyIndex = OrderRejected, c.at, c.index
	order.Problem = &p.Problem
	c.put(TableOrders, order)
	c.orderRejected(order)
	return c.success(OrderOutcome{ID: order.ID, State: order.State, Problem: order.Problem})
}
