package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/runner"
)

// barrierPatience is how long a new leader waits for the entries of its
// predecessors. If it takes longer, it begins again.
const barrierPatience = time.Minute

var leadRetry = backoff.Policy{Initial: 200 * time.Millisecond, Max: 30 * time.Second, Multiplier: 2, Jitter: 0.2}

// lead follows the leadership until ctx is done. Raft's channel may leave out
// changes, so that two words "leading" in a row mean that the leadership was
// lost and won again in between: every word ends the term before it.
func (n *Node) lead(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case leading := <-n.raft.LeaderCh():
			for leading {
				leading = n.term(ctx)
			}
		}
	}
}

// term is one time of leadership: barrier, work, stop, wait. It returns at the
// next word of Raft, or when ctx is done, with everything that it started ended;
// the result is that word.
func (n *Node) term(ctx context.Context) (leading bool) {
	termCtx, end := context.WithCancel(ctx)
	var working sync.WaitGroup
	working.Go(func() { n.govern(termCtx) })
	select {
	case <-ctx.Done():
	case leading = <-n.raft.LeaderCh():
		// What works may take its time to end, such as a call that is not broken off;
		// this node leads no more from here on.
		n.established.Store(0)
	}
	end()
	working.Wait()
	return leading
}

// govern establishes the leadership and runs its work, again and again if it
// fails, until ctx is done.
func (n *Node) govern(ctx context.Context) {
	led := uint64(0) // the term in which this node was ready to lead
	defer func() {
		n.established.Store(0)
		if led != 0 {
			n.log.Info("this node does not lead the cluster any more", "node_id", n.config.NodeID, "term", led, "index", n.AppliedIndex())
		}
	}()
	for attempt := 1; ctx.Err() == nil; attempt++ {
		term := n.raft.CurrentTerm()
		err := n.barrier(ctx)
		if err == nil && n.raft.CurrentTerm() != term {
			err = ErrNotLeader // of which term the barrier was cannot be known
		}
		if err == nil {
			n.established.Store(term)
			led = term
			n.log.Info("this node leads the cluster", "node_id", n.config.NodeID, "term", term, "index", n.AppliedIndex())
			began := time.Now()
			err = runner.Run(ctx, n.work...)
			if err != nil || ctx.Err() != nil {
				n.established.Store(0)
			}
			if time.Since(began) > leadRetry.Max {
				attempt = 1
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			<-ctx.Done() // all work is done, and the node leads on
			return
		}
		pause := leadRetry.Delay(attempt, nil)
		n.log.Error("the leader's work failed and is started again", "err", err, "retry_in", pause)
		if backoff.Wait(ctx, pause) != nil {
			return
		}
	}
}

// barrier returns when everything that was committed before is applied here.
func (n *Node) barrier(ctx context.Context) error {
	return n.asking.ask(ctx, func() error { return raftError(n.raft.Barrier(barrierPatience).Error()) })
}

// raftError puts Raft's refusals in this package's words.
func raftError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrStopped
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost),
		errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	default:
		return wrap("Raft", err)
	}
}
