package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Health is how the cluster is, as its leader sees it.
type Health struct {
	Leader  string `cbor:"1,keyasint"`
	Healthy bool   `cbor:"2,keyasint,omitempty"` // all members are
	// FailureTolerance is how many more voters may be lost before nothing can be
	// decided any more.
	FailureTolerance int    `cbor:"3,keyasint,omitempty"`
	Index            uint64 `cbor:"4,keyasint"` // of the configuration
	// StableAfter is how long a new member must be healthy before it is given the
	// vote.
	StableAfter time.Duration  `cbor:"5,keyasint,omitempty"`
	Members     []MemberHealth `cbor:"6,keyasint"`
}

// MemberHealth is how one member is.
type MemberHealth struct {
	ID      string `cbor:"1,keyasint"`
	Address string `cbor:"2,keyasint"`
	Voter   bool   `cbor:"3,keyasint,omitempty"`
	// Healthy says that it answers, follows the leader and is not far behind;
	// StableSince, since when it is so, or is not.
	Healthy     bool      `cbor:"4,keyasint,omitempty"`
	StableSince time.Time `cbor:"5,keyasint,omitzero"`
	// LastSeen is when it answered last; zero if it has not since this leader was
	// elected. What follows is from that answer.
	LastSeen    time.Time     `cbor:"6,keyasint,omitzero"`
	LastContact time.Duration `cbor:"7,keyasint,omitempty"` // since it had heard of the leader; negative for never
	LastTerm    uint64        `cbor:"8,keyasint,omitempty"`
	LastIndex   uint64        `cbor:"9,keyasint,omitempty"`
	Version     string        `cbor:"10,keyasint,omitempty"`
	Level       uint32        `cbor:"11,keyasint,omitempty"`
}

// Health asks the leader how the cluster is. Any node takes the call. Errors are
// those of [Node.ConsistentIndex].
func (n *Node) Health(ctx context.Context) (*Health, error) {
	var health *Health
	err := n.atLeader(ctx, func(context.Context) (err error) {
		health, err = n.ownHealth()
		return err
	}, func(ctx context.Context, id, address string) error {
		health = &Health{}
		return n.call(ctx, id, address, methodHealth, nil, health)
	})
	if err != nil {
		return nil, fmt.Errorf("ask for the health of the cluster: %w", withoutDoubt(err))
	}
	return health, nil
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
