package fleet

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/certctl/certctl/shared/wire"
)

// orderSteps are the states that RecordOrder leads to from each. An order that is
// placing or of unknown outcome may exist at its authority: it goes back to requested,
// to be placed anew, only when it is proven that it does not. Ended orders have no
// steps.
var orderSteps = map[OrderState][]OrderState{
	OrderRequested: {OrderRequested, OrderRejected},
	OrderPlacing: {
		OrderPlacing,   // nothing is known yet
		OrderRequested, // it was surely not placed
		OrderUnknown, OrderPending, OrderNeedsPerson, OrderReady, OrderIssued, OrderRejected,
	},
	OrderUnknown: {
		OrderUnknown,
		OrderRequested,                                                                         // it is not there
		OrderPending, OrderNeedsPerson, OrderReady, OrderIssued, OrderRejected, OrderCancelled, // it was found, and stands so
	},
	OrderPending:     atAuthority,
	OrderNeedsPerson: atAuthority,
	OrderReady:       atAuthority,
}

var atAuthority = []OrderState{OrderPending, OrderNeedsPerson, OrderReady, OrderIssued, OrderRejected, OrderCancelled}

// hasHandle lists the states in which the authority's name of the order is known.
var hasHandle = []OrderState{OrderPending, OrderNeedsPerson, OrderReady, OrderIssued}

// hasNoHandle lists those in which it is not.
var hasNoHandle = []OrderState{OrderRequested, OrderPlacing, OrderUnknown}

// brokeredOrder looks up an order at an authority, at a revision unless that is 0. It
// is a copy to change; nil if there is a refusal.
func (c *change) brokeredOrder(agent, id string, revision uint64) (*Order, Result) {
	stored := find[Order](c, TableOrders, indexID, key(agent, id))
	switch {
	case stored == nil:
		return nil, refuse(wire.CodeNotFound, "id", "there is no such order", "list the orders to see their ids")
	case !stored.Brokered():
		return nil, refuse(wire.CodeConflict, "id", "this order is at the built-in CA, which needs no help", "name an order at an authority")
	case revision != 0 && stored.ModifyIndex != revision:
		return nil, refuse(wire.CodeConflict, "revision", "the order has changed meanwhile", "look at it again")
	case revision == 0 && stored.ModifyIndex == c.index:
		// A command with the revision of this entry must find what it has seen.
		return nil, refuse(wire.CodeConflict, "id", "the order has changed at this very moment", "look at it again, then repeat the command if it is still wanted")
	}
	return edit(stored), Result{}
}

// orderDone is the refusal of what comes too late.
func orderDone(o *Order) Result {
	return refuse(wire.CodeConflict, "id", fmt.Sprintf("the order has ended: it is %s", o.Stage()),
		"if another certificate is wanted, have it renewed: \"certctl renew AGENT CERTIFICATE\"")
}

// store stores an order that was changed.
//
// Of a retired agent, an order that has ended goes, but for what is needed to revoke
// its certificate.
func (c *change) store(o *Order) Result {
	o.ModifyIndex = c.index
	agent := find[Agent](c, TableAgents, indexID, key(o.Agent))
	gone := ended(o.State) && (agent == nil || agent.State == AgentRetired)
	switch {
	case gone && o.Fingerprint == "":
		c.delete(TableOrders, o)
		return c.success(OrderChange{ID: o.ID, Revision: c.index})
	case gone:
		o.State, o.DoneAt = OrderCollected, c.at
		o.shrink()
	}
	c.put(TableOrders, o)
	outcome := OrderChange{ID: o.ID, State: o.State, Revision: o.ModifyIndex, Problem: o.Problem}
	if o.Brokering != nil {
		outcome.Attempt, outcome.Reference = o.Brokering.Attempt, o.Brokering.Reference
	}
	return c.success(outcome)
}

