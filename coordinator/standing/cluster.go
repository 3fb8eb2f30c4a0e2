package standing

import (
	"context"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
)

// look asks all members and takes the replicated state's word on them.
func (s *Service) look(ctx context.Context) *picture {
	p := &picture{self: s.cfg.NodeID, nodes: map[string]*fleet.ClusterNode{}}
	p.begun = s.cfg.Node.State().Index()
	p.answers, p.index = s.Gather(ctx)
	p.now = s.cfg.Now()
	view := s.cfg.Node.State().View()
	for _, node := range view.ClusterNodes() {
		p.nodes[node.ID] = node
	}
	if ca, ok := view.ClusterCA(); ok {
		p.ca = ca
	}
	return p
}

// Members asks every member how it stands. It takes a few seconds when one does
// not answer.
func (s *Service) Members(ctx context.Context) resource.Members { return s.look(ctx).members() }

// Health asks every member how it stands and judges what they come to together.
func (s *Service) Health(ctx context.Context) resource.ClusterHealth { return s.look(ctx).health() }
