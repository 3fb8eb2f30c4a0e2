package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/peer"
	"github.com/certctl/certctl/shared/backoff"
)

// Caller calls another node of the cluster and returns its answer; a
// *peer.Network is one. An error means that there is none: the other node may
// have done what it was asked for, unless the error wraps peer.ErrNotSent.
type Caller interface {
	Call(ctx context.Context, id, address, method string, request []byte) ([]byte, error)
}

// callPatience bounds one call to the leader. A leader that is gone is noticed
// earlier, when there is another one.
const callPatience = 10 * time.Second

// atLeader has something done at the leader: here, if this node leads, or there.
// It tries again while ctx lives and the error leaves room for hope: what is
// done must be safe to repeat. An error that is no *UnknownOutcomeError means
// that nothing was done, at any of the attempts.
func (n *Node) atLeader(ctx context.Context, here func(context.Context) error, there func(ctx context.Context, id, address string) error) error {
	var unknown error // why an earlier attempt may have succeeded
	for attempt := 1; ; attempt++ {
		err := n.attempt(ctx, here, there)
		if err == nil {
			return nil
		}
		var uncertain *UnknownOutcomeError
		if errors.As(err, &uncertain) {
			unknown = uncertain.Err
		}
		if !n.worthRetrying(ctx, err) || backoff.Wait(ctx, proposeRetry.Delay(attempt, nil)) != nil {
			if unknown != nil && uncertain == nil {
				err = &UnknownOutcomeError{Err: unknown}
			}
			return err
		}
	}
}

func (n *Node) attempt(ctx context.Context, here func(context.Context) error, there func(ctx context.Context, id, address string) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-n.stopping:
		return ErrStopped
	default:
	}
	id, address := n.Leader()
	if n.config.Peers == nil || id == n.config.NodeID || n.raft.State() == raft.Leader {
		return here(ctx)
	}
	if id == "" {
		return fmt.Errorf("%w, and none is known", ErrNotLeader)
	}
	callCtx, cancel := n.leaders.while(ctx, id)
	defer cancel()
	callCtx, cancelLate := context.WithTimeout(callCtx, callPatience)
	defer cancelLate()
	err := there(callCtx, id, address)
	if err != nil && ctx.Err() == nil && callCtx.Err() != nil && errors.Is(err, callCtx.Err()) {
		// It was this attempt that was given up.
		return &UnknownOutcomeError{Err: fmt.Errorf("node %s did not answer: %w", id, err)}
	}
	return err
}

// worthRetrying reports whether another attempt may go better.
func (n *Node) worthRetrying(ctx context.Context, err error) bool {
	if ctx.Err() != nil || n.machine.err() != nil {
		return false
	}
	var uncertain *UnknownOutcomeError
	if !errors.Is(err, ErrNotLeader) && !errors.As(err, &uncertain) {
		return false
	}
	if errors.Is(err, ErrStopped) || errors.Is(err, errForgotten) {
		return false
	}
	if n.config.Peers != nil {
		return true
	}
	// Another leader is the one to ask; without any, this node may become it.
	_, leader := n.raft.LeaderWithID()
	return leader == "" || string(leader) == n.config.NodeID
}

// call calls another node. When it answers with an error, that is the error;
// when it does not answer, the outcome is unknown.
func (n *Node) call(ctx context.Context, id, address, method string, request []byte, body any) error {
	data, err := n.config.Peers.Call(ctx, id, address, method, request)
	if errors.Is(err, peer.ErrNotSent) {
		return fmt.Errorf("%w, and node %s cannot be reached: %w", ErrNotLeader, id, err)
	}
	if err != nil {
		return &UnknownOutcomeError{Err: fmt.Errorf("call node %s: %w", id, err)}
	}
	var a answer
	if err := decodeCall(data, &a); err != nil {
		return &UnknownOutcomeError{Err: fmt.Errorf("node %s: %w", id, err)}
	}
	if a.Error != nil {
		return decodeError(a.Error)
	}
	if body == nil {
		return nil
	}
	if err := decodeCall(a.Body, body); err != nil {
		return &UnknownOutcomeError{Err: fmt.Errorf("node %s: %w", id, err)}
	}
	return nil
}