// said is what facts about an order say, more among it.
func (o *Order) said(more map[string]any) map[string]any {
	if more == nil {
		more = map[string]any{}
	}
	more["certificate"], more["issuer"] = o.Certificate, o.Issuer
	if b := o.Brokering; b != nil {
		if b.Reference != "" {
			more["attempt"], more["reference"] = b.Attempt, b.Reference
		}
		if !b.Handle.IsZero() {
			more["order"] = cmp.Or(b.Handle.Order, b.Handle.Certificate, b.Handle.Request)
		}
	}
	return more
}

// orderFact adds a routine fact about an order.
func (c *change) orderFact(kind Kind, actor string, o *Order, more map[string]any) {
	c.event(Fact{Kind: kind, Actor: actor, Object: o.ID, Agent: o.Agent}, o.said(more))
}

// orderAct adds a fact about an order to the audit trail.
func (c *change) orderAct(kind Kind, actor string, o *Order, more map[string]any) *act {
	return c.audit(Fact{Kind: kind, Actor: actor, Object: o.ID, Agent: o.Agent}, o.said(more))
}

func claimOrder(c *change, p *ClaimOrder) Result {
	if refusal := checkText("node", p.Node, 1, 64); !refusal.OK() {
		return refusal
	}
	if refusal := checkHandle("renews", p.Renews); !refusal.OK() {
		return refusal
	}
	if p.Revision == 0 {
		return refuse(wire.CodeInvalid, "revision", "a claim needs the revision of the order", "")
	}
	order, refusal := c.brokeredOrder(p.Agent, p.ID, p.Revision)
	if order == nil {
		return refusal
	}
	if agent, refusal := activeAgent(c, p.Agent); agent == nil {
		return refusal
	}
	was, b := order.picture(), order.brokering()
	switch {
	case order.Ended():
		return orderDone(order)
	case order.State == OrderUnknown && (!p.Again || b.Searches < AbsenceSearches || len(b.Candidates) > 0):
		return refuse(wire.CodeConflict, "id", "nothing proves that the authority does not have the order already", "search for it first, or ask an operator")
	case order.State != OrderUnknown && order.State != OrderRequested:
		return refuse(wire.CodeConflict, "id", fmt.Sprintf("the order is %s", order.Stage()), "")
	case b.Cancel != nil:
		return refuse(wire.CodeConflict, "id", "the order is to be taken back", "")
	}
	if !p.Renews.IsZero() {
		b.Renews = p.Renews
	}
	c.begin(order, b)
	b.Attempt++
	b.Reference = OrderReference(order.Agent, order.ID)
	b.Claim = OrderClaim{Node: p.Node, Term: p.Term, At: c.at}
	b.RestoredAt = zero
	order.State = OrderPlacing
	c.orderAct(KindOrderClaimed, "system", order, map[string]any{"node": p.Node, "term": p.Term, "names": order.Names}).
		changed(was, order.picture())
	return c.store(order)
}

// begin makes of an order one of which the authority knows nothing, and for which
// something is to be done at once.
func (c *change) begin(o *Order, b *Brokering) {
	o.State = OrderRequested
	b.Handle, b.Claim, b.Candidates = OrderHandle{}, OrderClaim{}, nil
	b.Searches, b.SearchedAt, b.UnknownSince, b.NeedsPersonSince = 0, zero, zero, zero
	b.Raw, b.Detail, b.Mend = "", "", ""
	c.anew(b)
}

// anew has an order looked after now, with a new budget.
func (c *change) anew(b *Brokering) { b.Since, b.Asked, b.Slow, b.Next = c.at, 0, false, c.at }

func checkHandle(field string, h OrderHandle) Result {
	for _, part := range []string{h.Order, h.Certificate, h.Request} {
		if refusal := checkText(field, part, 0, MaxOrderHandle); !refusal.OK() {
			return refusal
		}
	}
	return Result{}
}

