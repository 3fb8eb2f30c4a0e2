package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/shared/wire"
)

type listAPITokens struct {
	State string `query:"state" enum:"usable,expired,revoked" doc:"Absent: all."`
	Paging
}

type apiTokenDetail struct {
	Body resource.APIToken
}

type createAPIToken struct {
	Body resource.CreateAPIToken
}

type createdAPIToken struct {
	Body resource.CreatedAPIToken
}

type identified struct {
	Body resource.Identified
}

func (s *server) registerAPITokens(api huma.API) {
	const path = "/api/v1/tokens"
	tags := []string{"API tokens"}
	huma.Register(api, needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "create-api-token", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Create an API token",
		Description: "The answer is the only one that has the token itself. Asking again makes another token.",
	}), s.createAPIToken)
	read(s, api, shows(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "list-api-tokens", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "List API tokens", Description: "Newest first, ended ones too.",
	}), fleet.TableAPITokens), s.listAPITokens)
	huma.Register(api, needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "revoke-api-token", Method: http.MethodPost, Path: path + "/{id}/revoke", Tags: tags,
		Summary:     "Revoke an API token",
		Description: "It is refused from now on. The last usable token with the role admin cannot be revoked. Revoking a token again changes nothing.",
	}), s.revokeAPIToken)
	huma.Register(api, untagged(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "whoami", Method: http.MethodGet, Path: "/api/v1/whoami", Tags: []string{"status"},
		Summary: "Who the token belongs to",
	}), "it tells of the token that was looked up already to let the request in"), whoami)
}

func whoami(ctx context.Context, _ *struct{}) (*identified, error) {
	token := tokenOf(ctx)
	return &identified{Body: resource.Identified{
		TokenID: token.ID, Name: token.Name, Role: string(token.Role), ExpiresAt: token.ExpiresAt.UTC(),
	}}, nil
}

func (s *server) createAPIToken(ctx context.Context, in *createAPIToken) (*createdAPIToken, error) {
	name := strings.TrimSpace(in.Body.Name)
	if name == "" || strings.ContainsFunc(name, notPrintable) {
		return nil, invalid("name", "the name is empty or has control characters", "say in plain text who or what uses the token")
	}
	token := apitoken.New()
	command := fleet.CreateAPIToken{
		Actor: actorOf(ctx), ID: token.ID, Name: name, Hash: token.Hash(), Role: fleet.Role(in.Body.Role),
	}
	if in.Body.TTLSeconds > 0 {
		command.ExpiresAt = s.Now().UTC().Add(lifetime(in.Body.TTLSeconds, 0))
	}
	if _, err := s.do(ctx, command); err != nil {
		return nil, err
	}
	stored, ok := s.Node.State().View().APIToken(token.ID)
	if !ok {
		return nil, s.fail("create an API token", fmt.Errorf("the token %s is not in the state after it was stored", token.ID))
	}
	return &createdAPIToken{Body: resource.CreatedAPIToken{APIToken: apiToken(stored, health.At(s.Now())), Token: token.Reveal()}}, nil
}

func (s *server) listAPITokens(_ context.Context, p *picture, in *listAPITokens) (*tokenList[resource.APIToken], error) {
	about := func(t resource.APIToken) (tokenPlace, resource.TokenState) {
		return tokenPlace{t.CreatedAt, t.ID}, t.State
	}
	return listOf(p.view.APITokens(), apiToken, about, in.State, in.Paging, p.Clock)
}

func (s *server) revokeAPIToken(ctx context.Context, in *tokenPath) (*apiTokenDetail, error) {
	if s.lastAdmin(in.ID) {
		return nil, newProblem(wire.CodeConflict, "id", "this is the last usable token with the role admin",
			"create another admin token first, so that somebody can still make tokens")
	}
	if _, err := s.do(ctx, fleet.RevokeAPIToken{Actor: actorOf(ctx), ID: in.ID}); err != nil {
		return nil, err
	}
	stored, ok := s.Node.State().View().APIToken(in.ID)
	if !ok {
		return nil, notFound("the token is gone", "list the tokens to see their ids")
	}
	return &apiTokenDetail{Body: apiToken(stored, health.At(s.Now()))}, nil
}

// lastAdmin keeps people from locking themselves out by mistake. It is no more
// than that: two admins who revoke each other's tokens at the same moment
// succeed, and the next start of the coordinator makes a new admin token.
func (s *server) lastAdmin(id string) bool {
	now, last := s.Now(), false
	for _, token := range s.Node.State().View().APITokens() {
		if token.Role != fleet.RoleAdmin || !token.Usable(now) {
			continue
		}
		if token.ID != id {
			return false
		}
		last = true
	}
	return last
}

func apiToken(t *fleet.APIToken, now *health.Clock) resource.APIToken {
	out := resource.APIToken{
		ID: t.ID, Name: t.Name, Role: string(t.Role), State: resource.TokenUsable, CreatedAt: t.CreatedAt.UTC(),
		CreatedBy: t.CreatedBy, ExpiresAt: t.ExpiresAt.UTC(), RevokedAt: t.RevokedAt.UTC(),
	}
	switch {
	case !t.RevokedAt.IsZero():
		out.State = resource.TokenRevoked
	case !t.ExpiresAt.IsZero() && now.Reached(t.ExpiresAt):
		out.State = resource.TokenExpired
	}
	return out
}
