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

// maxValidity bounds what agents may ask of other issuers than the built-in CA, which
// cap it further.
const maxValidity = 10 * 366 * 24 * time.Hour

// placement reads an order. What is wrong with one rejects that order and not
// the sync: the others must not suffer from it.
func (s *Service) placement(view *fleet.View, agentID string, order *wire.OrderRequest) fleet.OrderPlacement {
	p := fleet.OrderPlacement{ID: order.ID, Certificate: order.Certificate, Issuer: order.Issuer, CSR: order.CSR}
	if p.Issuer == "" {
		p.Issuer = BuiltinIssuer
	}
	builtin, longest := p.Issuer == BuiltinIssuer, maxValidity
	if builtin {
		longest = ca.IssuingLifetime
	}
	p.Validity = time.Duration(min(order.ValiditySeconds, int64(longest/time.Second))) * time.Second
	known, ok := view.Order(agentID, order.ID)
	if ok && known.CSRDigest == sha256.Sum256(order.CSR) {
		return p // placed before, and judged then
	}
	p.Doubtful = !builtin && !ok && s.doubtful(view, order)
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
	case !builtin && !s.known(p.Issuer):
		p.Problem = problem.New(wire.CodeIssuerUnknown, "issuer", fmt.Sprintf("this coordinator has no issuer %q", order.Issuer),
			fmt.Sprintf("give one that the coordinator's settings have, or %q, the built-in CA", BuiltinIssuer))
	case own != "":
		p.Problem = reservedProblem("csr", own)
	case p.Validity > 0 && p.Validity < ca.MinLifetime: // no authority issues shorter ones either
		p.Problem = problem.New(wire.CodeInvalid, "validity_seconds", fmt.Sprintf("a lifetime of %v is too short", p.Validity),
			fmt.Sprintf("ask for at least %v, or leave it to the issuer", ca.MinLifetime))
	}
	return p
}

const (
	// doubtSkew is how far the clocks of hosts may differ from the coordinator's.
	doubtSkew = time.Hour
	// doubtFor is how long after a restore an order of an agent that does not say when
	// it made it may be one of before.
	doubtFor = 90 * 24 * time.Hour
)

// doubtful reports whether an order that the state does not know may have been placed
// before the state was replaced by that of a backup.
func (s *Service) doubtful(view *fleet.View, order *wire.OrderRequest) bool {
	restored := view.RestoredAt()
	switch {
	case restored.IsZero():
		return false
	case order.PlacedAt.IsZero():
		return s.now().Before(restored.Add(doubtFor))
	}
	return order.PlacedAt.Before(restored.Add(doubtSkew))
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

// wake has those orders worked on at other issuers that nobody has begun with: they
// are new, or whoever stored them was lost before it could say so.
func (s *Service) wake(view *fleet.View, agentID string, asked []fleet.OrderOutcome) {
	if slices.ContainsFunc(asked, func(outcome fleet.OrderOutcome) bool {
		order, ok := view.Order(agentID, outcome.ID)
		return ok && order.Brokered() && (order.State == fleet.OrderRequested || order.State == fleet.OrderUnknown && order.Brokering.Searches == 0)
	}) {
		s.brokered()
	}
}

// awaitOrders waits a little for the outcome of orders at the built-in CA that are new
// since before.
func (s *Service) awaitOrders(ctx context.Context, before *fleet.View, agentID string, placed []fleet.OrderOutcome) {
	var waiting []string
	after := s.node.State().View()
	for _, outcome := range placed {
		order, ok := after.Order(agentID, outcome.ID)
		if _, known := before.Order(agentID, outcome.ID); !known && ok && !order.Brokered() && outcome.State == fleet.OrderRequested {
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
// had, then of others that the agent has not collected. pending is the longest pause
// of an agent that waits for one of them, 0 if it waits for none.
func orderResults(view *fleet.View, agentID string, asked []fleet.OrderOutcome, now time.Time) (results []wire.OrderResult, pending time.Duration) {
	told := map[string]bool{}
	add := func(result wire.OrderResult, pause time.Duration) {
		told[result.ID] = true
		if result.State == wire.OrderPending && (pending == 0 || pause < pending) {
			pending = pause
		}
		results = append(results, result)
	}
	for _, outcome := range asked {
		if outcome.State == "" {
			add(notStored(outcome), pendingPause)
			continue
		}
		if order, ok := view.Order(agentID, outcome.ID); ok {
			add(resultOf(order), patienceWith(order, now))
		}
	}
	for _, order := range view.OrdersOf(agentID) {
		if len(results) >= wire.MaxOrders {
			break // the rest comes when these are collected
		}
		if !told[order.ID] && order.Ended() {
			add(resultOf(order), 0)
		}
	}
	return results, pending
}

// patienceWith is the longest pause of an agent that waits for an order. An order that
// stays at an authority for weeks must not have a fleet come every few seconds.
func patienceWith(order *fleet.Order, now time.Time) time.Duration {
	if !order.Brokered() || order.State == fleet.OrderReady {
		return pendingPause
	}
	return max(pendingPause, now.Sub(order.PlacedAt)/agePart)
}

// agePart: an agent learns of a certificate that an authority has taken some time for
// after at most that part of the time.
const agePart = 8

func resultOf(order *fleet.Order) wire.OrderResult {
	result := wire.OrderResult{ID: order.ID, State: wire.OrderPending}
	switch order.State {
	case fleet.OrderIssued:
		result.State, result.Chain = wire.OrderIssued, order.ChainPEM
	case fleet.OrderRejected, fleet.OrderCancelled:
		result.State, result.Problem = wire.OrderRejected, order.Problem
	case fleet.OrderCollected:
		result.State, result.Problem = wire.OrderRejected, order.Problem
		if order.Problem == nil {
			result.Problem = problem.New(wire.CodeConflict, "orders", "the result of this order was collected before, and is not kept",
				"place a new order under a new id")
		}
	default:
		if order.Brokered() {
			progress(order, &result)
		}
	}
	return result
}

// progress says what an order at an authority waits for.
func progress(order *fleet.Order, result *wire.OrderResult) {
	result.Stage = wire.OrderStage(order.Stage())
	b := order.Brokering
	if b == nil {
		return
	}
	result.Detail, result.Mend = b.Detail, b.Mend
	if b.Handle.IsZero() && result.Detail == "" {
		result.Detail = b.Failure // why it is not at the authority
	}
}

// notStored is the answer to an order that the state did not take: for good, or
// for want of room.
func notStored(outcome fleet.OrderOutcome) wire.OrderResult {
	if outcome.Problem != nil && outcome.Problem.Code == wire.CodeOverloaded {
		return wire.OrderResult{ID: outcome.ID, State: wire.OrderPending}
	}
	return wire.OrderResult{ID: outcome.ID, State: wire.OrderRejected, Problem: outcome.Problem}
}