func checkBrokering(b *Brokering) Result {
	for _, text := range []struct {
		field, value string
		most         int
	}{
		{"raw", b.Raw, MaxOrderRaw}, {"detail", b.Detail, MaxOrderText}, {"mend", b.Mend, MaxOrderText}, {"failure", b.Failure, MaxOrderText},
	} {
		if refusal := checkText(text.field, text.value, 0, text.most); !refusal.OK() {
			return refusal
		}
	}
	if len(b.Candidates) > MaxOrderCandidates {
		return refuse(wire.CodeInvalid, "candidates", fmt.Sprintf("%d; expected at most %d", len(b.Candidates), MaxOrderCandidates), "")
	}
	for _, h := range append([]OrderHandle{b.Handle, b.Renews}, b.Candidates...) {
		if refusal := checkHandle("handle", h); !refusal.OK() {
			return refusal
		}
	}
	return Result{}
}

// checkRecord refuses what is no step of the order.
func checkRecord(stored *Order, p *RecordOrder) Result {
	invalid := func(field, detail string) Result { return refuse(wire.CodeInvalid, field, detail, "") }
	before, after := stored.Brokering, &p.Brokering
	if before == nil {
		before = &Brokering{}
	}
	switch {
	case stored.Ended():
		return orderDone(stored)
	case !slices.Contains(orderSteps[stored.State], p.State):
		return refuse(wire.CodeConflict, "state", fmt.Sprintf("no step leads from %s to %s", stored.State, p.State), "")
	case p.State == OrderIssued != (p.ChainPEM != ""), p.State == OrderIssued != (p.Serial != ""),
		p.State == OrderIssued != (p.Fingerprint != ""), p.State == OrderIssued == p.NotAfter.IsZero():
		return invalid("chain", "a certificate belongs to an order that is issued, and to no other one")
	case p.State == OrderRejected && p.Problem == nil:
		return invalid("problem", "it has to be said why an order is rejected")
	case p.Problem != nil && p.State != OrderRejected && p.State != OrderCancelled:
		return invalid("problem", "an order that goes on has no problem")
	case slices.Contains(hasHandle, p.State) && after.Handle.IsZero():
		return invalid("handle", "what the authority calls the order has to be known")
	case slices.Contains(hasNoHandle, p.State) && !after.Handle.IsZero():
		return invalid("handle", "an order that the authority has a name for is there")
	case !before.Handle.IsZero() && after.Handle.IsZero():
		return invalid("handle", "what the authority calls the order must not be lost")
	}
	if stored.State == OrderUnknown {
		absent := after.Searches >= AbsenceSearches && len(after.Candidates) == 0
		switch {
		case after.Searches > before.Searches+1:
			return invalid("searches", "each search is recorded by itself")
		case p.State == OrderRequested && !absent:
			return refuse(wire.CodeConflict, "state", "nothing proves that the authority does not have the order already", "search for it first, or ask an operator")
		case p.State == OrderRejected && after.Handle.IsZero(), p.State == OrderCancelled && after.Handle.IsZero() && !absent:
			return refuse(wire.CodeConflict, "state", "an order of unknown outcome may exist at the authority", "search for it first, or ask an operator")
		}
	}
	return checkBrokering(after)
}

func recordOrder(c *change, p *RecordOrder) Result {
	if p.Revision == 0 {
		return refuse(wire.CodeInvalid, "revision", "a record needs the revision of the order", "")
	}
	order, refusal := c.brokeredOrder(p.Agent, p.ID, p.Revision)
	if order == nil {
		return refusal
	}
	if refusal := checkRecord(order, p); !refusal.OK() {
		return refusal
	}
	from, to := order.State, p.State
	before := order.brokering() // a copy, or an empty one
	b := edit(&p.Brokering)
	b.keep(before)
	order.Brokering, order.State = b, to

	if from == OrderUnknown && b.Searches > 0 && before.Searches == 0 {
		b.SearchedAt = c.at
	}
	if to != from {
		c.arrive(order, b, from)
	}
	if b.Slow && !before.Slow && !ended(to) {
		c.orderFact(KindOrderSlow, "system", order, map[string]any{"since": b.Since})
	}
	switch to {
	case OrderRequested:
		if b.Cancel != nil { // and it is not there: it need not be placed at all
			c.cancelled(order, nil)
		}
	case OrderIssued:
		order.DoneAt = c.at
		order.ChainPEM, order.Serial, order.Fingerprint, order.NotAfter = p.ChainPEM, p.Serial, p.Fingerprint, p.NotAfter
		c.orderIssued(order)
	case OrderRejected:
		order.DoneAt, order.Problem = c.at, p.Problem
		c.orderRejected(order)
	case OrderCancelled:
		c.cancelled(order, p.Problem)
	}
	return c.store(order)
}

