package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/backoff"
)

const (
	// maxInflight bounds the entries that wait behind the one whose outcome is
	// awaited; one more is being handed over. While Raft has so many, proposals
	// gather: each entry costs a sync on every node, and a few large ones carry far
	// more than many small ones (BenchmarkThreeNodes).
	maxInflight = 1
	// enqueuePatience bounds how long Raft may take to accept an entry.
	enqueuePatience = 5 * time.Second
	// overloadPause is what a refused proposer is told to wait.
	overloadPause = 2 * time.Second
)

var proposeRetry = backoff.Policy{Initial: 10 * time.Millisecond, Max: 250 * time.Millisecond, Multiplier: 2, Jitter: 0.5}

// A proposal is the commands of one Propose call, which stay together in one
// entry.
type proposal struct {
	commands []fleet.Command
	size     int
	// repeats says that an earlier attempt may have been stored, behind the log
	// index since.
	repeats bool
	since   uint64
	// claimed is set by whoever decides first: the dispatcher, which hands the
	// proposal to Raft, or the proposer, which gives up waiting.
	claimed atomic.Bool
	outcome chan outcome // buffered: the dispatcher never waits for a proposer
}

type outcome struct {
	index   uint64 // of the entry
	results []fleet.Result
	err     error
}

// dispatched is an entry that Raft has, with the proposals in it.
type dispatched struct {
	future    raft.ApplyFuture
	proposals []*proposal
}

