package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/shared/backoff"
)

// changePatience bounds how long Raft may take to accept a change of the
// membership: it takes one when the one before is committed.
const changePatience = 10 * time.Second

// removalPatience bounds a removal that was begun.
const removalPatience = 2 * changePatience

// handOverAttempts bounds how often a node is asked to take the lead over.
const handOverAttempts = 3

// Member is a node that belongs to the cluster.
type Member struct {
	ID      string
	Address string
	Voter   bool // else it is not promoted yet
	Leader  bool // as far as this node knows
}

// Members lists who belongs to the cluster, by the newest configuration that is
// in the log here, and the index of that configuration. A node that joins and
// has none gives the members that it was told, and 0.
func (n *Node) Members() ([]Member, uint64) {
	index, servers := n.configuration()
	leader, _ := n.Leader()
	members := make([]Member, len(servers))
	for i, s := range servers {
		members[i] = Member{
			ID: string(s.ID), Address: string(s.Address),
			Voter: s.Suffrage == raft.Voter, Leader: string(s.ID) == leader,
		}
	}
	return members, index
}

// OnMembership adds a function that is told each committed configuration, in
// order. It must return at once, and be added before Run.
func (n *Node) OnMembership(fn func(members []raft.Server)) {
	if n.running.Load() {
		panic("cluster: OnMembership after Run")
	}
	n.members.watch(fn)
}

// configuration is the newest one of this node's log, or what a node that joins
// was told.
func (n *Node) configuration() (uint64, []raft.Server) {
	index := n.members.index()
	// Raft answers from a copy, and has no error to give.
	servers := n.raft.GetConfiguration().Configuration().Servers
	if len(servers) == 0 {
		return 0, n.members.joining
	}
	return index, servers
}

// isMember goes by this node's log, unless others have told that it was removed.
func (n *Node) isMember() bool {
	id := n.config.NodeID
	return serverOf(n.raft.GetConfiguration().Configuration().Servers, id) != nil && !n.members.without(id) && !n.expelled.Load()
}

// AddMember makes a node a member, without a vote until it is promoted. For one
// that is a member it changes the address, if that is another. A member that
// has the address of the new one and does not answer there is removed, if the
// rest can do without it; see [Node.CheckAddress].
//
// prevIndex is the index of the configuration that the caller has seen, or 0.
// Any node takes the call. Errors: *ConflictError, *QuorumError,
// *AddressTakenError, and those of [Node.Propose]; repeating the call is safe.
func (n *Node) AddMember(ctx context.Context, id, address string, prevIndex uint64) error {
	if id == "" || address == "" {
		return errors.New("a member needs an id and an address")
	}
	return wrap("add member "+id, n.changeMembers(ctx, methodAddMember, memberRequest{ID: id, Address: address, PrevIndex: prevIndex}))
}

// RemoveMember takes a node out of the cluster. It refuses, with *QuorumError,
// when those that remain could not decide anything: to be rid of members after
// too many are lost is what recovery is for. The leader hands over before it is
// removed. prevIndex and the other errors are those of AddMember, and
// ErrNoMember. The audit trail has actor as the one who did it, or the system if
// that is "".
func (n *Node) RemoveMember(ctx context.Context, id string, prevIndex uint64, actor string) error {
	return wrap("remove member "+id, n.changeMembers(ctx, methodRemoveMember, memberRequest{ID: id, PrevIndex: prevIndex, Actor: actor}))
}

// Transfer hands the leadership to a member with a vote, or to whichever is
// fittest if id is "".
func (n *Node) Transfer(ctx context.Context, id string) error {
	return wrap("transfer the leadership", n.changeMembers(ctx, methodTransfer, memberRequest{ID: id}))
}

// changeMembers has one change of the membership made at the leader.
func (n *Node) changeMembers(ctx context.Context, method string, request memberRequest) error {
	maybeDone := false
	note := func(err error) error {
		var unknown *UnknownOutcomeError
		if maybeDone && method == methodRemoveMember && errors.Is(err, ErrNoMember) {
			return nil // an earlier attempt has done it
		}
		maybeDone = maybeDone || errors.As(err, &unknown)
		return err
	}
	return n.atLeader(ctx, func(ctx context.Context) error {
		return note(n.change(ctx, method, request))
	}, func(ctx context.Context, id, address string) error {
		return note(n.call(ctx, id, address, method, mustEncode(request), nil))
	})
}

