package fleet

import (
	"time"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func enrollAgent(c *change, p *EnrollAgent) Result {
	if p.AgentID == "" || p.Identity.Fingerprint == "" || p.Identity.PublicKeyFingerprint == "" {
		return refuse(wire.CodeInvalid, "csr", "the enrolment has no identity", "")
	}
	token, refusal := tokenWithSecret(c, p.TokenID, p.SecretHash)
	if token == nil {
		return refusal
	}
	// The key that the token was spent on gets its answer again, whatever
	// became of the token since: the first answer may have been lost.
	if known := findPrefix[Agent](c, TableAgents, indexPublicKey, key(p.Identity.PublicKeyFingerprint)); known != nil {
		switch {
		case known.TokenID != token.ID:
			return refuse(wire.CodeConflict, "csr", "this key was enrolled with another token", "make a new key and enrol with it")
		case known.State == AgentRetired:
			return agentRetired()
		}
		return c.success(Enrollment{
			AgentID: known.ID, Identity: known.Enrolled, Labels: known.Labels,
			NamePatterns: known.NamePatterns, Repeated: true,
		})
	}
	if refusal := token.usable(c); !refusal.OK() {
		return refusal
	}
	if !p.Names.IsZero() {
		if refusal := namesAllowed(token.NamePatterns, p.Names, "names"); !refusal.OK() {
			return refusal
		}
	}
	if find[Agent](c, TableAgents, indexID, key(p.AgentID)) != nil || identityTaken(c, p.Identity) {
		return refuse(wire.CodeConflict, "agent_id", "this agent id or certificate exists", "enrol again")
	}

	spent := edit(token)
	spent.Uses++
	spent.ModifyIndex = c.index
	c.put(TableEnrollmentTokens, spent)
	agent := &Agent{
		ID: p.AgentID, State: AgentActive, Labels: token.Labels, NamePatterns: token.NamePatterns,
		TokenID: token.ID, EnrolledAt: c.at, Host: p.Host, Enrolled: p.Identity, Current: p.Identity,
		ModifyIndex: c.index,
	}
	c.insert(TableAgents, agent)
	c.audit(Fact{Kind: KindAgentEnrolled, Actor: "enrollment_token:" + token.ID, Object: agent.ID, Agent: agent.ID}, map[string]any{
		"hostname": p.Host.Hostname, "os": p.Host.OS, "arch": p.Host.Arch, "version": p.Host.Version,
		"fingerprint": p.Identity.Fingerprint, "labels": token.Labels, "name_patterns": token.NamePatterns,
	}).changed(nil, agent.picture())
	return c.success(Enrollment{
		AgentID: agent.ID, Identity: agent.Enrolled, Labels: agent.Labels, NamePatterns: agent.NamePatterns,
	})
}

// identityTaken reports whether a certificate or key belongs to some agent already.
func identityTaken(c *change, identity Identity) bool {
	return findPrefix[Agent](c, TableAgents, indexIdentity, key(identity.Fingerprint)) != nil
}

// namesAllowed checks names against the patterns of an enrolment. What a
// pattern allows is part of the replicated rules: a change of it in shared/pki
// needs a new version of the commands that come here.
func namesAllowed(patterns []string, names pki.Names, field string) Result {
	allowed, err := pki.ParseNamePatterns(patterns)
	if err != nil {
		return refuse(wire.CodeNamesRefused, field, "the enrolment has damaged name patterns: "+err.Error(), "enrol with a new token")
	}
	if err := allowed.Allow(names); err != nil {
		return refuse(wire.CodeNamesRefused, field, err.Error(),
			"ask only for names of this enrolment, or enrol with a token that allows these")
	}
	return Result{}
}

// activeAgent looks up an agent that may act.
func activeAgent(c *change, id string) (*Agent, Result) {
	agent := find[Agent](c, TableAgents, indexID, key(id))
	switch {
	case agent == nil:
		return nil, refuse(wire.CodeIdentityUnknown, "", "this agent is not known here", "enrol the agent with a new token")
	case agent.State == AgentRetired:
		return nil, agentRetired()
	}
	return agent, Result{}
}

func agentRetired() Result {
	return refuse(wire.CodeAgentRetired, "", "this agent was retired", "enrol the host with a new key and a new token if it is wanted again")
}

func setPendingIdentity(c *change, p *SetPendingIdentity) Result {
	stored, refusal := activeAgent(c, p.AgentID)
	if stored == nil {
		return refusal
	}
	if p.Identity.Fingerprint == "" || p.Identity.PublicKeyFingerprint == "" {
		return refuse(wire.CodeInvalid, "csr", "the identity has no certificate", "")
	}
	// The answer to the first request may have been lost: the same key gets the
	// same certificate, so that no more than one is pending for it. A key that
	// is in use already is renewed in place, with a new certificate.
	if stored.Pending != nil && stored.Pending.PublicKeyFingerprint == p.Identity.PublicKeyFingerprint &&
		c.at.Before(stored.Pending.NotAfter) {
		return c.success(*stored.Pending)
	}
	if identityTaken(c, p.Identity) {
		return refuse(wire.CodeConflict, "csr", "this certificate exists", "ask again")
	}
	agent := edit(stored)
	agent.Pending, agent.ModifyIndex = &p.Identity, c.index
	c.put(TableAgents, agent)
	c.audit(Fact{Kind: KindIdentityPending, Actor: "agent:" + agent.ID, Object: agent.ID, Agent: agent.ID}, map[string]any{
		"fingerprint": p.Identity.Fingerprint, "not_after": p.Identity.NotAfter,
	}).changed(differing(stored.picture(), agent.picture()))
	return c.success(p.Identity)
}

func promoteIdentity(c *change, p *PromoteIdentity) Result {
	stored, refusal := activeAgent(c, p.AgentID)
	switch {
	case stored == nil:
		return refusal
	case stored.Current.Fingerprint == p.Fingerprint:
		return Result{}
	case stored.Pending == nil || stored.Pending.Fingerprint != p.Fingerprint:
		return refuse(wire.CodeIdentityUnknown, "", "this identity was replaced by another one",
			"use the newest identity, or enrol the agent again")
	}
	agent := edit(stored)
	agent.Current, agent.Pending, agent.ModifyIndex = *stored.Pending, nil, c.index
	c.put(TableAgents, agent)
	c.audit(Fact{Kind: KindIdentityPromoted, Actor: "agent:" + agent.ID, Object: agent.ID, Agent: agent.ID}, map[string]any{
		"fingerprint": p.Fingerprint, "replaced": stored.Current.Fingerprint,
	}).changed(differing(stored.picture(), agent.picture()))
	return Result{}
}

func retireAgent(c *change, p *RetireAgent) Result {
	stored := find[Agent](c, TableAgents, indexID, key(p.AgentID))
	if stored == nil {
		return refuse(wire.CodeNotFound, "id", "there is no agent with this id", "list the agents to see their ids")
	}
	if stored.State == AgentRetired {
		return c.success(Retirement{})
	}
	for records := c.scan(TableCertificates, indexID, key(stored.ID)); ; {
		certificate, ok := records.Next().(*Certificate)
		if !ok {
			break
		}
		c.delete(TableCertificates, certificate)
	}
	for _, table := range []Table{TableAssignmentReports, TableAgentCommands} {
		records := c.scan(table, indexID, key(stored.ID))
		for record := records.Next(); record != nil; record = records.Next() {
			c.delete(table, record)
		}
	}
	var outcome Retirement
	outcome.OpenOrders = c.retireOrders(stored.ID, p.Actor)
	agent := edit(stored)
	agent.State, agent.RetiredAt, agent.ModifyIndex = AgentRetired, c.at, c.index
	agent.Pending, agent.Sync, agent.Certificates, agent.DesiredDigest = nil, SyncProgress{}, 0, ""
	agent.SharedAt = time.Time{}
	c.put(TableAgents, agent)
	detail := map[string]any{"reason": p.Reason}
	if outcome.OpenOrders > 0 {
		detail["open_orders"] = outcome.OpenOrders
	}
	if outcome.Revoked, outcome.NotRevoked = c.revokeAllOf(agent.ID, p.Actor); outcome.NotRevoked > 0 {
		detail["not_revoked"] = outcome.NotRevoked // for want of room in the list
	}
	c.audit(Fact{Kind: KindAgentRetired, Actor: p.Actor, Object: agent.ID, Agent: agent.ID}, detail).changed(stored.picture(), agent.picture())
	return c.success(outcome)
}

func touchAgents(c *change, p *TouchAgents) Result {
	for _, seen := range p.Seen {
		if find[Agent](c, TableAgents, indexID, key(seen.Agent)) == nil {
			continue
		}
		c.touch(seen.Agent, seen.At)
	}
	return Result{}
}

// touch moves an agent's last sign of life forward.
func (c *change) touch(agent string, at time.Time) {
	stored := find[presence](c, TablePresence, indexID, key(agent))
	switch {
	case stored == nil:
		c.insert(TablePresence, &presence{Agent: agent, At: at})
	case at.After(stored.At):
		c.put(TablePresence, &presence{Agent: agent, At: at})
	}
}