// Propose stores commands: they are replicated, applied together in one entry,
// and durable when it returns; what they changed is in this node's state. There
// is a result for each; a refusal by the rules is a result, not an error.
//
// A node that does not lead sends the commands to the leader. Propose tries
// again by itself while ctx lives and a leader may be found. Errors:
// *OverloadedError, *LevelError, ErrNotLeader, ErrStopped, ErrTooLarge or ctx's
// error, after which nothing was done; or *UnknownOutcomeError, after which it
// looks whether the commands had their effect who has to know. Commands of which
// an earlier attempt may have been stored are not stored again when that attempt
// would be recognized no more.
func (n *Node) Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error) {
	if len(commands) == 0 {
		return nil, nil
	}
	p, err := newProposal(commands)
	if err != nil {
		return nil, err
	}
	// Whatever attempt is stored comes behind what is applied here now.
	p.since = n.State().Index()
	note := func(err error) error {
		_, unknown := errors.AsType[*UnknownOutcomeError](err)
		p.repeats = p.repeats || unknown
		return err
	}
	var results []fleet.Result
	err = n.atLeader(ctx, func(ctx context.Context) error {
		if err := n.understood(ctx, requiredLevel(commands)); err != nil {
			return err
		}
		o := n.try(ctx, p.again())
		results = o.results
		return note(o.err)
	}, func(callCtx context.Context, id, address string) (err error) {
		results, err = n.forward(ctx, callCtx, id, address, p)
		// Who is given up by this side may have stored it too: see attempt.
		p.repeats = p.repeats || callCtx.Err() != nil
		return note(err)
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

func newProposal(commands []fleet.Command) (*proposal, error) {
	size := 0
	for _, command := range commands {
		size += command.Size()
	}
	if len(commands) > fleet.MaxEntryCommands || size > fleet.MaxEntry-1024 {
		return nil, fmt.Errorf("%d commands of %d bytes: %w", len(commands), size, ErrTooLarge)
	}
	return &proposal{commands: commands, size: size, outcome: make(chan outcome, 1)}, nil
}

// again is the same proposal for another attempt.
func (p *proposal) again() *proposal {
	return &proposal{commands: p.commands, size: p.size, repeats: p.repeats, since: p.since, outcome: make(chan outcome, 1)}
}

// try is one attempt, at the node that leads.
func (n *Node) try(ctx context.Context, p *proposal) outcome {
	if err := ctx.Err(); err != nil {
		return outcome{err: err}
	}
	select {
	case <-n.stopping:
		return outcome{err: ErrStopped}
	case n.queue <- p:
	default:
		return outcome{err: &OverloadedError{RetryAfter: overloadPause}}
	}
	select {
	case o := <-p.outcome:
		return o
	case <-ctx.Done():
		return outcome{err: p.abandon(ctx.Err())}
	case <-n.stopping:
		// What Raft has is still answered, by its end at the latest.
		if p.claimed.CompareAndSwap(false, true) {
			return outcome{err: ErrStopped}
		}
		return <-p.outcome
	}
}

// abandon says what giving up means: nothing if the proposal was still waiting.
func (p *proposal) abandon(err error) error {
	if p.claimed.CompareAndSwap(false, true) {
		return err
	}
	return &UnknownOutcomeError{Err: err}
}

// dispatch hands proposals to Raft, as many in one entry as wait at the moment:
// one that comes alone goes at once, and while Raft is writing an entry the
// next one gathers.
func (n *Node) dispatch(ctx context.Context) {
	defer close(n.inflight)
	var held *proposal // did not fit into the entry before
	for {
		first := held
		if first == nil {
			select {
			case <-ctx.Done():
				return
			case first = <-n.queue:
			}
		}
		var batch []*proposal
		batch, held = n.gather(first)
		if len(batch) > 0 {
			n.send(batch)
		}
	}
}

// replaces reports whether the state is another one afterwards, which remembers
// other commands: such a proposal has an entry of its own.
func (p *proposal) replaces() bool {
	return slices.ContainsFunc(p.commands, func(c fleet.Command) bool { return c.Type == fleet.TypeApplyRestore })
}

// gather claims a first proposal and those behind it that fit in one entry.
func (n *Node) gather(first *proposal) (batch []*proposal, held *proposal) {
	size, count := 0, 0
	for p := first; ; {
		fits := len(batch) == 0 || !p.replaces() && !batch[0].replaces() && size+p.size <= fleet.TargetEntry && count+len(p.commands) <= fleet.MaxEntryCommands
		if !fits {
			return batch, p
		}
		if p.claimed.CompareAndSwap(false, true) {
			batch = append(batch, p)
			size += p.size
			count += len(p.commands)
		}
		select {
		case p = <-n.queue:
		default:
			return batch, nil
		}
	}
}

// recognized leaves out of an entry what was proposed before and would not be
// recognized any more, so that it could be applied twice: its outcome cannot be
// known. What Raft has is waited for, since it makes the state forget more; and
// nothing else can come in between, as this goroutine alone hands it entries.
func (n *Node) recognized(batch []*proposal) []*proposal {
	if !slices.ContainsFunc(batch, func(p *proposal) bool { return p.repeats }) {
		return batch
	}
	n.flying.Wait()
	term := n.established.Load()
	leads := term != 0 && term == n.raft.CurrentTerm()
	state := n.State()
	forgotten := state.Forgotten()
	return slices.DeleteFunc(batch, func(p *proposal) bool {
		switch {
		case !p.repeats:
			return false
		case !leads: // what earlier leaders have left may not be applied yet
			p.outcome <- outcome{err: ErrNotLeader}
		case p.since < forgotten && !state.Remembers(p.commands):
			p.outcome <- outcome{err: &UnknownOutcomeError{Err: errForgotten}}
		default:
			return false
		}
		return true
	})
}

// send hands one entry to Raft. It waits when Raft is busy.
func (n *Node) send(batch []*proposal) {
	if batch = n.recognized(batch); len(batch) == 0 {
		return
	}
	var commands []fleet.Command
	for _, p := range batch {
		commands = append(commands, p.commands...)
	}
	entry, err := fleet.EncodeEntry(commands)
	if err != nil {
		finish(batch, outcome{err: err})
		return
	}
	n.gate.RLock()
	future := n.raft.Apply(entry, enqueuePatience)
	n.gate.RUnlock()
	n.flying.Add(1)
	n.inflight <- dispatched{future: future, proposals: batch}
}

// complete answers the proposers, entry by entry, until dispatch has ended and
// everything in flight is answered.
func (n *Node) complete() {
	for d := range n.inflight {
		n.answer(d)
		n.flying.Done()
	}
}

func (n *Node) answer(d dispatched) {
	if err := n.confirmed(d.future); err != nil {
		finish(d.proposals, outcome{err: applyError(err)})
		return
	}
	applied, ok := d.future.Response().(appliedEntry)
	if !ok {
		finish(d.proposals, outcome{err: fmt.Errorf("the state machine answered with a %T", d.future.Response())})
		return
	}
	if applied.err != nil {
		// The entry is in the log, and this node did not apply it.
		finish(d.proposals, outcome{err: &UnknownOutcomeError{Err: applied.err}})
		return
	}
	signal(n.nudger.changed)
	rest := applied.results
	for _, p := range d.proposals {
		p.outcome <- outcome{index: d.future.Index(), results: rest[:len(p.commands):len(p.commands)]}
		rest = rest[len(p.commands):]
	}
}

// confirmed waits for Raft's word on an entry. Raft forgets to answer for entries
// that were committed and not applied when it ended.
func (n *Node) confirmed(future raft.ApplyFuture) error {
	answer := make(chan error, 1)
	go func() { answer <- future.Error() }()
	select {
	case err := <-answer:
		return err
	case <-n.down:
	}
	select {
	case err := <-answer:
		return err
	default:
		return raft.ErrRaftShutdown
	}
}

func finish(batch []*proposal, o outcome) {
	for _, p := range batch {
		p.outcome <- o
	}
}

// applyError says what an entry that Raft did not confirm came to.
func applyError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %w", ErrNotLeader, err) // refused before it was written
	case errors.Is(err, raft.ErrRaftShutdown):
		// Raft says the same of entries that it never took and of those that it
		// had written.
		return &UnknownOutcomeError{Err: ErrStopped}
	default:
		return &UnknownOutcomeError{Err: err}
	}
}
