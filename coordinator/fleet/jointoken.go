package fleet

import (
	"crypto/subtle"
	"fmt"
	"time"

	"github.com/certctl/certctl/shared/wire"
)

// Bounds of join tokens.
const (
	// MaxOpenJoinTokens bounds those that a node can still be let in by.
	MaxOpenJoinTokens = 64
	// MaxJoinTokenLife bounds the time for which one is open.
	MaxJoinTokenLife = 7 * 24 * time.Hour

	maxJoinTokenID          = 40
	maxJoinTokenDescription = 256
	// joinTokensFor is how long one is kept after its end, and maxJoinTokens how
	// many there are of all kinds.
	joinTokensFor = 30 * 24 * time.Hour
	maxJoinTokens = 256
)

// JoinToken lets one node into the cluster. Its secret is not kept.
type JoinToken struct {
	ID          string    `cbor:"1,keyasint"`
	SecretHash  [32]byte  `cbor:"2,keyasint"`
	Description string    `cbor:"3,keyasint,omitempty"`
	CreatedAt   time.Time `cbor:"4,keyasint"`
	CreatedBy   string    `cbor:"5,keyasint,omitempty"`
	ExpiresAt   time.Time `cbor:"6,keyasint"`
	UsedAt      time.Time `cbor:"7,keyasint,omitzero"`
	UsedBy      string    `cbor:"8,keyasint,omitempty"` // id of the node
	// KeyFingerprint is that of the node key that it was used with.
	KeyFingerprint string    `cbor:"9,keyasint,omitempty"`
	RevokedAt      time.Time `cbor:"10,keyasint,omitzero"`
	RevokedBy      string    `cbor:"11,keyasint,omitempty"`
	ModifyIndex    uint64    `cbor:"12,keyasint"`
}

// Open reports whether a node can still be let in by the token.
func (t *JoinToken) Open(now time.Time) bool {
	return t.UsedAt.IsZero() && t.RevokedAt.IsZero() && now.Before(t.ExpiresAt)
}

// ended is when the token was used, revoked or expired.
func (t *JoinToken) ended() time.Time {
	end := t.ExpiresAt
	for _, at := range []time.Time{t.UsedAt, t.RevokedAt} {
		if !at.IsZero() && at.Before(end) {
			end = at
		}
	}
	return end
}

// CreateJoinToken stores a new token.
//
// Codes: CodeInvalid, CodeConflict, CodeOverloaded.
type CreateJoinToken struct {
	Actor       string    `cbor:"1,keyasint,omitempty"`
	ID          string    `cbor:"2,keyasint"`
	SecretHash  [32]byte  `cbor:"3,keyasint"`
	Description string    `cbor:"4,keyasint,omitempty"`
	ExpiresAt   time.Time `cbor:"5,keyasint"`
}

// RevokeJoinToken ends a token. One that was used gives its answer no more. Ending
// it again changes nothing; an unknown id gives CodeNotFound.
type RevokeJoinToken struct {
	Actor string `cbor:"1,keyasint,omitempty"`
	ID    string `cbor:"2,keyasint"`
}

// UseJoinToken spends a token and stores the record of the node that it lets in,
// in one step. With the key that it was spent on, it gives the same answer again
// while the token is not revoked and the node is not removed: the first answer
// may have been lost. The outcome is a JoinedNode.
//
// Codes: CodeTokenUnknown (also a wrong secret), CodeTokenExpired,
// CodeTokenRevoked, CodeTokenUsed, CodeInvalid, CodeConflict, CodeOverloaded.
type UseJoinToken struct {
	ID         string      `cbor:"1,keyasint"`
	SecretHash [32]byte    `cbor:"2,keyasint"`
	Node       ClusterNode `cbor:"3,keyasint"`
}

// JoinedNode is the node that a join token let in.
type JoinedNode struct {
	Node ClusterNode `cbor:"1,keyasint"`
	// Repeated says that the token was spent on this node before.
	Repeated bool `cbor:"2,keyasint,omitempty"`
}

func (CreateJoinToken) commandType() Type { return TypeCreateJoinToken }
func (RevokeJoinToken) commandType() Type { return TypeRevokeJoinToken }
func (UseJoinToken) commandType() Type    { return TypeUseJoinToken }

func createJoinToken(c *change, p *CreateJoinToken) Result {
	if refusal := checkText("id", p.ID, 1, maxJoinTokenID); !refusal.OK() {
		return refusal
	}
	if refusal := checkText("description", p.Description, 0, maxJoinTokenDescription); !refusal.OK() {
		return refusal
	}
	switch {
	case !p.ExpiresAt.After(c.at):
		return refuse(wire.CodeInvalid, "expires_at", "the join token would have ended before it begins", "give it an end that lies ahead")
	case p.ExpiresAt.Sub(c.at) > MaxJoinTokenLife:
		return refuse(wire.CodeInvalid, "expires_at", fmt.Sprintf("a join token lasts at most %s", MaxJoinTokenLife), "give it an earlier end")
	case find[JoinToken](c, TableJoinTokens, indexID, key(p.ID)) != nil:
		return refuse(wire.CodeConflict, "id", "a join token with this id exists", "create the token again; it gets a new id")
	}
	if refusal := c.roomForJoinToken(); !refusal.OK() {
		return refusal
	}
	token := &JoinToken{
		ID: p.ID, SecretHash: p.SecretHash, Description: p.Description, CreatedAt: c.at, CreatedBy: p.Actor,
		ExpiresAt: p.ExpiresAt, ModifyIndex: c.index,
	}
	c.insert(TableJoinTokens, token)
	c.audit(Fact{Kind: KindJoinTokenCreated, Actor: p.Actor, Object: p.ID}, map[string]any{
		"description": p.Description, "expires_at": p.ExpiresAt,
	}).changed(nil, token.picture())
	return Result{}
}

