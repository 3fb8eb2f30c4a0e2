package cluster

import (
	"context"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/shared/jitter"
)

// watchCandidacy frees a candidate that believes in a leader, until ctx is done.
//
// Raft hears heartbeats beside everything else that it does. One that arrives
// just when the node gives its leader up and stands for election leaves it a
// candidate that knows a leader. It votes for nobody then, because there is a
// leader, and goes on like that until it hears from one. If its own log is too
// old to win with, and the others need its vote, there is never a leader again.
//
// It helps to hear that heartbeat once more, now as a candidate: it then follows,
// gives the leader up, and stands for election as it should have. The message
// says nothing but who leads, which no vote and no entry depends on.
func (n *Node) watchCandidacy(ctx context.Context) {
	transport, ok := n.transport.(*Transport)
	if !ok {
		return
	}
	jitter.Loop(ctx, n.config.ElectionTimeout, jitter.DefaultSchedulerJitter, nil, func(ctx context.Context) {
		address, id := n.raft.LeaderWithID()
		if n.raft.State() != raft.Candidate || id == "" || address == "" {
			return
		}
		n.log.Warn("this node stands for election and believes in a leader at once; it begins again", "leader", id)
		transport.remind(ctx, id, address, n.raft.CurrentTerm())
	})
}

// remind has the node hear a heartbeat of a leader. Raft may be busy, with a disk
// that it waits for.
func (t *Transport) remind(ctx context.Context, id raft.ServerID, address raft.ServerAddress, term uint64) {
	leader := t.EncodePeer(id, address)
	heartbeat := raft.RPC{
		Command: &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: leader},
			Term:      term,
		},
		RespChan: make(chan raft.RPCResponse, 1),
	}
	select {
	case t.messages <- heartbeat:
	case <-ctx.Done():
	case <-t.closed:
	}
}
