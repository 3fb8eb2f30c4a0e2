package agentapi

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// BuiltinIssuer is the name of the built-in CA in orders; "" means it too.
const BuiltinIssuer = "builtin"

// orderPatience is how long a sync waits for the certificates that it ordered,
// so that its answer has them.
const orderPatience = 2 * time.Second

// placement reads an order. What is wrong with one rejects that order and not
// the sync: the others must not suffer from it.
func (s *Service) placement(view *fleet.View, agentID string, order *wire.OrderRequest) fleet.OrderPlacement {
	p := fleet.OrderPlacement{
		ID: order.ID, Certificate: order.Certificate, Issuer: order.Issuer, CSR: order.CSR,
		Validity: time.Duration(min(order.ValiditySeconds, int64(ca.IssuingLifetime/time.Second))) * time.Second,
	}
	if p.Issuer == "" {
		p.Issuer = BuiltinIssuer
	}
	if known, ok := view.Order(agentID, order.ID); ok && known.CSRDigest == sha256.Sum256(order.CSR) {
		return p // placed before, and judged then
	}
	csr, err := pki.ParseCSR(order.CSR)
	if err != nil {
		p.Problem = csrProblem("csr", err)
		return p
	}
	p.Names = csr.Names
	if p.PublicKeyFingerprint, err = pki.PublicKeyFingerprint(csr.PublicKey); err != nil {
		p.Problem = csrProblem("csr", err)
		return p
	}
	switch own := reservedName(csr.Names, s.reserved); {
	case p.Issuer != BuiltinIssuer:
		p.Problem = problem.New(wire.CodeIssuerUnknown, "issuer", fmt.Sprintf("this coordinator has no issuer %q", order.Issuer),
			fmt.Sprintf("give %q, the built-in CA, or leave the issuer out", BuiltinIssuer))
	case own != "":
		p.Problem = reservedProblem("csr", own)
	case p.Validity > 0 && p.Validity < ca.MinLifetime:
		p.Problem = problem.New(wire.CodeInvalid, "validity_seconds", fmt.Sprintf("a lifetime of %v is too short", p.Validity),
			fmt.Sprintf("ask for at least %v, or leave it to the issuer", ca.MinLifetime))
	}
	return p
}

// reservedName is the first of names with which its holder could pose as one of
// reserved, "" if there is none. A reserved wildcard stands for every name that
// a client would accept it for.
func reservedName(names, reserved pki.Names) string {
	for _, own := range reserved.DNS {
		label, parent, _ := strings.Cut(own, ".")
		for _, name := range names.DNS {
			if _, above, _ := strings.Cut(name, "."); name == own || name == "*."+parent || label == "*" && above == parent {
				return name
			}
		}
	}
	for _, own := range reserved.IPs {
		if slices.Contains(names.IPs, own) {
			return own.String()
		}
	}
	return ""
}

// reservedProblem refuses a name of the coordinator.
func reservedProblem(field, name string) *wire.Problem {
	return problem.New(wire.CodeNamesRefused, field, name+" is a name of the coordinator itself, for which agents get no certificate",
		"ask for other names, or get this certificate from another issuer")
}

// open leaves out of collected orders those whose collection is stored already,
// or that are long forgotten: an agent repeats them after a lost answer.
func open(view *fleet.View, agentID string, collected []string) []string {
	return slices.DeleteFunc(slices.Clone(collected), func(id string) bool {
		order, ok := view.Order(agentID, id)
		return !ok || order.State == fleet.OrderCollected
	})
}

// awaitOrders waits a little for the outcome of orders that are new since
// before.
func (s *Service) awaitOrders(ctx context.Context, before *fleet.View, agentID string, placed []fleet.OrderOutcome) {
	var waiting []string
	for _, order := range placed {
		if _, known := before.Order(agentID, order.ID); !known && order.State == fleet.OrderRequested {
			waiting = append(waiting, order.ID)
		}
	}
	if len(waiting) == 0 {
		return
	}
	select {
	case s.placed <- struct{}{}:
	default: // the worker has been told, and has not looked yet
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	for {
		view := s.node.State().View()
		waiting = slices.DeleteFunc(waiting, func(id string) bool {
			order, ok := view.Order(agentID, id)
			return !ok || order.State != fleet.OrderRequested
		})
		if len(waiting) == 0 || s.node.WaitIndex(ctx, view.Index()+1) != nil {
			return
		}
	}
}

// orderResults are the results to send: first of the orders that the request
// had, then of others that the agent has not collected. pending says that at
// least one has none yet.
func orderResults(view *fleet.View, agentID string, asked []fleet.OrderOutcome) (results []wire.OrderResult, pending bool) {
	told := map[string]bool{}
	add := func(result wire.OrderResult) {
		told[result.ID] = true
		pending = pending || result.State == wire.OrderPending
		results = append(results, result)
	}
	for _, outcome := range asked {
		if outcome.State == "" {
			add(notStored(outcome))
			continue
		}
		if order, ok := view.Order(agentID, outcome.ID); ok {
			add(resultOf(order))
		}
	}
	for _, order := range view.OrdersOf(agentID) {
		if len(results) >= wire.MaxOrders {
			break // the rest comes when these are collected
		}
		if !told[order.ID] && order.State != fleet.OrderRequested {
			add(resultOf(order))
		}
	}
	return results, pending
}

func resultOf(order *fleet.Order) wire.OrderResult {
	result := wire.OrderResult{ID: order.ID, State: wire.OrderPending}
	switch order.State {
	case fleet.OrderIssued:
		result.State, result.Chain = wire.OrderIssued, order.ChainPEM
	case fleet.OrderRejected:
		result.State, result.Problem = wire.OrderRejected, order.Problem
	case fleet.OrderCollected:
		result.State = wire.OrderRejected
		result.Problem = problem.New(wire.CodeConflict, "orders", "the result of this order was collected before, and is not kept",
			"place a new order under a new id")
	}
	return result
}

// notStored is the answer to an order that the state did not take: for good, or
// for want of room.
func notStored(outcome fleet.OrderOutcome) wire.OrderResult {
	if outcome.Problem != nil && outcome.Problem.Code == wire.CodeOverloaded {
		return wire.OrderResult{ID: outcome.ID, State: wire.OrderPending}
	}
	return wire.OrderResult{ID: outcome.ID, State: wire.OrderRejected, Problem: outcome.Problem}
}
