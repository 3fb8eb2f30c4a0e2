package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/coordinator/jointoken"
)

const defaultJoinTTL = time.Hour

type joinTokenDetail struct {
	Body resource.JoinToken
}

type createJoinToken struct {
	Body resource.CreateJoinToken
}

type createdJoinToken struct {
	Body resource.CreatedJoinToken
}

func (s *server) registerJoinTokens(api huma.API) {
	const path = "/api/v1/cluster/join-tokens"
	tags := []string{"cluster"}
	huma.Register(api, fleetWide(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "create-join-token", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Create a token by which one node joins the cluster",
		Description: "The answer is the only one that has the token itself. A node that joins is given the seal key: whoever has the token " +
			"gets all that the cluster has. Asking again makes another token.",
	}), ofTheCluster), s.createJoinToken)
	read(s, api, fleetWide(shows(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "list-join-tokens", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "List join tokens", Description: "Newest first, and for some weeks ended ones too.",
	}), fleet.TableJoinTokens), ofTheCluster), s.listJoinTokens)
	huma.Register(api, fleetWide(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "revoke-join-token", Method: http.MethodDelete, Path: path + "/{id}", Tags: tags,
		Summary:     "Revoke a join token",
		Description: "No node joins with it any more. A node that did stays; remove it. Revoking it again changes nothing.",
	}), ofTheCluster), s.revokeJoinToken)
}

func (s *server) createJoinToken(ctx context.Context, in *createJoinToken) (*createdJoinToken, error) {
	if strings.ContainsFunc(in.Body.Description, notPrintable) {
		return nil, invalid("description", "the description has control characters", "use plain text on one line")
	}
	root, problem := s.root()
	if problem != nil {
		return nil, problem
	}
	// Of this node and the others, so that the token is good while any of them is there.
	urls := s.nodeURLs()
	token, err := jointoken.New(root, urls[:min(len(urls), jointoken.MaxURLs)]...)
	if err != nil {
		return nil, s.fail("create a join token", err)
	}
	command := fleet.CreateJoinToken{
		Actor: actorOf(ctx), ID: token.ID, SecretHash: token.SecretHash(), Description: in.Body.Description,
		ExpiresAt: s.Now().UTC().Add(lifetime(in.Body.TTLSeconds, defaultJoinTTL)),
	}
	if _, err := s.do(ctx, command); err != nil {
		return nil, err
	}
	stored, ok := s.Node.State().View().JoinToken(token.ID)
	if !ok {
		return nil, s.fail("create a join token", fmt.Errorf("the token %s is not in the state after it was stored", token.ID))
	}
	return &createdJoinToken{Body: resource.CreatedJoinToken{
		JoinToken: joinToken(stored, health.At(s.Now())), Token: token.Reveal(), URLs: token.URLs, Warning: unreachable(s.Listening),
	}}, nil
}

func (s *server) listJoinTokens(_ context.Context, p *picture, in *listTokens) (*tokenList[resource.JoinToken], error) {
	about := func(t resource.JoinToken) (tokenPlace, resource.TokenState) {
		return tokenPlace{t.CreatedAt, t.ID}, t.State
	}
	return listOf(p.view.JoinTokens(), joinToken, about, in.State, in.Paging, p.Clock)
}

func (s *server) revokeJoinToken(ctx context.Context, in *tokenPath) (*joinTokenDetail, error) {
	if _, err := s.do(ctx, fleet.RevokeJoinToken{Actor: actorOf(ctx), ID: in.ID}); err != nil {
		return nil, err
	}
	stored, ok := s.Node.State().View().JoinToken(in.ID)
	if !ok {
		return nil, notFound("the token is gone", "list the tokens to see their ids")
	}
	return &joinTokenDetail{Body: joinToken(stored, health.At(s.Now()))}, nil
}

func joinToken(t *fleet.JoinToken, now *health.Clock) resource.JoinToken {
	out := resource.JoinToken{
		ID: t.ID, State: resource.TokenUsable, Description: t.Description, CreatedAt: t.CreatedAt.UTC(), CreatedBy: t.CreatedBy,
		ExpiresAt: t.ExpiresAt.UTC(), UsedAt: t.UsedAt.UTC(), UsedBy: t.UsedBy, RevokedAt: t.RevokedAt.UTC(), RevokedBy: t.RevokedBy,
	}
	switch {
	case !t.RevokedAt.IsZero():
		out.State = resource.TokenRevoked
	case !t.UsedAt.IsZero():
		out.State = resource.TokenUsed
	case now.Reached(t.ExpiresAt):
		out.State = resource.TokenExpired
	}
	return out
}
