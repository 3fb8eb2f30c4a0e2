package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

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

// Refresh asks the members that are known for the present ones: this node's log
// may be old. One answer is enough; the newest counts.
func (n *Node) Refresh(ctx context.Context) error {
	if n.config.Peers == nil {
		return nil
	}
	var (
		mu       sync.Mutex
		wg       sync.WaitGroup
		answered bool
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
			if err != nil {
				failures = append(failures, err)
				return
			}
			answered = true
			n.members.learn(configuration{index: body.Index, servers: fromWire(body.Members)})
		})
	}
	wg.Wait()
	if !answered && len(failures) > 0 {
		return fmt.Errorf("no member tells who the members are: %w", errors.Join(failures...))
	}
	return nil
}
