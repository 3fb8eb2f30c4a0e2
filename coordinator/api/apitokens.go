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

// tokensInScope is what becomes of API tokens for a token with a scope.
const tokensInScope = "For a token that has a scope there are those alone whose scope is the same or narrower."

func (s *server) registerAPITokens(api huma.API) {
	const path = "/api/v1/tokens"
	tags := []string{"API tokens"}
	huma.Register(api, minds(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "create-api-token", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Create an API token",
		Description: "The answer is the only one that has the token itself. Asking again makes another token.",
	}), "A token that has a scope makes tokens with the same or a narrower one."), s.createAPIToken)
	read(s, api, minds(shows(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "list-api-tokens", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "List API tokens", Description: "Newest first, ended ones too.",
	}), fleet.TableAPITokens), tokensInScope), s.listAPITokens)
	huma.Register(api, minds(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "revoke-api-token", Method: http.MethodPost, Path: path + "/{id}/revoke", Tags: tags,
		Summary:     "Revoke an API token",
		Description: "It is refused from now on. The last usable token with the role admin and without a scope cannot be revoked. Revoking a token again changes nothing.",
	}), tokensInScope), s.revokeAPIToken)
	huma.Register(api, minds(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "rotate-api-token", Method: http.MethodPost, Path: path + "/{id}/rotate", Tags: tags,
		Summary: "Give an API token another secret",
		Description: "It stays the same token, with its name, role and scope. The earlier secret stays good for a grace, which gives time to put the new one in its place, and cannot " +
			"rotate the token again. A token with a lifetime gets as much anew, unless its expiry is fixed. Any token may rotate itself; for others the role `admin` is needed.",
	}), tokensInScope), s.rotateAPIToken)
	huma.Register(api, minds(untagged(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "whoami", Method: http.MethodGet, Path: "/api/v1/whoami", Tags: []string{"status"},
		Summary: "Who the token belongs to",
	}), "it tells of the token that was looked up already to let the request in"), "The answer tells the scope."), whoami)
}

func whoami(ctx context.Context, _ *struct{}) (*identified, error) {
	token := tokenOf(ctx)
	out := &identified{Body: resource.Identified{
		TokenID: token.ID, Name: token.Name, Role: string(token.Role), ExpiresAt: token.ExpiresAt.UTC(),
		Scope: scopeTexts(token.Scope), FixedExpiry: token.FixedExpiry,
	}}
	if earlierSecret(ctx) {
		out.Body.EarlierUntil = token.Rotation.Until.UTC()
	}
	return out, nil
}

func (s *server) createAPIToken(ctx context.Context, in *createAPIToken) (*createdAPIToken, error) {
	name := strings.TrimSpace(in.Body.Name)
	if name == "" || strings.ContainsFunc(name, notPrintable) {
		return nil, invalid("name", "the name is empty or has control characters", "say in plain text who or what uses the token")
	}
	scope, refusal := parseScope("scope", in.Body.Scope)
	if refusal == nil && !scope.Within(scopeOf(ctx)) {
		refusal = newProblem(wire.CodeForbidden, "scope", "the scope would be wider than that of the token which makes it, "+scopeOf(ctx).String(),
			"give a scope with "+strings.Join(scopeTexts(scopeOf(ctx)), ", ")+", or with more labels")
	}
	if refusal != nil {
		return nil, refusal
	}
	token := apitoken.New()
	command := fleet.CreateAPIToken{
		Actor: actorOf(ctx), ID: token.ID, Name: name, Hash: token.Hash(), Role: fleet.Role(in.Body.Role), Scope: scope, FixedExpiry: in.Body.FixedExpiry,
	}
	if in.Body.TTLSeconds > 0 {
		command.ExpiresAt = s.Now().UTC().Add(lifetime(in.Body.TTLSeconds, 0))
	}
	if _, err := s.do(ctx, command); err != nil {
		return nil, err
	}
	stored, ok := s.viewOf(ctx).APIToken(token.ID)
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
	if _, ok := s.viewOf(ctx).APIToken(in.ID); !ok && !scopeOf(ctx).IsZero() {
		return nil, noToken("API")
	}
	if s.lastAdmin(in.ID) {
		return nil, newProblem(wire.CodeConflict, "id", "this is the last usable token with the role admin and without a scope",
			"create another admin token first, so that somebody can still make tokens")
	}
	if _, err := s.do(ctx, fleet.RevokeAPIToken{Actor: actorOf(ctx), ID: in.ID}); err != nil {
		return nil, err
	}
	stored, ok := s.viewOf(ctx).APIToken(in.ID)
	if !ok {
		return nil, noToken("API")
	}
	return &apiTokenDetail{Body: apiToken(stored, health.At(s.Now()))}, nil
}

// lastAdmin keeps people from locking themselves out by mistake. It is no more
// than that: two admins who revoke each other's tokens at the same moment
// succeed, and the next start of the coordinator makes a new admin token.
func (s *server) lastAdmin(id string) bool {
	now, last := s.Now(), false
	for _, token := range s.Node.State().View().APITokens() {
		if token.Role != fleet.RoleAdmin || !token.Scope.IsZero() || !token.Usable(now) {
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
		CreatedBy: t.CreatedBy, ExpiresAt: t.ExpiresAt.UTC(), RevokedAt: t.RevokedAt.UTC(), Scope: scopeTexts(t.Scope), FixedExpiry: t.FixedExpiry,
	}
	if r := t.Rotation; r != nil {
		out.RotatedAt, out.RotatedBy = r.At.UTC(), r.By
		if t.RevokedAt.IsZero() && !now.Reached(r.Until) {
			out.EarlierUntil = r.Until.UTC()
		}
	}
	switch {
	case !t.RevokedAt.IsZero():
		out.State = resource.TokenRevoked
	case !t.ExpiresAt.IsZero() && now.Reached(t.ExpiresAt):
		out.State = resource.TokenExpired
	}
	return out
}