// keep takes over what RecordOrder has no say in.
func (b *Brokering) keep(before *Brokering) {
	b.Reference, b.Attempt, b.Claim, b.Cancel = before.Reference, before.Attempt, before.Claim, before.Cancel
	b.SubmittedAt, b.ReadyAt, b.FetchedAt, b.DeliveredAt, b.CancelledAt = before.SubmittedAt, before.ReadyAt, before.FetchedAt, before.DeliveredAt, before.CancelledAt
	b.NeedsPersonSince, b.UnknownSince, b.SearchedAt, b.RestoredAt = before.NeedsPersonSince, before.UnknownSince, before.SearchedAt, before.RestoredAt
}

// arrive brings the times of an order that has come to another state, and tells of it.
func (c *change) arrive(order *Order, b *Brokering, from OrderState) {
	if from == OrderUnknown {
		b.Candidates, b.Searches, b.SearchedAt, b.UnknownSince, b.RestoredAt = nil, 0, zero, zero, zero
	}
	b.NeedsPersonSince = zero
	if (from == OrderPlacing || from == OrderUnknown) && slices.Contains(hasHandle, order.State) {
		b.SubmittedAt = c.at
		c.orderFact(KindOrderSubmitted, "system", order, map[string]any{"found": from == OrderUnknown})
	}
	said := map[string]any{}
	for _, part := range [][2]string{{"raw", b.Raw}, {"detail", b.Detail}, {"mend", b.Mend}, {"failure", b.Failure}} {
		if part[1] != "" {
			said[part[0]] = part[1]
		}
	}
	switch order.State {
	case OrderRequested:
		b.Claim = OrderClaim{}
		c.orderFact(KindOrderNotPlaced, "system", order, said)
	case OrderUnknown:
		b.UnknownSince, b.Searches, b.SearchedAt, b.Candidates = c.at, 0, zero, nil
		c.orderFact(KindOrderUnknown, "system", order, said)
	case OrderPending:
		if from == OrderNeedsPerson || from == OrderReady {
			c.orderFact(KindOrderPending, "system", order, said)
		}
	case OrderNeedsPerson:
		b.NeedsPersonSince = c.at
		c.orderFact(KindOrderNeedsPerson, "system", order, said)
	case OrderReady:
		b.ReadyAt = c.at
		c.orderFact(KindOrderReady, "system", order, said)
	case OrderIssued:
		if b.ReadyAt.IsZero() {
			b.ReadyAt = c.at
		}
		b.FetchedAt = c.at
	}
}

// cancelled ends an order that was taken back.
func (c *change) cancelled(order *Order, said *wire.Problem) {
	b := order.brokering()
	b.CancelledAt, b.Next, b.NeedsPersonSince, b.UnknownSince = c.at, zero, zero, zero
	order.State, order.DoneAt = OrderCancelled, c.at
	actor, detail := "system", "the order was cancelled at the authority"
	if b.Cancel != nil {
		actor, detail = b.Cancel.By, "the order was cancelled"
		if b.Cancel.Note != "" {
			detail += ": " + b.Cancel.Note
		}
	} else if said != nil && said.Detail != "" {
		detail = said.Detail
	}
	order.Problem = problem(refuse(wire.CodeOrderCancelled, "", detail,
		"if the certificate is still wanted, have the agent begin again: \"certctl-agent renew "+order.Certificate+"\""))
	c.orderFact(KindOrderCancelled, actor, order, map[string]any{"detail": detail})
}
