package cluster

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/shared/backoff"
)

// askings is how often, about, a candidate asks for a vote that changes nothing
// while its election lasts.
const askings = 5

// campaign lets a candidate ask again that was refused.
//
// The nodes notice the loss of their leader at different moments, up to an
// election timeout apart. The first that does asks the others whether they would
// vote for it, and one that has not noticed yet says no. Raft then lets the whole
// election pass before it asks again; and where the other one cannot win by
// itself, because it lacks the last entry, nobody leads for as long. The question
// promises and changes nothing, so that it can be asked until the answer is yes.
type campaign struct {
	life     context.Context // of the node
	patience time.Duration   // how long an election lasts at least
	pause    time.Duration   // before it asks again, about
}

// campaigning makes the transport ask again.
func (t *Transport) campaigning(life context.Context, patience time.Duration) {
	t.campaign.Store(&campaign{life: life, patience: patience, pause: patience / askings})
}

// RequestPreVote implements raft.WithPreVote.
func (t *Transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	ask := func() error {
		*resp = raft.RequestPreVoteResponse{}
		return t.NetworkTransport.RequestPreVote(id, t.to(id, target), args, resp)
	}
	err := ask()
	c := t.campaign.Load()
	if c == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.life, c.patience)
	defer cancel()
	pause := backoff.Policy{Initial: c.pause, Max: c.pause, Multiplier: 1, Jitter: 0.5}
	for err == nil && !resp.Granted && resp.Term < args.Term && t.newest.Load() < args.Term && backoff.Wait(ctx, pause.Delay(1, nil)) == nil {
		if t.newest.Load() < args.Term { // else there is another candidate by now, or a leader
			err = ask()
		}
	}
	return err
}

// newestTerm is the newest term that another node has named.
type newestTerm struct{ atomic.Uint64 }

// note looks at what has come from another node.
func (n *newestTerm) note(message raft.RPC) {
	term := uint64(0)
	switch command := message.Command.(type) {
	case *raft.RequestVoteRequest:
		term = command.Term
	case *raft.AppendEntriesRequest:
		term = command.Term
	}
	for known := n.Load(); term > known && !n.CompareAndSwap(known, term); known = n.Load() {
	}
}
