package fleet

import (
	"fmt"
	"time"

	"github.com/certctl/certctl/shared/trust"
	"github.com/certctl/certctl/shared/wire"
)

// MaxAuthorities is how many certificates the built-in CA may consist of, those
// that it keeps of earlier times included.
const MaxAuthorities = 128

// CA is the built-in certificate authority: its public certificates, its
// private keys, sealed by the coordinator's own key and opaque here, and the
// history of what agents trust for it.
type CA struct {
	Authorities []Authority `cbor:"1,keyasint"`
	CreatedAt   time.Time   `cbor:"2,keyasint"`
	ModifyIndex uint64      `cbor:"3,keyasint"`
	// Generations are signed generations of trust (package trust), from the
	// first on and without a hole. A CA of before there were any has none.
	Generations [][]byte `cbor:"4,keyasint,omitempty"`
}

// AuthorityState is where an authority stands in its life.
type AuthorityState string

// States of an authority.
const (
	AuthorityActive    AuthorityState = ""          // it signs
	AuthorityPublished AuthorityState = "published" // agents learn it; it does not sign yet
	AuthorityRetiring  AuthorityState = "retiring"  // still trusted; it does not sign any more
	AuthorityRetired   AuthorityState = "retired"   // kept to recognize what it has signed; only an issuing CA still has its key
)

// Authority is one certificate of the built-in CA.
type Authority struct {
	Name        string         `cbor:"1,keyasint"` // "root", "identity" or "issuing"
	Certificate []byte         `cbor:"2,keyasint"` // DER
	SealedKey   []byte         `cbor:"3,keyasint,omitempty"`
	State       AuthorityState `cbor:"4,keyasint,omitempty"`
}

// ChangeCA replaces the authorities of the CA and adds generations of trust, if
// the CA is still the one that the change was made for. Its proposer has made
// and signed them.
//
// Codes: CodeNotFound, CodeConflict, CodeInvalid.
type ChangeCA struct {
	Actor string `cbor:"1,keyasint,omitempty"`
	// Base is the ModifyIndex of the CA that the change was made for.
	Base        uint64      `cbor:"2,keyasint"`
	Authorities []Authority `cbor:"3,keyasint"`
	Generations [][]byte    `cbor:"4,keyasint,omitempty"` // to be added
	// What says what the change is about, for the audit trail.
	What string `cbor:"5,keyasint"`
}

// AcknowledgeTrust records the generation of trust that an agent goes by.
//
// Codes: CodeIdentityUnknown, CodeAgentRetired.
type AcknowledgeTrust struct {
	AgentID    string `cbor:"1,keyasint"`
	Generation uint64 `cbor:"2,keyasint"`
}

func (ChangeCA) commandType() Type         { return TypeChangeCA }
func (AcknowledgeTrust) commandType() Type { return TypeAcknowledgeTrust }

func initCA(c *change, p *InitCA) Result {
	if stored := find[CA](c, TableCA, indexID, key("ca")); stored != nil {
		return c.success(InitializedCA{CA: *stored})
	}
	if len(p.Authorities) == 0 {
		return refuse(wire.CodeInvalid, "authorities", "a certificate authority needs at least one certificate", "")
	}
	ca := &CA{Authorities: p.Authorities, CreatedAt: c.at, ModifyIndex: c.index}
	c.insert(TableCA, ca)
	names := make([]string, len(p.Authorities))
	for i, authority := range p.Authorities {
		names[i] = authority.Name
	}
	c.audit(Fact{Kind: KindCACreated, Actor: p.Actor, Object: "ca"}, map[string]any{"authorities": names}).changed(nil, ca.picture())
	return c.success(InitializedCA{CA: *ca, Created: true})
}

func changeCA(c *change, p *ChangeCA) Result {
	stored := find[CA](c, TableCA, indexID, key("ca"))
	switch {
	case stored == nil:
		return refuse(wire.CodeNotFound, "", "there is no certificate authority yet", "start the coordinator")
	case stored.ModifyIndex != p.Base:
		return refuse(wire.CodeConflict, "", "the certificate authority was changed meanwhile", "look at it again, then repeat the change if it is still wanted")
	case len(p.Authorities) == 0 || len(p.Authorities) > MaxAuthorities:
		return refuse(wire.CodeInvalid, "authorities", fmt.Sprintf("%d certificates; expected 1 to %d", len(p.Authorities), MaxAuthorities), "")
	case len(stored.Generations)+len(p.Generations) > trust.MaxGenerations:
		return refuse(wire.CodeConflict, "generations", fmt.Sprintf("the chain of trust has come to its limit of %d generations", trust.MaxGenerations),
			"set up a new cluster and enrol the agents there")
	}
	ca := edit(stored)
	ca.Authorities, ca.ModifyIndex = p.Authorities, c.index
	ca.Generations = append(append([][]byte(nil), stored.Generations...), p.Generations...)
	c.put(TableCA, ca)
	c.audit(Fact{Kind: KindCAChanged, Actor: p.Actor, Object: "ca"}, map[string]any{"change": p.What, "trust_generation": len(ca.Generations)}).
		changed(stored.picture(), ca.picture())
	return Result{}
}

func acknowledgeTrust(c *change, p *AcknowledgeTrust) Result {
	stored, refusal := activeAgent(c, p.AgentID)
	if stored == nil {
		return refusal
	}
	if stored.TrustGeneration == p.Generation {
		return Result{}
	}
	agent := edit(stored)
	agent.TrustGeneration, agent.ModifyIndex = p.Generation, c.index
	c.put(TableAgents, agent)
	return Result{}
}

// AgentsBehind counts the active agents that have not acknowledged a generation
// of trust, and lists the first of them by id, up to limit.
func (v *View) AgentsBehind(generation uint64, limit int) (list []*Agent, count int) {
	records := v.scan(TableAgents, indexID, nil)
	for {
		agent, ok := records.Next().(*Agent)
		if !ok {
			return list, count
		}
		if agent.State != AgentActive || agent.TrustGeneration >= generation {
			continue
		}
		if count++; len(list) < limit {
			list = append(list, agent)
		}
	}
}
