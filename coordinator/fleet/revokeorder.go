package fleet

import (
	"fmt"
	"time"

	"github.com/certctl/certctl/shared/wire"
)

// OrderRevocation is what became of the wish that the certificate of an order be
// revoked at its authority.
type OrderRevocation struct {
	By     string    `cbor:"1,keyasint,omitempty"`
	Reason int       `cbor:"2,keyasint,omitempty"` // CRLReason, RFC 5280, section 5.3.1
	At     time.Time `cbor:"3,keyasint"`           // when it was asked for last
	// TakenAt is when the authority took the request to decide on it later, DoneAt when
	// it said that the certificate is revoked; zero before.
	TakenAt time.Time `cbor:"4,keyasint,omitzero"`
	DoneAt  time.Time `cbor:"5,keyasint,omitzero"`
	// Failure is what has kept the authority from it last.
	Failure string `cbor:"6,keyasint,omitempty"`
}

// RevocationStep is how far a revocation at an authority is.
type RevocationStep string

// Steps. Each wish begins with the first, which is stored before the authority is
// asked.
const (
	RevocationAsked  RevocationStep = "asked"
	RevocationTaken  RevocationStep = "taken" // the authority decides later
	RevocationDone   RevocationStep = "done"
	RevocationFailed RevocationStep = "failed"
)

// RevokeOrder stores how far the revocation of the certificate of an order is at its
// authority. One that is done stays so. The outcome is an OrderChange.
//
// Codes: CodeNotFound, CodeConflict, CodeInvalid.
type RevokeOrder struct {
	Actor  string         `cbor:"1,keyasint,omitempty"`
	Agent  string         `cbor:"2,keyasint"`
	ID     string         `cbor:"3,keyasint"`
	Step   RevocationStep `cbor:"4,keyasint"`
	Reason int            `cbor:"5,keyasint,omitempty"`
	// Failure is of RevocationFailed. It is cut to its bound when the command is made.
	Failure string `cbor:"6,keyasint,omitempty"`
}

func (RevokeOrder) commandType() Type { return TypeRevokeOrder }

// bounded is the command with a text that can be stored, whatever an authority says.
func (p RevokeOrder) bounded() RevokeOrder {
	p.Failure = cutText(p.Failure, MaxOrderText)
	return p
}

func revokeOrder(c *change, p *RevokeOrder) Result {
	if p.Reason < 0 || p.Reason > 10 || p.Reason == 7 {
		return refuse(wire.CodeInvalid, "reason", "this is no reason of RFC 5280, section 5.3.1", "")
	}
	if refusal := checkText("failure", p.Failure, 0, MaxOrderText); !refusal.OK() {
		return refusal
	}
	order, refusal := c.brokeredOrder(p.Agent, p.ID, 0)
	if order == nil {
		return refusal
	}
	if order.Fingerprint == "" {
		return refuse(wire.CodeConflict, "id", fmt.Sprintf("the order has no certificate that could be revoked: it is %s", order.Stage()), "")
	}
	r := &OrderRevocation{}
	if order.Revocation != nil {
		r = edit(order.Revocation)
	}
	if !r.DoneAt.IsZero() {
		return c.success(OrderChange{ID: order.ID, State: order.State, Revision: order.ModifyIndex})
	}
	said := map[string]any{"serial": order.Serial, "reason": p.Reason}
	was := order.picture()
	var done *act
	switch p.Step {
	case RevocationAsked:
		r.By, r.Reason, r.At = p.Actor, p.Reason, c.at
		done = c.orderAct(KindOrderRevocationAsked, p.Actor, order, said)
	case RevocationTaken:
		r.TakenAt, r.Failure = c.at, ""
		done = c.orderAct(KindOrderRevocationTaken, p.Actor, order, said)
	case RevocationDone:
		r.DoneAt, r.Failure = c.at, ""
		said["not_after"], said["issuer"] = order.NotAfter, order.Issuer
		done = c.audit(Fact{Kind: KindCertificateRevoked, Actor: p.Actor, Object: order.Certificate, Agent: order.Agent}, said)
	case RevocationFailed:
		r.Failure = p.Failure
		said["failure"] = p.Failure
		c.orderFact(KindOrderRevocationFailed, p.Actor, order, said)
	default:
		return refuse(wire.CodeInvalid, "step", fmt.Sprintf("%.20q is none", p.Step), "give asked, taken, done or failed")
	}
	order.Revocation, order.ModifyIndex = r, c.index
	if done != nil {
		done.changed(was, order.picture())
	}
	c.put(TableOrders, order)
	return c.success(OrderChange{ID: order.ID, State: order.State, Revision: order.ModifyIndex})
}

// revocationState sorts revocations: those that are not done first.
func revocationState(o *Order) string {
	if o.Revocation.DoneAt.IsZero() {
		return "asked"
	}
	return "done"
}

// OpenRevocations lists the orders whose certificates somebody wants to be revoked, and
// of which the authority has not said that they are, up to limit (0 is all).
func (v *View) OpenRevocations(limit int) []*Order {
	return first[Order](v.scan(TableOrders, indexRevocation, key("asked")), limit, nil)
}

// OrderRevocations lists the orders whose certificates somebody wants to be revoked at
// their authorities, of one agent or of all with "": those that are not yet, then, if
// open is false, those that are. next continues the list; it is "" at the end. The error
// is ErrCursor.
func (v *View) OrderRevocations(agent string, open bool, page Page) (list []*Order, next string, err error) {
	plan := scanPlan{table: TableOrders, index: indexRevocation}
	if open {
		plan.prefix = key("asked")
	}
	return paginate(v, plan, page, func(o *Order) verdict { return keep(agent == "" || o.Agent == agent) })
}

// OrdersBySerial lists the orders at authorities that came to a certificate with a
// serial number (lower-case hex). It looks through all of them: it is for what people
// ask.
func (v *View) OrdersBySerial(serial string) []*Order {
	if serial == "" {
		return nil
	}
	var list []*Order
	for records := v.scan(TableOrders, indexIssuer, nil); ; {
		order, ok := records.Next().(*Order)
		if !ok {
			return list
		}
		if order.Serial == serial && order.Fingerprint != "" {
			list = append(list, order)
		}
	}
}