// forward sends commands to the leader and waits until their effect is here.
func (n *Node) forward(ctx, callCtx context.Context, id, address string, p *proposal) ([]fleet.Result, error) {
	if !n.outgoing.take(p.size) {
		n.forwarded.count(&OverloadedError{})
		return nil, &OverloadedError{RetryAfter: overloadPause}
	}
	defer n.outgoing.give(p.size)
	entry, err := fleet.EncodeEntry(p.commands)
	if err != nil {
		return nil, err
	}
	var body proposeAnswer
	err = n.call(callCtx, id, address, methodPropose, mustEncode(proposeRequest{
		Level: requiredLevel(p.commands), Entry: entry, Repeats: p.repeats, Since: p.since,
	}), &body)
	if err == nil && len(body.Results) != len(p.commands) {
		err = &UnknownOutcomeError{Err: fmt.Errorf("node %s gave %d results for %d commands", id, len(body.Results), len(p.commands))}
	}
	n.forwarded.count(err)
	if err != nil {
		return nil, err
	}
	if err := n.WaitIndex(ctx, body.Index); err != nil {
		return nil, &UnknownOutcomeError{Err: fmt.Errorf("it was stored and has not arrived here: %w", err)}
	}
	return body.Results, nil
}

// accept stores what another node has forwarded.
func (n *Node) accept(ctx context.Context, request []byte) (*proposeAnswer, error) {
	var body proposeRequest
	if err := decodeCall(request, &body); err != nil {
		return nil, err
	}
	commands, err := fleet.DecodeEntry(body.Entry)
	if err != nil {
		return nil, err
	}
	p, err := newProposal(commands)
	if err != nil {
		return nil, err
	}
	p.repeats, p.since = body.Repeats, body.Since
	if !n.incoming.take(p.size) {
		return nil, &OverloadedError{RetryAfter: overloadPause}
	}
	defer n.incoming.give(p.size)
	if n.raft.State() != raft.Leader {
		return nil, ErrNotLeader
	}
	if err := n.understood(ctx, max(body.Level, requiredLevel(commands))); err != nil {
		return nil, err
	}
	o := n.try(ctx, p)
	if o.err != nil {
		return nil, o.err
	}
	n.nudger.hurry()
	return &proposeAnswer{Index: o.index, Results: o.results}, nil
}

// HandleCall answers a call of another node, whose id is from. What it returns
// is an answer also when it is one with an error in it.
//
// What is for the leader is done here or not at all: nothing is sent on.
func (n *Node) HandleCall(ctx context.Context, from, method string, request []byte) ([]byte, error) {
	body, err := n.handle(ctx, from, method, request)
	if err != nil {
		return mustEncode(answer{Error: encodeError(err)}), nil
	}
	if body == nil {
		return mustEncode(answer{}), nil
	}
	return mustEncode(answer{Body: mustEncode(body)}), nil
}

func (n *Node) handle(ctx context.Context, from, method string, request []byte) (any, error) {
	select {
	case <-n.stopping:
		return nil, ErrStopped
	default:
	}
	switch method {
	case methodPropose:
		body, err := n.accept(ctx, request)
		if err != nil {
			return nil, err
		}
		return body, nil
	case methodIndex:
		index, err := n.leaderIndex(ctx)
		return indexAnswer{Index: index}, err
	case methodTerm:
		return termAnswer{Term: n.raft.CurrentTerm()}, nil
	case methodStats:
		return n.ownStats(), nil
	case methodConfiguration:
		return n.ownConfiguration(), nil
	case methodExtent:
		return n.backfill.ownExtent()
	case methodChunk:
		return n.backfill.give(ctx, request)
	case methodAddMember, methodRemoveMember, methodTransfer, methodAnnounce:
		var body memberRequest
		if err := decodeCall(request, &body); err != nil {
			return nil, err
		}
		if method == methodAnnounce && body.ID != from {
			return nil, fmt.Errorf("node %s announces the address of node %s", from, body.ID)
		}
		return nil, n.change(ctx, method, body)
	default:
		return nil, fmt.Errorf("this node has no answer to %q of node %s: it may be of another version", method, from)
	}
}
