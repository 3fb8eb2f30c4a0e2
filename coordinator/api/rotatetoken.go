package api

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/shared/wire"
)

type rotateAPIToken struct {
	ID   string `path:"id" maxLength:"64" doc:"Id of the token: the part between the first and the second dot."`
	Body resource.RotateAPIToken
}

type rotatedAPIToken struct {
	Body resource.RotatedAPIToken
}

type earlierKey struct{}

// earlierSecret reports whether a request was made with the secret that its token had
// before the last rotation.
func earlierSecret(ctx context.Context) bool {
	earlier, _ := ctx.Value(earlierKey{}).(bool)
	return earlier
}

func (s *server) rotateAPIToken(ctx context.Context, in *rotateAPIToken) (*rotatedAPIToken, error) {
	caller := tokenOf(ctx)
	switch _, there := s.viewOf(ctx).APIToken(in.ID); {
	case in.ID == caller.ID && earlierSecret(ctx):
		// Else who has found an old secret could take the token over.
		return nil, newProblem(wire.CodeForbidden, "", "the request has the secret of before the last rotation, which cannot rotate the token again",
			"use the new secret; if nobody has it, an admin can rotate the token")
	case in.ID == caller.ID:
	case !caller.Role.Includes(fleet.RoleAdmin):
		return nil, lacks(caller, fleet.RoleAdmin)
	case !there:
		return nil, noToken("API")
	}
	grace := resource.DefaultRotationGrace
	if in.Body.GraceSeconds != nil {
		grace = time.Duration(*in.Body.GraceSeconds) * time.Second
	}
	token := apitoken.Token{ID: in.ID}
	command := fleet.RotateAPIToken{Actor: actorOf(ctx), ID: in.ID, Until: s.Now().UTC().Add(grace)}
	if in.Body.SecretSHA256 == "" {
		token = apitoken.Renew(in.ID)
		command.Hash = token.Hash()
	} else if n, err := hex.Decode(command.Hash[:], []byte(in.Body.SecretSHA256)); err != nil || n != len(command.Hash) {
		return nil, invalid("secret_sha256", "it is no SHA-256 in hex", "give 64 lower-case hex digits, or leave it out")
	}
	if _, err := s.do(ctx, command); err != nil {
		return nil, err
	}
	stored, ok := s.Node.State().View().APIToken(in.ID)
	if !ok {
		return nil, noToken("API")
	}
	out := &rotatedAPIToken{Body: resource.RotatedAPIToken{APIToken: apiToken(stored, health.At(s.Now()))}}
	if in.Body.SecretSHA256 == "" {
		out.Body.Token = token.Reveal()
	}
	return out, nil
}
