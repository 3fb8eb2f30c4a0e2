package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/peer"
	"github.com/certctl/certctl/shared/jitter"
)

// watchElections is how many election timeouts are between two looks at whether
// this node is still a member.
const watchElections = 5

// acquaintances are the members as far as this node has heard: by its own log,
// or by what another member told that knew more.
func (n *Node) acquaintances() []raft.Server {
	return n.members.known(n.raft.GetConfiguration().Configuration().Servers)
}

// Member reports whether a node belongs to the cluster, by the newest that is
// known here.
func (n *Node) Member(id string) bool { return serverOf(n.acquaintances(), id) != nil }

// At is the member that is expected at an address.
func (n *Node) At(address string) (id string, ok bool) {
	servers := n.acquaintances()
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return string(s.Address) == address })
	if i < 0 {
		return "", false
	}
	return string(servers[i].ID), true
}

// Key is the fingerprint of the key by which a member is known: by its record in
// the state, or by what was heard of the record where the state has not come to it.
// known is false while this node cannot know it: it joins, or its state is behind
// the members that it has heard of. That a configuration is applied here does not
// say that the records of its members are: the founder is in the first one from the
// first entry on, and announces itself later, much later if the version that founded
// knew no other nodes. A node that joins goes by what it was told; one that an earlier
// version let in, which tells no keys, by the certificate until the record is here.
func (n *Node) Key(id string) (fingerprint string, known bool) {
	view := n.State().View()
	applied := n.State().Index() // or later than the view
	heard, ok := n.members.key(id)
	if ok && heard.at > applied {
		return heard.fingerprint, heard.fingerprint != "" // "" if it was forgotten
	}
	if record, stored := view.ClusterNode(id); stored {
		return record.KeyFingerprint, true
	}
	return heard.fingerprint, heard.fingerprint != ""
}

// ownConfiguration is what this node tells others about the members.
func (n *Node) ownConfiguration() configurationAnswer {
	index, servers := n.configuration()
	answer := configurationAnswer{Index: index, Members: toWire(servers), Applied: n.State().Index()} // or earlier than the view
	view := n.State().View()
	for i, m := range answer.Members {
		if record, ok := view.ClusterNode(m.ID); ok {
			answer.Members[i].Key = record.KeyFingerprint
		}
	}
	return answer
}

// Refresh asks the members that are known for the present ones: this node's log
// may be old. One answer is enough; the newest counts.
func (n *Node) Refresh(ctx context.Context) error {
	_, _, err := n.refresh(ctx)
	return err
}

// refresh also tells how many members answered, and which let this node in no more.
func (n *Node) refresh(ctx context.Context) (answered int, refused []raft.ServerID, err error) {
	if n.config.Peers == nil {
		return 0, nil, nil
	}
	var (
		mu       sync.Mutex
		wg       sync.WaitGroup
		failures []error
	)
	for _, s := range n.acquaintances() {
		if string(s.ID) == n.config.NodeID {
			continue
		}
		wg.Go(func() {
			var body configurationAnswer
			err := n.call(ctx, string(s.ID), string(s.Address), methodConfiguration, nil, &body)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				answered++
				n.members.learn(configuration{index: body.Index, servers: fromWire(body.Members)})
				n.members.hear(keysOf(body.Members), body.Applied)
			case errors.Is(err, peer.ErrNotMember):
				refused = append(refused, s.ID)
			}
			if err != nil {
				failures = append(failures, err)
			}
		})
	}
	wg.Wait()
	if answered == 0 && len(failures) > 0 {
		return answered, refused, fmt.Errorf("no member tells who the members are: %w", errors.Join(failures...))
	}
	return answered, refused, nil
}

// watchMembership finds out whether a node that hears of no leader was removed:
// the entry that says so need not have reached it, and nobody sends it any more.
func (n *Node) watchMembership(ctx context.Context) {
	// One that has yet to hear from the cluster was not removed; one that starts
	// again after it was is told again.
	member := len(n.members.joining) == 0 || n.isMember()
	jitter.Loop(ctx, watchElections*n.config.ElectionTimeout, jitter.DefaultSchedulerJitter, nil, func(ctx context.Context) {
		if id, _ := n.Leader(); id != "" || n.config.Peers == nil {
			n.expelled.Store(false)
		} else {
			ctx, cancel := context.WithTimeout(ctx, probePatience)
			defer cancel()
			answered, refused, _ := n.refresh(ctx) // nobody may be there, and that is no news
			n.expelled.Store(answered == 0 && len(refused) > 0)
		}
		was := member
		member = n.isMember()
		switch {
		case !was || member:
		case n.expelled.Load(): // those that are here may know less than others
			n.log.Warn("no member that can be reached lets this node in: if it was removed from the cluster, stop it; if not, bring the other members back",
				"node_id", n.config.NodeID)
		default:
			n.log.Warn("this node was removed from the cluster and does nothing any more: stop it; to let it join again, empty its data directory first",
				"node_id", n.config.NodeID)
		}
	})
}
