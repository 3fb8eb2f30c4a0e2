package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/shared/backoff"
)

// Departure is what it would mean that this node leaves the cluster.
type Departure struct {
	ConfigurationIndex uint64 // of the members that it is about
	Member             bool   // else this node has left, or was removed
	Voter              bool
	Leader             bool     // it hands over first
	Remaining          []string // ids of the voters that remain
	Silent             []string // those of them that do not answer
	Needed             int      // voters that have to answer for changes to be stored
	// ToleranceBefore and ToleranceAfter are how many more voters may fail, now and
	// without this node. The latter is below 0 if nothing could be stored.
	ToleranceBefore, ToleranceAfter int
}

// Possible reports whether those that remain could store changes.
func (d *Departure) Possible() bool { return !d.Voter || len(d.Remaining) > 0 && d.ToleranceAfter >= 0 }

// Endangers reports whether the cluster bears a failure now, and would not any more.
func (d *Departure) Endangers() bool {
	return d.Voter && d.ToleranceBefore > 0 && d.ToleranceAfter < 1
}

// Departure asks the other members how they are, and changes nothing.
func (n *Node) Departure(ctx context.Context) *Departure {
	index, servers := n.configuration()
	d := &Departure{ConfigurationIndex: index, Member: n.isMember(), Leader: n.IsLeader()}
	voters := votersOf(servers)
	if self := serverOf(servers, n.config.NodeID); self != nil {
		d.Voter = self.Suffrage == raft.Voter
	}
	rest := slices.DeleteFunc(slices.Clone(voters), func(s raft.Server) bool { return string(s.ID) == n.config.NodeID })
	answers := n.probe(ctx, rest)
	for _, s := range rest {
		d.Remaining = append(d.Remaining, string(s.ID))
		if _, ok := answers[s.ID]; !ok {
			d.Silent = append(d.Silent, string(s.ID))
		}
	}
	d.Needed = len(rest)/2 + 1
	d.ToleranceAfter = len(answers) - d.Needed
	d.ToleranceBefore = d.ToleranceAfter
	if d.Voter {
		d.ToleranceBefore = len(answers) + 1 - (len(voters)/2 + 1)
	}
	return d
}

// departureRetry spaces the looks at whether this node is a member still.
var departureRetry = backoff.Policy{Initial: 100 * time.Millisecond, Max: time.Second, Multiplier: 2, Jitter: 0.2}

// lastWord is how long a node that is out waits for the answer that says so: then its
// record is gone too.
const lastWord = 2 * time.Second

// Leave takes this node out of the cluster. It is RemoveMember of itself, but that
// the others talk to this node no more when it is done, so that their answer may be
// lost. That the entry is in this node's log is not enough then: it may never be
// committed. It asks again until the leader says so, or a majority lets this node in
// no more; the error is an *UnknownOutcomeError if ctx ends before.
func (n *Node) Leave(ctx context.Context, prevIndex uint64, actor string) error {
	for attempt := 1; ; attempt++ {
		cut, err := n.askToLeave(ctx, prevIndex, actor)
		switch {
		case err == nil, errors.Is(err, ErrNoMember), n.isExpelled(ctx):
			return nil
		case ctx.Err() != nil && (attempt > 1 || !n.isMember()):
			return &UnknownOutcomeError{Err: err}
		case !cut && n.isMember():
			return err
		}
		_ = backoff.Wait(ctx, departureRetry.Delay(attempt, nil)) // ctx ends the next attempt at once
	}
}

// askToLeave asks once. It cuts the asking short when this node's log says that the
// node is out, and no answer comes.
func (n *Node) askToLeave(ctx context.Context, prevIndex uint64, actor string) (cut bool, err error) {
	asking, gone := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer gone()
	watching.Go(func() {
		for attempt := 1; n.isMember(); attempt++ {
			if backoff.Wait(asking, departureRetry.Delay(attempt, nil)) != nil {
				return
			}
		}
		_ = backoff.Wait(asking, lastWord)
		gone()
	})
	err = n.RemoveMember(asking, n.config.NodeID, prevIndex, actor)
	return asking.Err() != nil && ctx.Err() == nil, err
}

// isExpelled asks the other members whether they let this node in. They go by their
// logs, as this node does: it takes a majority of the voters that remain.
func (n *Node) isExpelled(ctx context.Context) bool {
	_, refused, _ := n.refresh(ctx) // nobody may be there, and then it is not known
	voters := slices.DeleteFunc(votersOf(n.acquaintances()), func(s raft.Server) bool { return string(s.ID) == n.config.NodeID })
	count := 0
	for _, s := range voters {
		if slices.Contains(refused, s.ID) {
			count++
		}
	}
	return count > len(voters)/2
}
