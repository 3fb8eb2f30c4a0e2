package api

import (
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
)

// A picture is what one answer is made from: the state at one moment and the time at
// another, neither of which changes under it. One goroutine uses it.
type picture struct {
	*health.Clock
	view *fleet.View
	// whole is the same moment for those who say by themselves which tables they look at,
	// and of which hosts.
	whole *fleet.View
	pause time.Duration // between syncs, at present
	// seen is an agent's last sign of life.
	seen func(*fleet.Agent) time.Time
	// discreet pictures are those of answers that have a tag. They do not tell the
	// last sign of life of an agent that is not cut off, which comes with every sync.
	discreet bool
	// askedContact says that it was asked for who is in touch.
	askedContact bool
	items        *items // nil keeps none
}

// live is a picture of now, with all that this node has heard of the hosts of a scope.
func (s *server) live(scope fleet.Scope) *picture {
	whole := s.Node.State().View()
	view := whole.Within(scope)
	return &picture{
		Clock: health.At(s.Now()), view: view, whole: whole, pause: s.Pause(),
		seen: func(agent *fleet.Agent) time.Time { return s.lastSeen(view, agent) },
	}
}

// contact is whether an agent is in touch.
type contact struct {
	cutOff bool
	// seen is its last sign of life; zero if the picture does not tell.
	seen time.Time
}

func (p *picture) contact(agent *fleet.Agent) contact {
	p.askedContact = true
	c := contact{seen: p.seen(agent)}
	c.cutOff = p.Now.After(health.Silent(p.pause, c.seen))
	if p.discreet && (!c.cutOff || agent.State != fleet.AgentActive) {
		c.seen = time.Time{}
	}
	return c
}

// contactOf is contact for the agent of a certificate.
func (p *picture) contactOf(row *fleet.Certificate) contact {
	if agent, ok := p.view.Agent(row.Agent); ok {
		return p.contact(agent)
	}
	return contact{cutOff: true}
}
