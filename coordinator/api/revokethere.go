package api

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/shared/wire"
)

// revokeTime bounds the question to the authority: whoever waits for the answer has
// half a minute.
const revokeTime = 20 * time.Second

// notIts refuses to revoke what was issued to another agent.
func notIts(agent string) *Problem {
	return newProblem(wire.CodeConflict, "agent_id", "this agent reports a certificate that was issued to the agent "+agent,
		"find out how it came to it; to revoke it, give the agent that it was issued to")
}

// orderOf is the order at an authority that came to a certificate, which knows whose it
// is whatever hosts say; nil if there is none. The row is of the host that has the
// certificate in service, if one has; else agent is whose order it is, if that was said.
func orderOf(view *fleet.View, serial, agent string, row *fleet.Certificate) (*fleet.Order, *Problem) {
	if _, builtin := view.Issued(serial); builtin {
		return nil, nil
	}
	list := view.OrdersBySerial(serial)
	if row == nil {
		if agent != "" {
			list = slices.DeleteFunc(list, func(o *fleet.Order) bool { return o.Agent != agent })
		}
		if len(list) > 1 {
			return nil, newProblem(wire.CodeConflict, "serial", "several orders came to a certificate with this serial number", "give agent_id and certificate")
		}
		if len(list) == 1 {
			return list[0], nil
		}
		return nil, nil
	}
	for _, o := range list {
		switch {
		case o.Fingerprint != row.Columns.Fingerprint: // another authority's certificate
		case o.Agent != row.Agent:
			return nil, notIts(o.Agent)
		default:
			return o, nil
		}
	}
	return nil, nil
}

// revokedThere reports whether the authority has said that it revoked the certificate of
// an order.
func revokedThere(o *fleet.Order) bool { return o.Revocation != nil && !o.Revocation.DoneAt.IsZero() }

// revokeThere has an authority revoke the certificate of an order, and returns the order
// as it is then. The wish is stored first, what came of it afterwards, also if nobody
// waits for it any more.
func (s *server) revokeThere(ctx context.Context, o *fleet.Order, actor string, reason int) (*fleet.Order, error) {
	if revokedThere(o) {
		return o, nil
	}
	step := fleet.RevokeOrder{Actor: actor, Agent: o.Agent, ID: o.ID, Step: fleet.RevocationAsked, Reason: reason}
	if _, err := s.do(ctx, step); err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, revokeTime)
	defer cancel()
	done, failure := s.Orders.Revoke(within, orders.Revocation{Agent: o.Agent, Order: o.ID, Reason: reason})
	switch {
	case failure != nil:
		step.Step, step.Failure = fleet.RevocationFailed, connector.Detail(failure.Error())
	case done:
		step.Step = fleet.RevocationDone
	default:
		step.Step = fleet.RevocationTaken
	}
	_, err := s.do(context.WithoutCancel(ctx), step)
	if failure != nil {
		return nil, unrevoked(o, failure)
	}
	if err != nil {
		return nil, err
	}
	stored, ok := s.Node.State().View().Order(o.Agent, o.ID)
	if !ok {
		return nil, s.fail("revoke a certificate at its authority", errors.New("its order is gone"))
	}
	return stored, nil
}

// unrevoked says why an authority has not revoked a certificate.
func unrevoked(o *fleet.Order, err error) *Problem {
	const not = "the certificate is NOT REVOKED: "
	switch {
	case errors.Is(err, orders.ErrUnknownIssuer):
		return newProblem(wire.CodeConflict, "", not+"this node has no issuer "+clip(o.Issuer)+" in its settings",
			"put it there, with the same name, or revoke it in the authority's console; all nodes need the same issuers")
	case errors.Is(err, orders.ErrUnsupported):
		return newProblem(wire.CodeConflict, "", not+"the issuer "+clip(o.Issuer)+" has no way of revoking one for certctl", "revoke it in the authority's console")
	case errors.Is(err, orders.ErrUnknownOrder), errors.Is(err, orders.ErrNotIssued):
		return newProblem(wire.CodeConflict, "", not+"its order has changed at this moment", "look at the order, then ask again")
	}
	told := *connector.Classify(err)
	mend := told.Mend
	told.Mend = ""
	p := newProblem(wire.CodeConflict, "", not+connector.Detail(told.Error()), mend)
	switch told.Class {
	case connector.ClassRetry, connector.ClassBusy, connector.ClassAnswer, connector.ClassNotReady:
		p = newProblem(wire.CodeUnavailable, "", not+connector.Detail(told.Error()), mend)
	}
	if p.Mend == "" {
		p.Mend = "it is tried again by itself, and \"certctl jobs list --kind revocation\" shows how it goes; asking again does no harm; or revoke it in the authority's console"
	}
	return p
}
