package agentapi

import (
	"context"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

// maxPresent is how many requests of one agent may be here at a time: one that
// is worked on and a few that wait or are still arriving. An agent has one
// connection and waits for its answers; more is a fault on its side, and must
// not take the places of others, not even by sending its bodies slowly.
const maxPresent = 4

// A session is what this node remembers of an agent between its requests.
// Losing it costs nothing.
type session struct {
	turn chan struct{} // holds a value while a request is worked on

	// Of the last sync that was answered; belong to whoever has the turn.
	bootID   string
	sequence uint64
	// earlier are the boot ids of before, the newest last, and sighted is when
	// one of them was last used again.
	earlier []string
	sighted time.Time

	present int // requests that are here; guarded by sessions.mu
}

// sessions keeps the requests of each agent in order, one at a time. The zero
// value is ready.
type sessions struct {
	mu      sync.Mutex
	byAgent map[string]*session
}

// A visit is one request of an agent, from the moment when it is known whose it
// is until it is answered. It belongs to one goroutine.
type visit struct {
	*session
	sessions *sessions
	begun    bool // it has the turn
}

// arrive counts a request before anything more is read of it. The caller leaves
// when it is done.
func (s *sessions) arrive(agentID string) (*visit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byAgent == nil {
		s.byAgent = map[string]*session{}
	}
	one := s.byAgent[agentID]
	if one == nil {
		one = &session{turn: make(chan struct{}, 1)}
		s.byAgent[agentID] = one
	}
	if one.present >= maxPresent {
		return nil, problem.Later(wire.CodeOverloaded, "earlier requests of this agent are still being answered", time.Second)
	}
	one.present++
	return &visit{session: one, sessions: s}, nil
}

// begin waits for the agent's turn.
func (v *visit) begin(ctx context.Context) error {
	select {
	case v.turn <- struct{}{}:
		v.begun = true
		return nil
	case <-ctx.Done():
		return problem.Later(wire.CodeOverloaded, "an earlier request of this agent took too long", unavailablePause)
	}
}

func (v *visit) leave() {
	if v.begun {
		<-v.turn
	}
	v.sessions.mu.Lock()
	defer v.sessions.mu.Unlock()
	v.present--
}

// forget drops the session of an agent that is gone.
func (s *sessions) forget(agentID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.byAgent[agentID]; one != nil && one.present == 0 {
		delete(s.byAgent, agentID)
	}
}
