package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// lateAnswers is how long the calls of a round go on that it did not need. A
	// call that is broken off costs its connection, and of two voters one is
	// always the slower.
	lateAnswers = 2 * time.Second
	// maxTermCalls bounds the calls to one voter that wait for its answer: one
	// that hangs must not collect them.
	maxTermCalls = 16
)

// termCalls counts the calls to each voter that are under way.
type termCalls struct {
	mu   sync.Mutex
	open map[raft.ServerID]int
}

func (c *termCalls) take(id raft.ServerID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[id] >= maxTermCalls {
		return false
	}
	if c.open == nil {
		c.open = map[raft.ServerID]int{}
	}
	c.open[id]++
	return true
}

func (c *termCalls) give(id raft.ServerID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[id]--; c.open[id] == 0 {
		delete(c.open, id)
	}
}

// confirm returns nil if no leader of a later term than this node's existed when
// it was called. The caller checks afterwards that this node is still in that
// term, which is its own answer.
//
// A node goes to a later term, durably, before it gives its vote in it. One that
// answers after the question that its term is this one has therefore given no
// vote in a later one by then; and as a majority of the voters answers so, no
// majority had elected anybody when the question was put. Raft's own
// VerifyLeader does not say as much: it also counts the answer to a heartbeat
// that was sent before the question.
//
// The voters are those of the newest configuration in the log, committed or not.
// It differs from the one before by one voter, and majorities of the two overlap.
func (n *Node) confirm(ctx context.Context, term uint64) error {
	if n.config.Peers == nil {
		return n.VerifyLeader(ctx) // there is nobody to ask
	}
	voters := votersOf(n.raft.GetConfiguration().Configuration().Servers)
	needed := len(voters)/2 + 1
	others := slices.DeleteFunc(slices.Clone(voters), func(s raft.Server) bool { return string(s.ID) == n.config.NodeID })
	if len(others) < len(voters) {
		needed--
	}
	if needed == 0 {
		return nil
	}
	answers, enough := n.askTerms(others)
	defer enough()
	same := 0
	var failure error
	for left := len(others); same+left >= needed; left-- {
		var a termReply
		select {
		case a = <-answers:
		case <-ctx.Done():
			return fmt.Errorf("%w as far as a majority says: %w", ErrNotLeader, ctx.Err())
		}
		switch {
		case a.err != nil:
			failure = a.err
		case a.term > term:
			return fmt.Errorf("%w: node %s is in term %d, after term %d", ErrNotLeader, a.id, a.term, term)
		case a.term == term:
			same++
		}
		if same >= needed {
			return nil
		}
	}
	if failure != nil {
		return fmt.Errorf("%w as far as a majority says: %w", ErrNotLeader, failure)
	}
	return fmt.Errorf("%w as far as a majority says", ErrNotLeader)
}

// termReply is a voter's answer, or why it gave none.
type termReply struct {
	id   raft.ServerID
	term uint64
	err  error
}

var errTooManyCalls = errors.New("it has not answered earlier calls")

// askTerms asks voters for their terms, all at once. There is one reply for each;
// enough says that no more are needed.
func (n *Node) askTerms(voters []raft.Server) (replies chan termReply, enough func()) {
	ctx, cancel := context.WithTimeout(n.life, callPatience)
	replies = make(chan termReply, len(voters)) // nobody has to take them
	for _, s := range voters {
		if !n.termCalls.take(s.ID) {
			replies <- termReply{id: s.ID, err: fmt.Errorf("node %s: %w", s.ID, errTooManyCalls)}
			continue
		}
		address := s.Address
		if moved, ok := n.members.movedTo(s.ID); ok {
			address = moved
		}
		if !n.asking.begin(func() {
			defer n.termCalls.give(s.ID)
			var body termAnswer
			err := n.call(ctx, string(s.ID), string(address), methodTerm, nil, &body)
			replies <- termReply{id: s.ID, term: body.Term, err: err}
		}) {
			n.termCalls.give(s.ID)
			replies <- termReply{id: s.ID, err: ErrStopped}
		}
	}
	return replies, func() { time.AfterFunc(lateAnswers, cancel) }
}