// change makes one change of the membership, on the node that leads. There is
// one at a time.
func (n *Node) change(ctx context.Context, method string, request memberRequest) error {
	if method == methodAnnounce && n.Member(request.ID) {
		// Who is dialled at an address is looked up by it: it must not become that
		// of another node here either.
		if err := n.CheckAddress(ctx, request.ID, request.Address); err != nil {
			return err
		}
		n.members.move(raft.ServerID(request.ID), raft.ServerAddress(request.Address))
	}
	select {
	case n.changing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-n.changing }()
	if !n.IsLeader() { // or it may not know the newest configuration yet
		return ErrNotLeader
	}
	index, servers := n.configuration()
	if request.PrevIndex != 0 && request.PrevIndex != index {
		return &ConflictError{Index: index}
	}
	switch method {
	case methodAddMember:
		return n.add(ctx, index, servers, request)
	case methodAnnounce: // who was removed does not come back by itself
		if serverOf(servers, request.ID) == nil {
			return ErrNoMember
		}
		err := n.add(ctx, index, servers, request)
		if err == nil {
			n.log.Info("a member has another address", "node_id", request.ID, "address", request.Address)
		}
		return err
	case methodRemoveMember:
		return n.remove(ctx, index, servers, request.ID, request.Actor)
	default:
		return n.handOver(ctx, servers, request.ID)
	}
}

func (n *Node) add(ctx context.Context, index uint64, servers []raft.Server, request memberRequest) error {
	id, address := raft.ServerID(request.ID), raft.ServerAddress(request.Address)
	if there := serverOf(servers, request.ID); there != nil && there.Address == address {
		return nil
	}
	if old := holderOf(servers, request.ID, request.Address); old != nil {
		if err := n.vacated(ctx, old); err != nil {
			return err
		}
		n.log.Warn("a member is removed because another node has its address now", "node_id", string(old.ID), "by", request.ID, "address", request.Address)
		if err := n.remove(ctx, index, servers, string(old.ID), systemActor); err != nil {
			return fmt.Errorf("address %s is that of member %s: %w", address, old.ID, err)
		}
		index, _ = n.configuration()
	}
	if serverOf(servers, request.ID) == nil {
		if err := n.coverVote(ctx, request.ID); err != nil {
			return err
		}
	}
	// For a member, whether it has a vote or not, this changes the address alone.
	return n.reconfigure(ctx, index, func(prev uint64) raft.IndexFuture {
		return n.raft.AddNonvoter(id, address, prev, changePatience)
	})
}

// coverVote takes a snapshot if the newest one is of a time when a node that comes
// back under its id had a vote. It begins with that snapshot: one in which it has the
// only vote, as the founder's first, would have it elect itself if nobody is there to
// send it the rest of the log.
func (n *Node) coverVote(ctx context.Context, id string) error {
	list, err := n.snapshots.List()
	if err != nil || len(list) == 0 || serverOf(list[0].Configuration.Servers, id) == nil {
		return err
	}
	err = n.asking.ask(ctx, func() error { return n.raft.Snapshot().Error() })
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return wrap("take a snapshot without the former "+id, raftError(err))
}

func (n *Node) remove(ctx context.Context, index uint64, servers []raft.Server, id, actor string) error {
	server := serverOf(servers, id)
	if server == nil {
		return ErrNoMember
	}
	if server.Suffrage == raft.Voter {
		if err := n.quorumWithout(ctx, servers, id); err != nil {
			return err
		}
	}
	if id == n.config.NodeID {
		// A leader that removes itself would decide about a cluster that it does
		// not belong to. The next one does it.
		if err := n.handOver(ctx, servers, ""); err != nil {
			return err
		}
		return fmt.Errorf("%w any more: it has handed over to be removed", ErrNotLeader)
	}
	// A node that leaves has asked for it itself, and is let in no more as soon as it
	// is out: nobody waits for the answer then, and there is more to do.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removalPatience)
	defer cancel()
	err := n.reconfigure(ctx, index, func(prev uint64) raft.IndexFuture {
		return n.raft.RemoveServer(raft.ServerID(id), prev, changePatience)
	})
	if err == nil {
		n.log.Info("a member was removed", "node_id", id)
		n.forget(ctx, id, cmp.Or(actor, systemActor))
	}
	return err
}

