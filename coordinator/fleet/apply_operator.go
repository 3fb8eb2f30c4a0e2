package fleet

import (
	"fmt"
	"time"

	"github.com/certctl/certctl/shared/wire"
)

// zero is no moment.
var zero time.Time

func cancelOrder(c *change, p *CancelOrder) Result {
	if refusal := checkText("note", p.Note, 0, MaxOrderText); !refusal.OK() {
		return refusal
	}
	order, refusal := c.brokeredOrder(p.Agent, p.ID, 0)
	if order == nil {
		return refusal
	}
	if order.Ended() {
		return orderDone(order)
	}
	b := order.brokering()
	if b.Cancel != nil {
		return c.success(OrderChange{ID: order.ID, State: order.State, Revision: order.ModifyIndex, Attempt: b.Attempt, Reference: b.Reference})
	}
	c.askCancel(order, p.Actor, p.Note)
	return c.store(order)
}

// askCancel takes an order back that has not ended: at once, if no authority can have
// it.
func (c *change) askCancel(order *Order, actor, note string) {
	was, b := order.picture(), order.brokering()
	b.Cancel = &OrderCancel{By: actor, Note: note, At: c.at}
	asked := c.orderAct(KindOrderCancelAsked, actor, order, map[string]any{"note": note, "state": order.State})
	if order.State == OrderRequested {
		c.cancelled(order, nil)
	} else {
		b.Next = c.at
	}
	asked.changed(was, order.picture())
}

func retryOrder(c *change, p *RetryOrder) Result {
	order, refusal := c.brokeredOrder(p.Agent, p.ID, 0)
	if order == nil {
		return refusal
	}
	switch {
	case order.Ended():
		return orderDone(order)
	case order.State == OrderPlacing:
		return refuse(wire.CodeConflict, "id", "the order is being placed at this moment", "wait for what comes of it")
	}
	was := order.picture()
	c.anew(order.brokering())
	c.orderAct(KindOrderRetried, p.Actor, order, map[string]any{"state": order.State}).changed(was, order.picture())
	return c.store(order)
}

func resolveOrder(c *change, p *ResolveOrder) Result {
	if refusal := checkText("note", p.Note, 0, MaxOrderText); !refusal.OK() {
		return refusal
	}
	if refusal := checkHandle("handle", p.Handle); !refusal.OK() {
		return refusal
	}
	order, refusal := c.brokeredOrder(p.Agent, p.ID, 0)
	if order == nil {
		return refusal
	}
	switch {
	case order.Ended():
		return orderDone(order)
	case order.State != OrderUnknown:
		return refuse(wire.CodeConflict, "id", fmt.Sprintf("the order is %s: there is no doubt to resolve", order.Stage()), "look at it again; only an order of unknown outcome is resolved")
	case p.Action == ResolveAdopt && p.Handle.IsZero():
		return refuse(wire.CodeInvalid, "handle", "the number of the order at the authority is missing", "look it up at the authority, and give it")
	case p.Action != ResolveAdopt && !p.Handle.IsZero():
		return refuse(wire.CodeInvalid, "handle", "a number of an order is only of use to adopt that order", "leave it out, or adopt the order")
	}
	was, b := order.picture(), order.brokering()
	said := map[string]any{"action": p.Action, "note": p.Note}
	var resolved *act
	switch p.Action {
	case ResolveAdopt:
		b.Handle, order.State = p.Handle, OrderPending
		resolved = c.orderAct(KindOrderResolved, p.Actor, order, said)
		b.Raw, b.Detail, b.Mend, b.Failure, b.Failures = "", "", "", "", 0
		c.anew(b)
		c.arrive(order, b, OrderUnknown)
	case ResolvePlaceAgain:
		resolved = c.orderAct(KindOrderResolved, p.Actor, order, said)
		c.begin(order, b)
		b.RestoredAt = zero
		if b.Cancel != nil {
			c.cancelled(order, nil)
		}
	case ResolveGiveUp:
		resolved = c.orderAct(KindOrderResolved, p.Actor, order, said)
		detail := "it is not known whether the authority has the order, and it was given up"
		if p.Note != "" {
			detail += ": " + p.Note
		}
		b.Next, b.UnknownSince = zero, zero
		order.State, order.DoneAt = OrderRejected, c.at
		order.Problem = problem(refuse(wire.CodeOrderGivenUp, "", detail,
			"look at the authority for what became of it; if the certificate is still wanted, have the agent begin again: \"certctl-agent renew "+order.Certificate+"\""))
		c.orderRejected(order)
	default:
		return refuse(wire.CodeInvalid, "action", fmt.Sprintf("%.20q is none", p.Action), "give adopt, place_again or give_up")
	}
	resolved.changed(was, order.picture())
	return c.store(order)
}

// retireOrders ends the orders of an agent that is retired, as far as that can be done
// here; open counts those that are to be taken back first.
func (c *change) retireOrders(agent, actor string) (open int) {
	for records := c.scan(TableOrders, indexID, key(agent)); ; {
		stored, ok := records.Next().(*Order)
		if !ok {
			return open
		}
		if stored.Brokering == nil {
			c.delete(TableOrders, stored)
			continue
		}
		order := edit(stored)
		order.ModifyIndex = c.index
		switch {
		case stored.Ended() && stored.Fingerprint == "":
			c.delete(TableOrders, stored)
		case stored.State == OrderCollected:
		case stored.Ended():
			order.State, order.DoneAt = OrderCollected, c.at
			order.shrink()
			c.put(TableOrders, order)
		default:
			if stored.Brokering.Cancel == nil {
				c.askCancel(order, actor, "the agent was retired")
			}
			if order.State == OrderCancelled {
				c.delete(TableOrders, stored)
				continue
			}
			c.put(TableOrders, order)
			open++
		}
	}
}
