package agentapi

import (
	"context"
	"encoding/hex"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// orderInterval is how often the worker looks for orders that nobody told it
	// of, as those of an earlier leader.
	orderInterval = 5 * time.Second
	// orderBatch is how many orders are stored together.
	orderBatch = 64
)

// workOrders signs the orders at the built-in CA while this node leads. Signing
// has no effect outside: if two leaders overlap, or one dies between signing
// and storing, the first certificate that is stored is the order's, and nobody
// ever sees the other.
func (s *Service) workOrders(ctx context.Context) error {
	select {
	case <-s.ca.Unsealed():
	case <-ctx.Done():
		return nil
	}
	select {
	case s.placed <- struct{}{}: // look at once for what an earlier leader left
	default:
	}
	jitter.Loop(ctx, orderInterval, jitter.DefaultSchedulerJitter, s.placed, s.workOnce)
	return nil
}

func (s *Service) workOnce(ctx context.Context) {
	orders := s.node.State().View().BuiltinOrders(0)
	for batch := range slices.Chunk(orders, orderBatch) {
		var commands []fleet.Command
		for _, order := range batch {
			payload, err := s.decide(order)
			if err == nil {
				var command fleet.Command
				if command, err = fleet.NewCommand(s.now(), payload); err == nil {
					commands = append(commands, command)
				}
			}
			if err != nil {
				s.log.Error("certificate cannot be issued; the order waits", "agent_id", order.Agent, "order_id", order.ID, "err", err)
			}
		}
		if _, err := s.node.Propose(ctx, commands...); err != nil {
			if ctx.Err() == nil {
				s.log.Warn("issued certificates were not stored; the orders are worked on again", "orders", len(commands), "err", err)
			}
			return
		}
	}
}

// decide is what an order comes to. An error leaves it as it is.
func (s *Service) decide(order *fleet.Order) (fleet.Payload, error) {
	csr, err := pki.ParseCSR(order.CSR)
	if err != nil {
		return fleet.RejectOrder{Agent: order.Agent, ID: order.ID, Problem: *csrProblem("csr", err)}, nil
	}
	// What was allowed is what the proposer read; another version of it may have
	// read the request otherwise.
	if names := csr.Names.Strings(); !slices.Equal(names, order.Names) {
		return fleet.RejectOrder{Agent: order.Agent, ID: order.ID, Problem: *problem.New(wire.CodeCSRInvalid, "csr",
			"the request was read in two ways", "make a new certificate request and ask again")}, nil
	}
	leaf, err := s.ca.IssueLeaf(csr.Names, csr.PublicKey, order.Validity)
	if err != nil {
		return nil, err
	}
	chain, err := s.ca.LeafChain(leaf)
	if err != nil {
		return nil, err
	}
	return fleet.CompleteOrder{
		Agent: order.Agent, ID: order.ID, ChainPEM: string(pki.EncodeChainPEM(chain)), Serial: pki.SerialHex(leaf),
		Fingerprint: pki.Fingerprint(leaf), NotAfter: leaf.NotAfter.UTC(), Signer: hex.EncodeToString(leaf.AuthorityKeyId),
	}, nil
}
