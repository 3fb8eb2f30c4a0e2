package resource

import "time"

// Agent is an enrolled host. Whether it is well, whether it is connected and
// how long it is safe alone are separate facts: none follows from another.
type Agent struct {
	ID       string            `json:"id" doc:"Id that the coordinator gave at the enrolment."`
	State    string            `json:"state" enum:"active,retired" doc:"A retired agent is refused for good."`
	Hostname string            `json:"hostname" doc:"As the agent reports it."`
	OS       string            `json:"os"`
	Arch     string            `json:"arch"`
	Version  string            `json:"version" doc:"Of the agent's program."`
	Labels   map[string]string `json:"labels" doc:"Given by the enrolment token."`
	// NamePatterns limit what the agent may order through brokered issuers.
	NamePatterns []string `json:"name_patterns" nullable:"false" doc:"Names that the agent may order from brokered issuers."`

	EnrolledAt        time.Time `json:"enrolled_at"`
	EnrollmentTokenID string    `json:"enrollment_token_id"`
	RetiredAt         time.Time `json:"retired_at,omitzero"`
	StartedAt         time.Time `json:"started_at,omitzero" doc:"Last start of the agent's program."`

	LastSeen    time.Time `json:"last_seen,omitzero" doc:"Last sign of life; the enrolment if there was none since. In lists only of agents that are cut off: while they are connected it is of the last few syncs."`
	Connected   bool      `json:"connected" doc:"Whether the agent was heard of within the last few syncs. A host that is cut off goes on renewing at its direct issuers."`
	CutOffSince time.Time `json:"cut_off_since,omitzero" doc:"Last sign of life of an agent that is not connected."`
	SafeUntil   time.Time `json:"safe_until,omitzero" doc:"Offline horizon: when the first expired certificate would be served if the coordinator, every CA and the network were gone from the last report on. It is past when one is served already, and absent when the host serves no certificate, or not_safe makes any later moment untrue."`
	NotSafe     int       `json:"not_safe" doc:"Certificates of the host that were not safe at the last report: expired, revoked, or not in service at one of their deployments. Agents of earlier versions do not say."`

	Certificates     int    `json:"certificates" doc:"Managed certificates of the agent."`
	NeedingAttention int    `json:"needing_attention" doc:"Certificates of the agent for which a person has to act; health_reason of each says what to do."`
	EventsDropped    uint64 `json:"events_dropped" doc:"Facts that a full outbox on the host merged or dropped."`

	ClockSkewSeconds int64 `json:"clock_skew_seconds" doc:"How far the host's clock is ahead of the true time, as the agent knows it by the servers it talks to; negative when it is behind. Changes of less than half a minute are not reported. The agent corrects it in all it decides, but other programs of the host do not."`

	Warnings       []string `json:"warnings" nullable:"false" doc:"Findings about the host itself that a person has to look at, such as a refused assignment or a configuration on disk that is not in effect, as last reported: the first few, cut short. certctl-agent status on the host shows all."`
	IdentityShared bool     `json:"identity_shared" doc:"Whether two hosts use the agent's identity, as after a virtual machine was cloned or the state directory was stolen. False again when they have not for a day or two. Enrol the copy anew with certctl-agent enroll --replace; if it is not known which one is the copy, retire the agent and enrol both."`

	Identity        Identity `json:"identity" doc:"The identity certificate in use."`
	IdentityPending bool     `json:"identity_pending" doc:"Whether a renewed identity was handed out and not used yet."`
}

// Identity is the certificate by which an agent proves itself.
type Identity struct {
	Serial      string    `json:"serial"`
	Fingerprint string    `json:"fingerprint"`
	NotAfter    time.Time `json:"not_after"`
}

// AgentDetail is one agent with what is counted for it alone.
type AgentDetail struct {
	Agent
	CertificateHealth HealthCounts `json:"certificate_health" doc:"The agent's certificates by health."`
}

// RetiredAgent is an agent after it was retired, or in a dry run before, with
// what became of its certificates.
type RetiredAgent struct {
	AgentDetail
	DryRun     bool `json:"dry_run" doc:"Whether nothing was changed."`
	Revoked    int  `json:"revoked" doc:"Certificates of the built-in CA that were revoked with the agent; 0 if it was retired before."`
	NotRevoked int  `json:"not_revoked" doc:"Those that were not, because the revocation list is full; they are good until they expire."`
}

// RetireAgent asks to end an agent.
type RetireAgent struct {
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"Why, for the audit trail."`
}
