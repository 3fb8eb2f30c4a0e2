package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

const mendToken = "send the header \"Authorization: Bearer cta1...\" with a token from \"certctl api-token create\"; the first one is in the file admin.token in the coordinator's data directory"

// roleKey is where an operation keeps its least role.
const roleKey = "role"

// needs marks an operation with the least role that may use it.
func needs(role fleet.Role, op huma.Operation) huma.Operation {
	op.Metadata = map[string]any{roleKey: role}
	op.Security = []map[string][]string{{bearerScheme: {}}}
	op.Description += fmt.Sprintf("\n\nNeeds the role `%s`.", role)
	return op
}

type bearerKey struct{}

// tokenOf is the API token of a request that has passed authenticate.
func tokenOf(ctx context.Context) *fleet.APIToken {
	token, _ := ctx.Value(bearerKey{}).(*fleet.APIToken)
	return token
}

// actorOf names the request's token in the journal.
func actorOf(ctx context.Context) string { return "api_token:" + tokenOf(ctx).ID }

// authenticate lets requests in whose token has the operation's role. It runs
// before anything else of the request is looked at.
func (s *server) authenticate(api huma.API) func(huma.Context, func(huma.Context)) {
	refuse := func(ctx huma.Context, p *Problem) {
		if p.Status == http.StatusUnauthorized {
			ctx.SetHeader("WWW-Authenticate", challenge)
		}
		for name, values := range p.GetHeaders() {
			ctx.SetHeader(name, values[0])
		}
		// The error is of the connection.
		_ = huma.WriteErr(api, ctx, p.Status, p.Detail, p)
	}
	return func(ctx huma.Context, next func(huma.Context)) {
		role, ok := ctx.Operation().Metadata[roleKey].(fleet.Role)
		if !ok {
			panic("api: operation " + ctx.Operation().OperationID + " has no role")
		}
		// What a node that was removed knows is of before: members that are none any
		// more, tokens that are revoked since.
		if !s.Node.Ready().Member {
			refuse(ctx, notMember(s.Node.ID()))
			return
		}
		judge := func() (token *fleet.APIToken, earlier bool, refusal *Problem) {
			token, earlier, refusal = identify(s.Node.State().View(), ctx.Header("Authorization"), s.Now())
			if refusal == nil && !token.Role.Includes(role) {
				refusal = lacks(token, role)
			}
			return token, earlier, refusal
		}
		request, _ := humago.Unwrap(ctx)
		at := s.Now()
		first, _, refusal := judge()
		if refusal = s.Gate.judged(request.RemoteAddr, first, refusal, at); refusal != nil {
			refuse(ctx, refusal)
			return
		}
		answer, refusal := s.fresh(ctx)
		if refusal != nil {
			refuse(ctx, refusal)
			return
		}
		// The token may have ended in the state that the request waited for.
		token, earlier, refusal := judge()
		answer.unchanged = func() { s.Gate.tokens.Give(first.ID, unchangedPart, at) }
		if refusal != nil {
			refuse(ctx, refusal)
			return
		}
		if end := endsSoon(token, s.Now()); end != "" {
			answer.SetHeader(resource.TokenExpires, end)
		}
		if refusal := s.withinScope(ctx, token); refusal != nil {
			if refusal.Code == wire.CodeForbidden {
				s.Gate.refused(RefusedScope)
			}
			refuse(ctx, refusal)
			return
		}
		work := func(ctx huma.Context) {
			next(huma.WithValue(huma.WithValue(ctx, bearerKey{}, token), earlierKey{}, earlier))
		}
		if sourceOf(ctx.Operation()) == nil {
			work(answer)
			return
		}
		if refusal := s.conditional(api, answer, token.Scope, work); refusal != nil {
			refuse(ctx, refusal)
		}
	}
}

// endsWithin is how long before its end the bearer of a token is told of it; of one that
// lives less than four times that, in the last quarter of its life.
const endsWithin = 7 * 24 * time.Hour

// endsSoon is the header that tells of the end of a token, "" if that is not soon.
func endsSoon(token *fleet.APIToken, now time.Time) string {
	if token.ExpiresAt.IsZero() {
		return ""
	}
	begin := token.CreatedAt
	if token.Rotation != nil && !token.FixedExpiry {
		begin = token.Rotation.At
	}
	if token.ExpiresAt.Sub(now) > min(endsWithin, token.ExpiresAt.Sub(begin)/4) {
		return ""
	}
	end := token.ExpiresAt.UTC().Format(time.RFC3339)
	if token.FixedExpiry {
		end += resource.TokenExpiryFixed
	}
	return end
}

// challenge is what a request without a good token is answered with (RFC 6750,
// section 3).
const challenge = `Bearer realm="certctl"`

// lacks is the answer to a token that may do less than is needed.
func lacks(token *fleet.APIToken, role fleet.Role) *Problem {
	return newProblem(wire.CodeForbidden, "",
		fmt.Sprintf("the token %q has the role %s; this needs %s", token.Name, token.Role, role), "use a token with that role")
}

// identify finds the token of an Authorization header, and whether the header has the
// secret of before its last rotation. An unknown id and a
// wrong secret give the same answer; that a token has ended is told only to
// who has the whole of it.
func identify(v *fleet.View, header string, now time.Time) (token *fleet.APIToken, earlier bool, refusal *Problem) {
	unauthorized := func(detail, mend string) (*fleet.APIToken, bool, *Problem) {
		return nil, false, newProblem(wire.CodeUnauthorized, "", detail, mend)
	}
	if header == "" {
		return unauthorized("the request has no API token", mendToken)
	}
	text, ok := bearer(header)
	if !ok {
		return unauthorized("the Authorization header is not of the scheme Bearer", mendToken)
	}
	given, err := apitoken.Parse(text)
	if err != nil {
		return unauthorized("the API token is malformed: "+err.Error(), mendToken)
	}
	token, ok = v.APIToken(given.ID)
	if ok && token.Rotation != nil {
		earlier = given.Matches(token.Rotation.Hash)
	}
	if !ok || !earlier && !given.Matches(token.Hash) {
		return unauthorized("the API token is not known here", "check that the token is complete and of this coordinator")
	}
	switch {
	case !token.RevokedAt.IsZero():
		return unauthorized(fmt.Sprintf("the API token %q was revoked", token.Name), "use another token")
	case earlier && !now.Before(token.Rotation.Until):
		return unauthorized(fmt.Sprintf("the API token %q got another secret at %s, and this one is not good any more", token.Name, token.Rotation.At.UTC().Format(time.RFC3339)), "use the new secret")
	case !token.Usable(now):
		return unauthorized(fmt.Sprintf("the API token %q expired at %s", token.Name, token.ExpiresAt.UTC().Format(time.RFC3339)), "use another token")
	}
	return token, earlier, nil
}
