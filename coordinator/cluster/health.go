package cluster

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Health is how the cluster is, as its leader sees it.
type Health struct {
	Leader  string
	Healthy bool // all members are
	// FailureTolerance is how many more voters may be lost before nothing can be
	// decided any more.
	FailureTolerance int
	Index            uint64 // of the configuration
	// StableAfter is how long a new member must be healthy before it is given the
	// vote.
	StableAfter time.Duration
	Members     []MemberHealth
}

// MemberHealth is how one member is.
type MemberHealth struct {
	ID      string
	Address string
	Voter   bool
	// Healthy says that it answers, follows the leader and is not far behind;
	// StableSince, since when it is so, or is not.
	Healthy     bool
	StableSince time.Time
	// LastSeen is when it answered last; zero if it has not since this leader was
	// elected. What follows is from that answer.
	LastSeen    time.Time
	LastContact time.Duration // since it had heard of the leader; negative for never
	LastTerm    uint64
	LastIndex   uint64
	Version     string
	Level       uint32
}

// ownHealth is what this node sees, which leads.
func (n *Node) ownHealth() (*Health, error) {
	if !n.IsLeader() {
		return nil, ErrNotLeader
	}
	index, servers := n.configuration()
	health := &Health{Leader: n.config.NodeID, Index: index, StableAfter: n.config.Stabilization}
	p := n.pilot
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil {
		return nil, fmt.Errorf("%w for long enough to know", ErrNotLeader)
	}
	health.Healthy, health.FailureTolerance = p.state.Healthy, p.state.FailureTolerance
	for _, s := range servers {
		m := MemberHealth{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter}
		if seen, ok := p.sightings[s.ID]; ok && seen.stats.Level > 0 { // each answer has a level
			m.LastSeen, m.LastContact = seen.at, time.Duration(seen.stats.LastContact)
			m.LastTerm, m.LastIndex, m.Version, m.Level = seen.stats.LastTerm, seen.stats.LastIndex, seen.stats.Version, seen.stats.Level
		}
		if server, ok := p.state.Servers[s.ID]; ok {
			m.Healthy, m.StableSince = server.Health.Healthy, server.Health.StableSince
		} else {
			health.Healthy = false // not looked at yet
		}
		health.Members = append(health.Members, m)
	}
	return health, nil
}
