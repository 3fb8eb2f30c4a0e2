package cluster

import (
	"context"
	"errors"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/peer"
)

// CheckAddress refuses an address for a node, which may be a member or not, with
// *AddressTakenError if another member has it and answers there.
func (n *Node) CheckAddress(ctx context.Context, id, address string) error {
	_, servers := n.configuration()
	if holder := holderOf(servers, id, address); holder != nil {
		return n.vacated(ctx, holder)
	}
	return nil
}

// holderOf is the member other than id that has an address, nil if there is none.
func holderOf(servers []raft.Server, id, address string) *raft.Server {
	for i, s := range servers {
		if string(s.Address) == address && string(s.ID) != id {
			return &servers[i]
		}
	}
	return nil
}

// vacated refuses to take a member's address away while the member lives there.
// Whoever is dialled has to be the node that is meant, so that an answer is one
// of that member.
func (n *Node) vacated(ctx context.Context, holder *raft.Server) error {
	taken := &AddressTakenError{Address: string(holder.Address), Member: string(holder.ID)}
	if taken.Member == n.config.NodeID {
		if n.config.address() == holder.Address {
			return taken
		}
		return nil // this node has moved itself
	}
	if n.config.Peers == nil {
		return nil
	}
	probe, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	_, err := n.config.Peers.Call(probe, taken.Member, taken.Address, methodStats, nil)
	if _, declined := errors.AsType[*peer.CallError](err); err == nil || declined {
		return taken
	}
	return ctx.Err() // or silence would be that of the caller
}
