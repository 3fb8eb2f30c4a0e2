package resource

import (
	"encoding/json"
	"time"
)

// Page is one part of a list.
type Page[T any] struct {
	Items []T `json:"items" nullable:"false"`
	// NextCursor continues the list. A page may be short, or empty, and yet
	// have a next one: only its absence ends the list.
	NextCursor string `json:"next_cursor,omitempty" doc:"Give it as cursor, with the same filter, to continue. A page may be short or empty and yet have a next one; only the absence of next_cursor ends the list."`
	// Total is the number of items without any filter, where that is known at
	// no cost.
	Total *int `json:"total,omitempty" doc:"Items on all pages, when the request has no filter."`
}

// Event is one fact of the journal.
type Event struct {
	Index   uint64          `json:"index" doc:"Of the log entry. Index and ordinal order all facts."`
	Ordinal uint32          `json:"ordinal"`
	Time    time.Time       `json:"time"`
	Kind    string          `json:"kind" example:"agent.enrolled"`
	Actor   string          `json:"actor,omitempty" doc:"Who did it: agent:ID, api_token:ID, enrollment_token:ID, local or system."`
	Object  string          `json:"object,omitempty" doc:"What it was done to: a certificate's name, the id of an order, a token or an agent."`
	AgentID string          `json:"agent_id,omitempty"`
	Detail  json.RawMessage `json:"detail,omitempty"`
	Audit   uint64          `json:"audit,omitempty" doc:"Number in the audit trail, from 1 and without a hole; absent for routine facts."`
	Before  json.RawMessage `json:"before,omitempty" doc:"The object as it was, where a fact of the audit trail changes or ends one. Where only some of its fields change, those."`
	After   json.RawMessage `json:"after,omitempty" doc:"The object as it is since, where a fact of the audit trail changes or makes one."`
	Prev    string          `json:"prev,omitempty" doc:"Hash of the fact before in the audit trail; absent for the first one of its chain."`
	Hash    string          `json:"hash,omitempty" doc:"SHA-256 over prev and this fact, hexadecimal. docs/reference/audit.md says how it is made. Absent for routine facts, and for those of before the chain was begun."`
}

// AuditHead is the end of the audit trail.
type AuditHead struct {
	Number uint64    `json:"number" doc:"Of the newest fact; 0 if there is none."`
	Hash   string    `json:"hash,omitempty" doc:"Of that fact, and so of all before it, hexadecimal. Absent as long as the chain is not begun, because a member of the cluster is of an earlier version."`
	Index  uint64    `json:"index,omitempty" doc:"Of its log entry."`
	Time   time.Time `json:"time,omitzero"`
	// ChainedFrom is First in the state.
	ChainedFrom uint64 `json:"chained_from,omitempty" doc:"Number of the first fact that has a hash. Those of before are not protected."`
	Node        string `json:"node" doc:"That answers, from what it has applied."`
}

// Status is the coordinator and its fleet in one picture.
type Status struct {
	Version string    `json:"version" doc:"Of the coordinator's program."`
	Time    time.Time `json:"time" doc:"The coordinator's clock."`
	AsOf    time.Time `json:"as_of" doc:"When the fleet was counted. In a large fleet this is some seconds ago."`

	Node         NodeStatus   `json:"node"`
	Agents       AgentCounts  `json:"agents"`
	Certificates HealthCounts `json:"certificates" doc:"All certificates by health."`
	// SafeUntil is the fleet's offline horizon.
	SafeUntil time.Time `json:"safe_until,omitzero" doc:"The earliest offline horizon of any agent. Absent when none serves a certificate, or not_safe makes any later moment untrue."`
	NotSafe   int       `json:"not_safe" doc:"Certificates of active agents that were not safe at the last report: expired, revoked, or not in service at one of their deployments."`
	// NeedingAttention is a part of what the health of certificates tells.
	NeedingAttention int `json:"needing_attention" doc:"Certificates of active agents for which a person has to act."`
	// Earliest are the hosts that the fleet's horizon comes from.
	Earliest      []HostHorizon `json:"earliest" nullable:"false" doc:"The hosts with the earliest offline horizons, at most five: those that are not safe now, then the earliest. The list of agents with sort=safe_until has all."`
	OrdersPending int           `json:"orders_pending" doc:"Orders at issuers that the coordinator talks to that wait for their certificate, those at the built-in CA among them."`
	Orders        OrderCounts   `json:"orders" doc:"Those at authorities, without the built-in CA."`
	Journal       JournalStatus `json:"journal" doc:"All zero for a token with a scope: the facts are about all hosts."`
	Database      bool          `json:"database" doc:"A database is configured for the history; show-history-status says how it stands."`
}

// OrderCounts counts open orders at authorities.
type OrderCounts struct {
	Open           int `json:"open" doc:"All for which something is still to be done at the authority."`
	NeedsPerson    int `json:"needs_person" doc:"Those of them for which somebody has to approve, prove or pay something."`
	UnknownOutcome int `json:"unknown_outcome" doc:"Those of them of which nobody knows whether the authority has them."`
}

// HostHorizon is how long one host is safe alone.
type HostHorizon struct {
	AgentID   string    `json:"agent_id"`
	Hostname  string    `json:"hostname"`
	SafeUntil time.Time `json:"safe_until,omitzero" doc:"Absent when not_safe makes any later moment untrue."`
	NotSafe   int       `json:"not_safe" doc:"Certificates of the host that were not safe at the last report."`
}

// NodeStatus is what the answering node can do.
type NodeStatus struct {
	ID           string `json:"id" doc:"Of the node that answers."`
	Ready        bool   `json:"ready"`
	Leading      bool   `json:"leading"`
	Leader       string `json:"leader,omitempty" doc:"Id of the leading node."`
	AppliedIndex uint64 `json:"applied_index"`
}

// AgentCounts counts agents that are not retired, and those that are.
type AgentCounts struct {
	Active    int `json:"active"`
	Connected int `json:"connected"`
	CutOff    int `json:"cut_off"`
	Retired   int `json:"retired"`
	Warned    int `json:"warned" doc:"Active agents that warn of something about their host."`
	NotSafe   int `json:"not_safe" doc:"Active agents with a certificate that was not safe at the last report."`
	// NeedingAttention counts hosts, as all of these do.
	NeedingAttention int `json:"needing_attention" doc:"Active agents with a certificate for which a person has to act."`
}

// Events is a page of the journal.
type Events struct {
	Page[Event]
	Missing uint64 `json:"missing,omitempty" doc:"Log entries whose facts the node that answers does not have yet, of whichever time: the list lacks them. It gets them from the other members, if one has them; show-cluster-health says how that stands."`
}

// JournalStatus is how full the journal is.
type JournalStatus struct {
	Facts      uint64 `json:"facts" doc:"Routine facts that are kept."`
	AuditFacts uint64 `json:"audit_facts" doc:"Facts of the audit trail; they are never dropped."`
	Bytes      int64  `json:"bytes"`
	MaxBytes   int64  `json:"max_bytes"`
	Dropped    uint64 `json:"dropped" doc:"Routine facts that went for want of room."`
	NearlyFull bool   `json:"nearly_full"`
}
