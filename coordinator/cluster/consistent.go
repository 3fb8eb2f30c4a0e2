package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// ConsistentIndex returns when this node's state has everything that was
// acknowledged, on any node, before the call, and the index that it has then
// reached at least. Reads after it are linearizable.
//
// A node that does not lead asks the leader. Callers share questions, so that a
// thousand at once cost a few. It tries again while ctx lives and a leader may be
// found; errors wrap ErrNotLeader, ErrStopped or ctx's error.
func (n *Node) ConsistentIndex(ctx context.Context) (uint64, error) {
	var index uint64
	err := n.atLeader(ctx, func(ctx context.Context) (err error) {
		index, err = n.leaderIndex(ctx)
		return err
	}, func(callCtx context.Context, _, _ string) (err error) {
		index, err = n.reads.get(callCtx, n.asking.begin, n.askIndex)
		return err
	})
	if err == nil {
		err = n.WaitIndex(ctx, index)
	}
	if err != nil {
		return 0, fmt.Errorf("read consistently: %w", withoutDoubt(err))
	}
	return index, nil
}

// withoutDoubt takes the doubt about its outcome off the error of a question,
// which changes nothing.
func withoutDoubt(err error) error {
	if unknown, ok := err.(*UnknownOutcomeError); ok { //nolint:errorlint // the outermost is what is taken off
		return fmt.Errorf("%w: %w", ErrNotLeader, unknown.Err)
	}
	return err
}

// askIndex asks the leader of the moment.
func (n *Node) askIndex() (uint64, error) {
	id, address := n.Leader()
	if id == "" {
		return 0, ErrNotLeader
	}
	ctx, cancel := n.leaders.while(n.life, id)
	defer cancel()
	ctx, cancelLate := context.WithTimeout(ctx, callPatience)
	defer cancelLate()
	var body indexAnswer
	err := n.call(ctx, id, address, methodIndex, nil, &body)
	return body.Index, err
}

// leaderIndex is the index of the newest command that was committed before the
// call, confirmed by a majority to be the newest there is. The commands up to it
// are applied here.
func (n *Node) leaderIndex(ctx context.Context) (uint64, error) {
	return n.verifications.get(ctx, n.asking.begin, func() (uint64, error) {
		ctx, cancel := context.WithTimeout(n.life, callPatience)
		defer cancel()
		return n.verifiedIndex(ctx)
	})
}

func (n *Node) verifiedIndex(ctx context.Context) (uint64, error) {
	// Until an entry of its own term is committed, a leader does not know which
	// entries of earlier terms are: the barrier at the start of the term was one.
	term := n.established.Load()
	if term == 0 {
		return 0, ErrNotLeader
	}
	commit := n.raft.CommitIndex()
	if err := n.confirm(ctx, term); err != nil {
		return 0, wrap("confirm the leadership", err)
	}
	// Of this node's own answer too, which counts as well, it is the term after
	// the question that tells.
	if n.raft.CurrentTerm() != term || n.established.Load() != term {
		return 0, fmt.Errorf("%w in the term in which it was asked", ErrNotLeader)
	}
	index, err := n.lastCommand(commit)
	if err != nil {
		return 0, err
	}
	return index, n.WaitIndex(ctx, index)
}

// lastCommand is the index of the last command up to an index. Raft's other
// entries do not move the state, on no node, so that nobody can wait for them.
func (n *Node) lastCommand(index uint64) (uint64, error) {
	for ; index > n.AppliedIndex(); index-- {
		var entry raft.Log
		err := n.logs.GetLog(index, &entry)
		if errors.Is(err, raft.ErrLogNotFound) && index <= n.snapshotIndex() {
			break // cut off behind a snapshot, which is applied
		}
		if err != nil {
			return 0, fmt.Errorf("read entry %d of the Raft log: %w", index, err)
		}
		if entry.Type == raft.LogCommand {
			return index, nil
		}
	}
	return n.AppliedIndex(), nil
}

// snapshotIndex is the newest entry that the newest snapshot covers, 0 without
// one.
func (n *Node) snapshotIndex() uint64 {
	list, err := n.snapshots.List()
	if err != nil || len(list) == 0 {
		return 0
	}
	return list[0].Index
}