// roomForJoinToken drops tokens that ended long ago, or the one that ended first
// if there are too many, and refuses one more open one than there may be.
func (c *change) roomForJoinToken() Result {
	open := 0
	var first *JoinToken // that ended, of those that stay
	for records := c.scan(TableJoinTokens, indexID, nil); ; {
		token, ok := records.Next().(*JoinToken)
		if !ok {
			break
		}
		switch {
		case token.Open(c.at):
			open++
		case c.at.Sub(token.ended()) > joinTokensFor:
			c.delete(TableJoinTokens, token)
		case first == nil || token.ended().Before(first.ended()):
			first = token
		}
	}
	if open >= MaxOpenJoinTokens {
		return refuse(wire.CodeOverloaded, "", fmt.Sprintf("%d join tokens are open, and there may be no more", open),
			"revoke those that are not needed")
	}
	if c.info(TableJoinTokens).Rows >= maxJoinTokens && first != nil {
		c.delete(TableJoinTokens, first)
	}
	return Result{}
}

func revokeJoinToken(c *change, p *RevokeJoinToken) Result {
	stored := find[JoinToken](c, TableJoinTokens, indexID, key(p.ID))
	if stored == nil {
		return refuse(wire.CodeNotFound, "id", "there is no join token with this id", "list the join tokens to see their ids")
	}
	if !stored.RevokedAt.IsZero() {
		return Result{}
	}
	token := edit(stored)
	token.RevokedAt, token.RevokedBy, token.ModifyIndex = c.at, p.Actor, c.index
	c.put(TableJoinTokens, token)
	c.audit(Fact{Kind: KindJoinTokenRevoked, Actor: p.Actor, Object: p.ID}, nil).changed(stored.picture(), token.picture())
	return Result{}
}

func useJoinToken(c *change, p *UseJoinToken) Result {
	if refusal := p.Node.check(); !refusal.OK() {
		return refusal
	}
	if p.Node.KeyFingerprint == "" {
		return refuse(wire.CodeInvalid, "node.key_fingerprint", "the node shows no key", "")
	}
	token := find[JoinToken](c, TableJoinTokens, indexID, key(p.ID))
	if token == nil || subtle.ConstantTimeCompare(token.SecretHash[:], p.SecretHash[:]) != 1 {
		return refuse(wire.CodeTokenUnknown, "token", "the join token is not known here",
			"check that the token is complete and meant for this cluster, or ask for a new one")
	}
	const mend = "ask for a new join token"
	if !token.RevokedAt.IsZero() {
		return refuse(wire.CodeTokenRevoked, "token", "the join token was revoked", mend)
	}
	known := find[ClusterNode](c, TableNodes, indexID, key(p.Node.ID))
	if !token.UsedAt.IsZero() {
		switch {
		case token.KeyFingerprint != p.Node.KeyFingerprint || token.UsedBy != p.Node.ID:
			return refuse(wire.CodeTokenUsed, "token", "the join token was used by another node", mend)
		case known == nil:
			return refuse(wire.CodeTokenUsed, "token", "the node that the join token let in was removed since", mend)
		case !known.says(&p.Node):
			known = c.storeNode(known, p.Node)
		}
		return c.success(JoinedNode{Node: *known, Repeated: true})
	}
	if !c.at.Before(token.ExpiresAt) {
		return refuse(wire.CodeTokenExpired, "token", "the join token has expired", mend)
	}
	switch {
	case known == nil:
		if refusal := c.roomForNode(); !refusal.OK() {
			return refusal
		}
	case known.KeyFingerprint != p.Node.KeyFingerprint:
		return refuse(wire.CodeConflict, "node.id", "a node with this id and another key is known",
			"give the new node an id of its own, or remove the node that has this one first")
	}

	spent := edit(token)
	spent.UsedAt, spent.UsedBy, spent.KeyFingerprint, spent.ModifyIndex = c.at, p.Node.ID, p.Node.KeyFingerprint, c.index
	c.put(TableJoinTokens, spent)
	node := c.storeNode(known, p.Node)
	var before picture
	if known != nil {
		before = known.picture()
	}
	c.audit(Fact{Kind: KindNodeJoined, Actor: "join_token:" + token.ID, Object: node.ID}, node.detail()).changed(before, node.picture())
	return c.success(JoinedNode{Node: *node})
}

// JoinTokens lists all join tokens by id, for some weeks those that have ended too.
func (v *View) JoinTokens() []*JoinToken {
	return collect[JoinToken](v.scan(TableJoinTokens, indexID, nil))
}

// JoinToken looks a join token up by its id.
func (v *View) JoinToken(id string) (*JoinToken, bool) {
	return get[JoinToken](v, TableJoinTokens, indexID, key(id))
}
