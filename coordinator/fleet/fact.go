package fleet

import (
	"encoding/json"
	"time"

	"github.com/certctl/certctl/coordinator/trail"
)

// Kind is the kind of a fact. Facts that agents report keep their
// wire.EventKind; the others are below.
type Kind string

// Kinds of facts that the coordinator makes itself.
const (
	KindCACreated              Kind = "ca.created"
	KindCAChanged              Kind = "ca.changed"
	KindEnrollmentTokenCreated Kind = "enrollment_token.created"
	KindEnrollmentTokenRevoked Kind = "enrollment_token.revoked"
	KindAgentEnrolled          Kind = "agent.enrolled"
	KindAgentRetired           Kind = "agent.retired"
	KindAgentResync            Kind = "agent.resync"
	KindIdentityPending        Kind = "identity.pending"
	KindIdentityPromoted       Kind = "identity.promoted"
	KindIdentityShared         Kind = "identity.shared"
	KindOrderRequested         Kind = "order.requested"
	KindOrderIssued            Kind = "order.issued"
	KindOrderRejected          Kind = "order.rejected"
	KindOrderClaimed           Kind = "order.claimed"
	KindOrderNotPlaced         Kind = "order.not_placed"
	KindOrderSubmitted         Kind = "order.submitted"
	KindOrderPending           Kind = "order.pending" // again, after something else
	KindOrderNeedsPerson       Kind = "order.needs_person"
	KindOrderUnknown           Kind = "order.unknown_outcome"
	KindOrderSlow              Kind = "order.slow"
	KindOrderReady             Kind = "order.ready"
	KindOrderCancelAsked       Kind = "order.cancel_asked"
	KindOrderCancelled         Kind = "order.cancelled"
	KindOrderRetried           Kind = "order.retried"
	KindOrderResolved          Kind = "order.resolved"
	KindOrderDelivered         Kind = "order.delivered"
	KindOrderRevocationAsked   Kind = "order.revocation_asked"
	KindOrderRevocationTaken   Kind = "order.revocation_taken" // the authority decides later
	KindOrderRevocationFailed  Kind = "order.revocation_failed"
	KindAPITokenCreated        Kind = "api_token.created"
	KindAPITokenRevoked        Kind = "api_token.revoked"
	KindAPITokenRotated        Kind = "api_token.rotated"
	KindAssignmentCreated      Kind = "assignment.created"
	KindAssignmentChanged      Kind = "assignment.changed"
	KindAssignmentDeleted      Kind = "assignment.deleted"
	KindAssignmentReported     Kind = "assignment.reported"
	KindCommandCreated         Kind = "command.created"
	KindCommandFinished        Kind = "command.finished"
	KindCampaignBegun          Kind = "renewals.begun"
	KindCampaignCancelled      Kind = "renewals.cancelled"
	KindCertificateRevoked     Kind = "certificate.revoked"
	KindRevocationsPublished   Kind = "crl.published"
	KindClusterCACreated       Kind = "cluster_ca.created"
	KindClusterCAChanged       Kind = "cluster_ca.changed"
	KindJoinTokenCreated       Kind = "join_token.created"
	KindJoinTokenRevoked       Kind = "join_token.revoked"
	KindNodeJoined             Kind = "node.joined"
	KindNodeChanged            Kind = "node.changed"
	KindNodeRemoved            Kind = "node.removed"
	KindTransferAsked          Kind = "leadership.transfer_asked"
	KindStateRestored          Kind = "state.restored"
	KindHistoryPruned          Kind = "history.pruned"
	KindDayRecorded            Kind = "report.day"
	KindAuditChainBegun        Kind = trail.KindBegun
)

// Fact is something that happened, made by Apply for the journal. Index and
// Ordinal give facts one order, equal on every node.
type Fact struct {
	Index   uint64    `cbor:"1,keyasint" json:"index"`   // of the log entry
	Ordinal uint32    `cbor:"2,keyasint" json:"ordinal"` // within the entry, from 0
	Time    time.Time `cbor:"3,keyasint" json:"time"`    // the proposer's
	Kind    Kind      `cbor:"4,keyasint" json:"kind"`
	// Actor did it: "agent:ID", "api_token:ID", "local" or "system".
	Actor string `cbor:"5,keyasint,omitempty" json:"actor,omitempty"`
	// Object is what it was done to: the name of a certificate, the id of an
	// order, a token or an agent.
	Object string          `cbor:"6,keyasint,omitempty" json:"object,omitempty"`
	Agent  string          `cbor:"7,keyasint,omitempty" json:"agent,omitempty"`
	Detail json.RawMessage `cbor:"8,keyasint,omitempty" json:"detail,omitempty"`
	// Audit numbers the acts of people and the changes of identity and policy,
	// from 1 and without a hole; 0 marks routine facts.
	Audit uint64 `cbor:"9,keyasint,omitempty" json:"audit,omitempty"`
	// Before and After are the object as it was, and as it is, of a fact of the audit
	// trail that changes one. They, and the hashes, are there since the chain has begun.
	Before json.RawMessage `cbor:"10,keyasint,omitempty" json:"before,omitempty"`
	After  json.RawMessage `cbor:"11,keyasint,omitempty" json:"after,omitempty"`
	// Prev is the hash of the fact before in the audit trail, and Hash that of this one
	// after it; see package trail.
	Prev trail.Hash `cbor:"12,keyasint,omitzero" json:"prev,omitzero"`
	Hash trail.Hash `cbor:"13,keyasint,omitzero" json:"hash,omitzero"`
}

// Record is the fact as the chain of the audit trail covers it.
func (f *Fact) Record() trail.Record {
	return trail.Record{
		Number: f.Audit, Index: f.Index, Ordinal: f.Ordinal, Time: f.Time, Kind: string(f.Kind), Actor: f.Actor, Object: f.Object, Agent: f.Agent,
		Detail: f.Detail, Before: f.Before, After: f.After, Prev: f.Prev, Hash: f.Hash,
	}
}
