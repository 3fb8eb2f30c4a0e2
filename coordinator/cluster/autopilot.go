package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
)

// keptFor is how long a member that is dead and stays is left alone.
const keptFor = time.Minute

// maxTrailing is how many entries a member may be behind and still count as
// healthy: more than what comes in between two looks.
const maxTrailing = 1024

// A pilot watches the members while this node leads, gives the vote to those
// that are stable, and removes those that are dead for too long. What is to be
// done is decided by the library; here is what it decides on, and how it is done.
type pilot struct {
	node *Node
	*autopilot.Autopilot

	mu        sync.Mutex
	sightings map[raft.ServerID]sighting
	state     *autopilot.State
	kept      map[string]time.Time // the dead that stay, and until when nobody asks again whether they have to
}

// A sighting is what is known of a member from its own answers.
type sighting struct {
	at    time.Time // of the last answer; of the first question as long as there is none
	stats statsAnswer
}

func newPilot(n *Node) *pilot {
	p := &pilot{node: n}
	stable := n.config.Stabilization
	look := min(max(stable/5, 200*time.Millisecond), autopilot.DefaultUpdateInterval)
	p.Autopilot = autopilot.New(pilotRaft{n}, p,
		autopilot.WithLogger(newRaftLogger(n.log)),
		autopilot.WithUpdateInterval(look), autopilot.WithReconcileInterval(2*look))
	return p
}

// run is leader work: a new leader begins with new observations.
func (p *pilot) run(ctx context.Context) error {
	p.Start(ctx)
	<-ctx.Done()
	<-p.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sightings, p.state, p.kept = nil, nil, nil
	return nil
}

// AutopilotConfig implements autopilot.ApplicationIntegration.
func (p *pilot) AutopilotConfig() *autopilot.Config {
	c := p.node.config
	return &autopilot.Config{
		CleanupDeadServers:      c.DeadServerAfter > 0,
		LastContactThreshold:    2 * c.ElectionTimeout,
		MaxTrailingLogs:         maxTrailing,
		MinQuorum:               c.MinQuorum,
		ServerStabilizationTime: c.Stabilization,
	}
}

// NotifyState implements autopilot.ApplicationIntegration.
func (p *pilot) NotifyState(state *autopilot.State) {
	p.mu.Lock()
	before := p.state
	p.state = state
	p.mu.Unlock()
	if before != nil && before.Healthy == state.Healthy && before.FailureTolerance == state.FailureTolerance {
		return
	}
	var unhealthy []string
	for id, server := range state.Servers {
		if !server.Health.Healthy {
			unhealthy = append(unhealthy, string(id))
		}
	}
	if len(unhealthy) > 0 {
		p.node.log.Warn("members of the cluster are not healthy", "node_ids", unhealthy, "failure_tolerance", state.FailureTolerance)
	} else {
		p.node.log.Info("all members of the cluster are healthy", "failure_tolerance", state.FailureTolerance)
	}
}

// FetchServerStats implements autopilot.ApplicationIntegration. All members are
// asked, also those that the library takes for dead: or it would never hear that
// they are back.
func (p *pilot) FetchServerStats(ctx context.Context, _ map[raft.ServerID]*autopilot.Server) map[raft.ServerID]*autopilot.ServerStats {
	_, servers := p.node.configuration()
	answers := p.node.probe(ctx, servers)
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	sightings := make(map[raft.ServerID]sighting, len(servers))
	stats := make(map[raft.ServerID]*autopilot.ServerStats, len(servers))
	for _, s := range servers {
		seen, known := p.sightings[s.ID]
		answer, ok := answers[s.ID]
		switch {
		case ok:
			seen = sighting{at: now, stats: answer}
		case !known:
			seen.at = now
		}
		sightings[s.ID] = seen
		stats[s.ID] = &autopilot.ServerStats{
			LastTerm: seen.stats.LastTerm, LastIndex: seen.stats.LastIndex, LastContact: time.Duration(seen.stats.LastContact),
		}
		if !ok { // what it said last counts no more
			stats[s.ID].LastContact = -1
		}
	}
	p.sightings = sightings
	return stats
}

// level is what a member said to this leader that it understands; 0 if it has
// said nothing.
func (p *pilot) level(id raft.ServerID) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sightings[id].stats.Level
}

// KnownServers implements autopilot.ApplicationIntegration.
func (p *pilot) KnownServers() map[raft.ServerID]*autopilot.Server {
	c := p.node.config
	_, servers := p.node.configuration()
	p.mu.Lock()
	defer p.mu.Unlock()
	known := make(map[raft.ServerID]*autopilot.Server, len(servers))
	for _, s := range servers {
		seen, ok := p.sightings[s.ID]
		status := autopilot.NodeAlive
		if ok && c.DeadServerAfter > 0 && time.Since(seen.at) > c.DeadServerAfter {
			status = autopilot.NodeFailed
		}
		known[s.ID] = &autopilot.Server{
			ID: s.ID, Name: string(s.ID), Address: s.Address, NodeStatus: status, NodeType: autopilot.NodeVoter,
			Version: seen.stats.Version, RaftVersion: int(raft.ProtocolVersionMax), IsLeader: string(s.ID) == c.NodeID,
		}
	}
	return known
}

