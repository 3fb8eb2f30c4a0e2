package fleet

import "time"

// sharedNote is how often it is noted that two hosts use one identity.
const sharedNote = 24 * time.Hour

// NoteSharedIdentity notes that two hosts use the identity of an agent, at most
// once a day however often it is proposed.
//
// Codes: CodeIdentityUnknown, CodeAgentRetired.
type NoteSharedIdentity struct {
	AgentID string `cbor:"1,keyasint"`
	// Remote is the network address that the last of them came from.
	Remote string `cbor:"2,keyasint,omitempty"`
}

func (NoteSharedIdentity) commandType() Type { return TypeNoteSharedIdentity }

func noteSharedIdentity(c *change, p *NoteSharedIdentity) Result {
	stored, refusal := activeAgent(c, p.AgentID)
	if stored == nil {
		return refusal
	}
	if stored.SharedNoted(c.at) {
		return Result{}
	}
	agent := edit(stored)
	agent.SharedAt, agent.ModifyIndex = c.at, c.index
	c.put(TableAgents, agent)
	c.audit(Fact{Kind: KindIdentityShared, Actor: "system", Object: agent.ID, Agent: agent.ID}, map[string]any{
		"hostname": agent.Host.Hostname, "remote": p.Remote,
	})
	return Result{}
}

// SharedNoted reports whether it was noted within the last day that two hosts
// use the agent's identity.
func (a *Agent) SharedNoted(now time.Time) bool {
	return !a.SharedAt.IsZero() && now.Sub(a.SharedAt) < sharedNote
}

// Shared reports whether two hosts use the agent's identity. A note is made anew
// each day while they do, so that this ends when they have not for a day.
func (a *Agent) Shared(now time.Time) bool {
	return !a.SharedAt.IsZero() && now.Before(a.SharedUntil())
}

// SharedUntil is the moment from which on Shared is false, if no note is made until
// then.
func (a *Agent) SharedUntil() time.Time { return a.SharedAt.Add(2 * sharedNote) }
