package agentapi

import (
	"context"
	"net/http"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/trust"
	"github.com/certctl/certctl/shared/wire"
)

// trust answers wire.TrustPath: the generations of trust that somebody lacks.
// They are no secret and prove themselves, so that every node answers everybody.
func (s *Service) trust(r *http.Request) (any, error) {
	var request wire.TrustRequest
	if p := wire.Decode(r.Body, wire.MaxTrustRequest, &request); p != nil {
		return nil, p
	}
	if p := request.Validate(); p != nil {
		return nil, p
	}
	missing, _, err := missingTrust(s.node.State().View(), &request.Trust)
	if err != nil {
		return nil, err
	}
	return wire.TrustResponse{Generations: missing}, nil
}

// missingTrust is what follows a position, and its number in this chain; 0 if it
// is not of this chain, and then everything is missing.
func missingTrust(view *fleet.View, at *wire.TrustPosition) (missing [][]byte, known uint64, err error) {
	stored, ok := view.CA()
	if !ok {
		return nil, 0, nil
	}
	var digest trust.Digest
	copy(digest[:], at.Digest)
	return trust.After(stored.Generations, at.Generation, digest)
}

// syncTrust tells an agent what it lacks, and remembers how far it has come,
// which is a change of the state only when it has come further.
func (s *Service) syncTrust(ctx context.Context, agentID string, at *wire.TrustPosition) ([][]byte, error) {
	if at == nil {
		return nil, nil // it follows no generations
	}
	view := s.node.State().View()
	missing, known, err := missingTrust(view, at)
	if err != nil {
		return nil, err
	}
	if agent, ok := view.Agent(agentID); ok && agent.TrustGeneration != known {
		if err := s.propose(ctx, fleet.AcknowledgeTrust{AgentID: agentID, Generation: known}, nil); err != nil {
			return nil, err
		}
	}
	return missing, nil
}