// reconfigure makes one change and waits until it is committed and known here.
func (n *Node) reconfigure(ctx context.Context, prev uint64, change func(prev uint64) raft.IndexFuture) error {
	var future raft.IndexFuture
	err := n.asking.ask(ctx, func() error {
		future = change(prev)
		return future.Error()
	})
	switch {
	case err == nil:
		n.members.wait(ctx, future.Index())
		return nil
	case errors.Is(err, ErrStopped):
		return err
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown), ctx.Err() != nil:
		return &UnknownOutcomeError{Err: err}
	}
	// Raft has no type for a configuration that is not the expected one.
	if now := n.members.index(); now != prev {
		return &ConflictError{Index: now}
	}
	return &RefusedError{Reason: err.Error()}
}

// quorumWithout refuses to remove a voter when those that remain would not be
// able to decide: fewer of them answer now than it takes.
func (n *Node) quorumWithout(ctx context.Context, servers []raft.Server, id string) error {
	rest := slices.DeleteFunc(votersOf(servers), func(s raft.Server) bool { return string(s.ID) == id })
	if len(rest) == 0 {
		return &QuorumError{Reason: fmt.Sprintf("member %s is the only one with a vote: without it there is no cluster", id)}
	}
	answers := n.probe(ctx, rest)
	alive := len(answers)
	if needed := len(rest)/2 + 1; alive < needed {
		var silent []string
		for _, s := range rest {
			if _, ok := answers[s.ID]; !ok {
				silent = append(silent, string(s.ID))
			}
		}
		return &QuorumError{Reason: fmt.Sprintf(
			"without member %s the cluster could decide nothing: of the %d members with a vote that remain %d must answer, and %d do; %v do not. "+
				"Bring them back first; if they are lost for good, see the runbook on the loss of a quorum", id, len(rest), needed, alive, silent)}
	}
	return nil
}

// handOver gives the leadership to a voter that is alive and has the log.
func (n *Node) handOver(ctx context.Context, servers []raft.Server, id string) error {
	if id == n.config.NodeID {
		return nil
	}
	if id == "" && n.config.Peers == nil {
		return n.asking.ask(ctx, func() error { return raftError(n.raft.LeadershipTransfer().Error()) })
	}
	if id == "" {
		voters := slices.DeleteFunc(votersOf(servers), func(s raft.Server) bool { return string(s.ID) == n.config.NodeID })
		newest := uint64(0)
		for other, stats := range n.probe(ctx, voters) {
			if id == "" || stats.LastIndex > newest {
				id, newest = string(other), stats.LastIndex
			}
		}
		if id == "" {
			return &RefusedError{Reason: "there is no other member with a vote that answers"}
		}
	}
	server := serverOf(servers, id)
	switch {
	case server == nil:
		return ErrNoMember
	case server.Suffrage != raft.Voter:
		return &RefusedError{Reason: fmt.Sprintf("member %s has no vote yet and cannot lead", id)}
	}
	var err error
	for attempt := 1; attempt <= handOverAttempts; attempt++ {
		err = n.asking.ask(ctx, func() error {
			return raftError(n.raft.LeadershipTransferToServer(server.ID, server.Address).Error())
		})
		if err == nil || errors.Is(err, ErrNotLeader) || errors.Is(err, ErrStopped) || ctx.Err() != nil {
			return err
		}
		// Raft gives the other node no more than the election timeout. Until then
		// this one stores nothing: it is its turn again in between.
		if backoff.Wait(ctx, proposeRetry.Delay(attempt, nil)) != nil {
			return ctx.Err()
		}
	}
	return &RefusedError{Reason: fmt.Sprintf("member %s did not take over: %v", id, err)}
}

func serverOf(servers []raft.Server, id string) *raft.Server {
	for i := range servers {
		if string(servers[i].ID) == id {
			return &servers[i]
		}
	}
	return nil
}

func votersOf(servers []raft.Server) (voters []raft.Server) {
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			voters = append(voters, s)
		}
	}
	return voters
}
