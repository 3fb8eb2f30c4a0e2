package fleet

import (
	"crypto/subtle"
	"time"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func createEnrollmentToken(c *change, p *CreateEnrollmentToken) Result {
	if p.ID == "" {
		return refuse(wire.CodeInvalid, "id", "the token has no id", "")
	}
	if _, err := pki.ParseNamePatterns(p.NamePatterns); err != nil {
		return refuse(wire.CodeInvalid, "name_patterns", err.Error(), "")
	}
	if find[EnrollmentToken](c, TableEnrollmentTokens, indexID, key(p.ID)) != nil {
		return refuse(wire.CodeConflict, "id", "an enrolment token with this id exists", "create the token again; it gets a new id")
	}
	token := &EnrollmentToken{
		ID: p.ID, SecretHash: p.SecretHash, Description: p.Description, Labels: p.Labels,
		NamePatterns: p.NamePatterns, MaxUses: p.MaxUses, CreatedAt: c.at, CreatedBy: p.Actor,
		ExpiresAt: p.ExpiresAt, ModifyIndex: c.index,
	}
	c.insert(TableEnrollmentTokens, token)
	c.audit(Fact{Kind: KindEnrollmentTokenCreated, Actor: p.Actor, Object: p.ID}, map[string]any{
		"description": p.Description, "labels": p.Labels, "name_patterns": p.NamePatterns,
		"max_uses": p.MaxUses, "expires_at": p.ExpiresAt,
	}).changed(nil, token.picture())
	return Result{}
}

func revokeEnrollmentToken(c *change, p *RevokeEnrollmentToken) Result {
	stored := find[EnrollmentToken](c, TableEnrollmentTokens, indexID, key(p.ID))
	if stored == nil {
		return refuse(wire.CodeNotFound, "id", "there is no enrolment token with this id", "list the tokens to see their ids")
	}
	if !stored.RevokedAt.IsZero() {
		return Result{}
	}
	token := edit(stored)
	token.RevokedAt, token.RevokedBy, token.ModifyIndex = c.at, p.Actor, c.index
	c.put(TableEnrollmentTokens, token)
	c.audit(Fact{Kind: KindEnrollmentTokenRevoked, Actor: p.Actor, Object: p.ID}, nil).changed(stored.picture(), token.picture())
	return Result{}
}

// tokenWithSecret looks a token up. An unknown id and a wrong secret give the
// same answer, so that ids cannot be probed.
func tokenWithSecret(c *change, id string, secretHash [32]byte) (*EnrollmentToken, Result) {
	token := find[EnrollmentToken](c, TableEnrollmentTokens, indexID, key(id))
	if token == nil || subtle.ConstantTimeCompare(token.SecretHash[:], secretHash[:]) != 1 {
		return nil, refuse(wire.CodeTokenUnknown, "token", "the enrolment token is not known here",
			"check that the token is complete and meant for this coordinator, or ask for a new one")
	}
	return token, Result{}
}

// usable reports whether a token can enrol one more agent now.
func (t *EnrollmentToken) usable(c *change) Result {
	const mend = "ask for a new enrolment token"
	switch {
	case !t.RevokedAt.IsZero():
		return refuse(wire.CodeTokenRevoked, "token", "the enrolment token was revoked", mend)
	case !t.ExpiresAt.IsZero() && !c.at.Before(t.ExpiresAt):
		return refuse(wire.CodeTokenExpired, "token", "the enrolment token has expired", mend)
	case t.MaxUses > 0 && t.Uses >= t.MaxUses:
		return refuse(wire.CodeTokenUsed, "token", "the enrolment token is used up", mend)
	}
	return Result{}
}

func createAPIToken(c *change, p *CreateAPIToken) Result {
	if p.ID == "" {
		return refuse(wire.CodeInvalid, "id", "the token has no id", "")
	}
	if !p.Role.Valid() {
		return refuse(wire.CodeInvalid, "role", "the role is not one of viewer, operator, admin", "give one of these roles")
	}
	if !p.Scope.valid() {
		return refuse(wire.CodeInvalid, "scope", "the scope is none", "give labels and the values that hosts may have of them")
	}
	if find[APIToken](c, TableAPITokens, indexID, key(p.ID)) != nil || find[APIToken](c, TableAPITokens, indexHash, key(p.Hash[:])) != nil {
		return refuse(wire.CodeConflict, "id", "this API token exists", "create the token again; it gets a new id")
	}
	token := &APIToken{
		ID: p.ID, Name: p.Name, Hash: p.Hash, Role: p.Role, CreatedAt: c.at, CreatedBy: p.Actor,
		ExpiresAt: p.ExpiresAt, ModifyIndex: c.index, Scope: p.Scope, FixedExpiry: p.FixedExpiry,
	}
	c.insert(TableAPITokens, token)
	detail := map[string]any{"name": p.Name, "role": p.Role, "expires_at": p.ExpiresAt}
	// Journals of before the chain, in which there is a moment for "never", stay as they are.
	if p.ExpiresAt.IsZero() && c.position.Chain != nil {
		delete(detail, "expires_at")
	}
	if !p.Scope.IsZero() {
		detail["scope"] = p.Scope.String()
	}
	if p.FixedExpiry {
		detail["fixed_expiry"] = true
	}
	c.audit(Fact{Kind: KindAPITokenCreated, Actor: p.Actor, Object: p.ID}, detail).changed(nil, token.picture())
	return Result{}
}

func rotateAPIToken(c *change, p *RotateAPIToken) Result {
	stored := find[APIToken](c, TableAPITokens, indexID, key(p.ID))
	switch {
	case stored == nil:
		return refuse(wire.CodeNotFound, "id", "there is no API token with this id", "list the tokens to see their ids")
	case stored.Hash == p.Hash:
		return Result{}
	case !stored.Usable(c.at):
		return refuse(wire.CodeConflict, "id", "the API token was revoked or has expired", "create another one")
	case stored.Rotation != nil && stored.Rotation.Hash == p.Hash, find[APIToken](c, TableAPITokens, indexHash, key(p.Hash[:])) != nil:
		return refuse(wire.CodeConflict, "secret_sha256", "this secret is in use already, or was", "make another one at random")
	}
	token := edit(stored)
	token.Hash, token.ModifyIndex = p.Hash, c.index
	token.Rotation = &Rotation{At: c.at, By: p.Actor, Hash: stored.Hash, Until: p.Until}
	if !stored.ExpiresAt.IsZero() && !stored.FixedExpiry {
		token.ExpiresAt = c.at.Add(stored.ExpiresAt.Sub(stored.begins()))
	}
	c.put(TableAPITokens, token)
	detail := map[string]any{"earlier_until": p.Until}
	if !token.ExpiresAt.IsZero() {
		detail["expires_at"] = token.ExpiresAt
	}
	c.audit(Fact{Kind: KindAPITokenRotated, Actor: p.Actor, Object: p.ID}, detail).changed(stored.picture(), token.picture())
	return Result{}
}

// begins is from when on a token's lifetime counts.
func (t *APIToken) begins() time.Time {
	if t.Rotation != nil {
		return t.Rotation.At
	}
	return t.CreatedAt
}

func revokeAPIToken(c *change, p *RevokeAPIToken) Result {
	stored := find[APIToken](c, TableAPITokens, indexID, key(p.ID))
	if stored == nil {
		return refuse(wire.CodeNotFound, "id", "there is no API token with this id", "list the tokens to see their ids")
	}
	if !stored.RevokedAt.IsZero() {
		return Result{}
	}
	token := edit(stored)
	token.RevokedAt, token.ModifyIndex = c.at, c.index
	c.put(TableAPITokens, token)
	c.audit(Fact{Kind: KindAPITokenRevoked, Actor: p.Actor, Object: p.ID}, nil).changed(stored.picture(), token.picture())
	return Result{}
}
