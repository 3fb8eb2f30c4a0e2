package agentapi

import (
	"context"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/jitter"
)

const (
	// flushInterval is how long a sign of life may be known to the leader alone.
	flushInterval = 5 * time.Second
	// flushBatch is how many signs of life go into one command.
	flushBatch = 5000
	// farewell bounds the last flush of a leader that stops.
	farewell = time.Second
)

// seenFor is how long this node remembers by itself that it heard of an agent: by
// then the replicated state has it. Agents come and go for years.
const seenFor = time.Hour

// presence is when agents were last heard of. The zero value is ready.
type presence struct {
	mu     sync.Mutex
	seen   map[string]time.Time
	dirty  map[string]time.Time // what of it is not in the replicated state
	swept  time.Time            // when what is old was last dropped from seen
	newest time.Time            // of all
}

func (p *presence) touch(agentID string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil {
		p.seen, p.dirty = map[string]time.Time{}, map[string]time.Time{}
	}
	if !at.After(p.seen[agentID]) {
		return
	}
	p.seen[agentID], p.dirty[agentID] = at, at
	if at.After(p.newest) {
		p.newest = at
	}
	if p.newest.Sub(p.swept) >= seenFor {
		p.sweep()
	}
}

// sweep drops what is old and replicated; p.mu is held.
func (p *presence) sweep() {
	p.swept = p.newest
	for agentID, at := range p.seen {
		if _, dirty := p.dirty[agentID]; !dirty && p.newest.Sub(at) > seenFor {
			delete(p.seen, agentID)
		}
	}
}

// stored takes an agent off the list of those to be replicated: a change that
// was committed at that time said so already.
func (p *presence) stored(agentID string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if dirty, ok := p.dirty[agentID]; ok && !dirty.After(at) {
		delete(p.dirty, agentID)
	}
}

// take empties the list of those to be replicated.
func (p *presence) take() map[string]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.dirty
	p.dirty = make(map[string]time.Time, len(taken))
	return taken
}

// putBack undoes take, but for those who were heard of since.
func (p *presence) putBack(taken map[string]time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for agentID, at := range taken {
		if at.After(p.dirty[agentID]) {
			p.dirty[agentID] = at
		}
	}
}

// LastSeen is when this node last heard of an agent. The replicated state may
// know a later time, of another node, and lags behind by seconds.
func (s *Service) LastSeen(agentID string) (time.Time, bool) {
	s.presence.mu.Lock()
	defer s.presence.mu.Unlock()
	at, ok := s.presence.seen[agentID]
	return at, ok
}

// flushPresence replicates the signs of life of the last seconds, all in one
// command, while this node leads.
func (s *Service) flushPresence(ctx context.Context) error {
	jitter.Loop(ctx, flushInterval, jitter.DefaultSchedulerJitter, nil, s.flushOnce)
	// A planned stop leaves nothing to guess for the next start. If the
	// leadership was lost instead, this fails at once, and costs nothing.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	s.flushOnce(last)
	return nil
}

func (s *Service) flushOnce(ctx context.Context) {
	taken := s.presence.take()
	if len(taken) == 0 {
		return
	}
	var commands []fleet.Command
	batch := fleet.TouchAgents{}
	add := func() error {
		command, err := fleet.NewCommand(s.now(), batch)
		if err == nil {
			commands, batch.Seen = append(commands, command), nil
		}
		return err
	}
	var err error
	for agentID, at := range taken {
		batch.Seen = append(batch.Seen, fleet.Seen{Agent: agentID, At: at})
		if len(batch.Seen) == flushBatch && err == nil {
			err = add()
		}
	}
	if len(batch.Seen) > 0 && err == nil {
		err = add()
	}
	for _, command := range commands {
		if err == nil {
			_, err = s.node.Propose(ctx, command)
		}
	}
	if err != nil {
		s.presence.putBack(taken) // storing one twice does no harm
		if ctx.Err() == nil {
			s.log.Warn("last signs of life were not stored; they are stored with the next ones", "agents", len(taken), "err", err)
		}
	}
}
