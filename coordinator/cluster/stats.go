package cluster

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/buildinfo"
)

// probePatience is how long a member has to answer how it is.
const probePatience = 2 * time.Second

// ownStats is how this node is, for the leader.
func (n *Node) ownStats() statsAnswer {
	s := statsAnswer{LastIndex: n.raft.LastIndex(), LastContact: -1, Version: buildinfo.Version(), Level: fleet.Level}
	s.LastTerm = lastTerm(n.raft.Stats())
	if last := n.raft.LastContact(); n.raft.State() == raft.Leader {
		s.LastContact = 0
	} else if !last.IsZero() {
		s.LastContact = int64(time.Since(last))
	}
	return s
}

// probe asks members how they are, all at once, and returns the answers of those
// that answer.
func (n *Node) probe(ctx context.Context, servers []raft.Server) map[raft.ServerID]statsAnswer {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	var (
		mu      sync.Mutex
		wg      sync.WaitGroup
		answers = map[raft.ServerID]statsAnswer{}
	)
	for _, s := range servers {
		if string(s.ID) == n.config.NodeID {
			mu.Lock()
			answers[s.ID] = n.ownStats()
			mu.Unlock()
			continue
		}
		if n.config.Peers == nil {
			continue
		}
		wg.Go(func() {
			address := s.Address
			if moved, ok := n.members.movedTo(s.ID); ok {
				address = moved
			}
			var stats statsAnswer
			if n.call(ctx, string(s.ID), string(address), methodStats, nil, &stats) != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[s.ID] = stats
		})
	}
	wg.Wait()
	return answers
}

// lastTerm is the term of the newest entry, from what Raft tells in no other form. The log may have none: a snapshot that
// a leader sent can cover all there is.
func lastTerm(stats map[string]string) uint64 {
	number := func(key string) uint64 {
		n, _ := strconv.ParseUint(stats[key], 10, 64) // Raft wrote it
		return n
	}
	if number("last_snapshot_index") > number("last_log_index") {
		return number("last_snapshot_term")
	}
	return number("last_log_term")
}