// RemoveFailedServer implements autopilot.ApplicationIntegration. The library
// has counted the voters; whether enough of them are alive is looked at again. The
// member is asked a last time: it may have been this node that stood still, and has
// not looked since.
func (p *pilot) RemoveFailedServer(server *autopilot.Server) {
	id := string(server.ID)
	p.mu.Lock()
	again := p.kept[id]
	p.mu.Unlock()
	if time.Now().Before(again) {
		return
	}
	p.node.asking.begin(func() { p.removeDead(id) })
}

func (p *pilot) removeDead(id string) {
	n := p.node
	ctx, cancel := context.WithTimeout(n.life, changePatience)
	defer cancel()
	_, servers := n.configuration()
	member := serverOf(servers, id)
	if member == nil {
		return
	}
	if len(n.probe(ctx, []raft.Server{*member})) > 0 {
		n.log.Info("a member that was taken for dead answers, and stays", "node_id", id)
		return
	}
	if !p.mayForget(ctx, id) {
		return
	}
	if err := n.change(ctx, methodRemoveMember, memberRequest{ID: id}); err != nil {
		n.log.Warn("a member that is dead was not removed", "node_id", id, "err", err)
		return
	}
	n.log.Warn("a member was removed because it did not answer for too long", "node_id", id, "dead_after", n.config.DeadServerAfter)
}

// mayForget reports whether nothing stands against removing a member that is dead, and
// logs once what does.
func (p *pilot) mayForget(ctx context.Context, id string) bool {
	n := p.node
	if n.config.MayForget == nil {
		return true
	}
	err := n.config.MayForget(ctx, id)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.kept, id)
		return true
	}
	if _, said := p.kept[id]; !said {
		n.log.Warn("a member that is dead stays", "node_id", id, "err", err)
	}
	if p.kept == nil {
		p.kept = map[string]time.Time{}
	}
	p.kept[id] = time.Now().Add(keptFor)
	return false
}

// pilotRaft is Raft as the library sees it. Whatever it changes is bound to the
// configuration of that moment, in which the member must still be there.
type pilotRaft struct{ *Node }

func (r pilotRaft) AddNonvoter(id raft.ServerID, address raft.ServerAddress, _ uint64, _ time.Duration) raft.IndexFuture {
	return r.with(id, func(_ raft.Server, prev uint64) raft.IndexFuture {
		return r.raft.AddNonvoter(id, address, prev, changePatience)
	})
}

func (r pilotRaft) AddVoter(id raft.ServerID, _ raft.ServerAddress, _ uint64, _ time.Duration) raft.IndexFuture {
	return r.with(id, func(s raft.Server, prev uint64) raft.IndexFuture {
		return r.raft.AddVoter(id, s.Address, prev, changePatience)
	})
}

func (r pilotRaft) DemoteVoter(id raft.ServerID, _ uint64, _ time.Duration) raft.IndexFuture {
	return r.with(id, func(_ raft.Server, prev uint64) raft.IndexFuture {
		return r.raft.DemoteVoter(id, prev, changePatience)
	})
}

func (r pilotRaft) RemoveServer(id raft.ServerID, _ uint64, _ time.Duration) raft.IndexFuture {
	ctx, cancel := context.WithTimeout(r.life, changePatience)
	defer cancel()
	return settled{err: r.change(ctx, methodRemoveMember, memberRequest{ID: string(id)}), index: r.members.index()}
}

func (r pilotRaft) LastIndex() uint64          { return r.raft.LastIndex() }
func (r pilotRaft) Stats() map[string]string   { return r.raft.Stats() }
func (r pilotRaft) State() raft.RaftState      { return r.raft.State() }
func (r pilotRaft) Leader() raft.ServerAddress { address, _ := r.raft.LeaderWithID(); return address }

func (r pilotRaft) GetConfiguration() raft.ConfigurationFuture { return r.raft.GetConfiguration() }

func (r pilotRaft) LeadershipTransferToServer(id raft.ServerID, address raft.ServerAddress) raft.Future {
	return r.raft.LeadershipTransferToServer(id, address)
}

// with makes one change to a member.
func (r pilotRaft) with(id raft.ServerID, change func(s raft.Server, prev uint64) raft.IndexFuture) raft.IndexFuture {
	ctx, cancel := context.WithTimeout(r.life, changePatience)
	defer cancel()
	select {
	case r.changing <- struct{}{}:
	case <-ctx.Done():
		return settled{err: ctx.Err()}
	}
	defer func() { <-r.changing }()
	if !r.IsLeader() {
		return settled{err: ErrNotLeader}
	}
	index, servers := r.configuration()
	server := serverOf(servers, string(id))
	if server == nil {
		return settled{err: fmt.Errorf("%s: %w", id, ErrNoMember)}
	}
	err := r.reconfigure(ctx, index, func(prev uint64) raft.IndexFuture { return change(*server, prev) })
	return settled{err: err, index: r.members.index()}
}

// settled is the answer to a question that was asked before.
type settled struct {
	err   error
	index uint64
}

func (s settled) Error() error  { return s.err }
func (s settled) Index() uint64 { return s.index }
