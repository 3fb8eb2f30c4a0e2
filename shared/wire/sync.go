package wire

import (
	"encoding/json"
	"time"

	"github.com/certctl/certctl/shared/pki"
)

// SyncRequest is the one request by which an agent and the coordinator bring
// each other up to date. Who the agent is follows from its client certificate
// alone.
//
// Rows carry revisions: a counter of the agent's store that grows with each
// change of a row. A request moves the coordinator from BaseRevision, which it
// acknowledged before, to Revision; when Revision is below HeadRevision, more
// pages follow at once. Digest covers the whole inventory at HeadRevision and is
// compared only when Revision equals HeadRevision.
type SyncRequest struct {
	Protocol int `json:"protocol"`
	// BootID names one run of the agent; Sequence counts its requests, from 1.
	// A retry of an unanswered request has the same Sequence. What it carries
	// is deduplicated by revision and event number, so that a retry is harmless;
	// a Sequence below the last one seen of that BootID is a late duplicate and
	// is refused with CodeStale.
	BootID   string     `json:"boot_id"`
	Sequence uint64     `json:"sequence"`
	SentAt   time.Time  `json:"sent_at"`
	Host     HostReport `json:"host"`

	BaseRevision uint64 `json:"base_revision"`
	Revision     uint64 `json:"revision"`
	HeadRevision uint64 `json:"head_revision"`
	Digest       Digest `json:"digest"`
	// ResyncID repeats the id of the full inventory that the coordinator asked
	// for. With it the first page has BaseRevision 0, and when the last page
	// has arrived, rows of this agent that no page of this id carried are gone.
	ResyncID string    `json:"resync_id,omitempty"`
	Rows     []Row     `json:"rows,omitempty"`
	Removed  []Removal `json:"removed,omitempty"`

	Events []Event `json:"events,omitempty"`
	// Orders are the agent's open orders at brokered issuers, each repeated
	// until its result has arrived; Collected are orders whose results the
	// agent has stored, which the coordinator need not send again.
	Orders    []OrderRequest `json:"orders,omitempty"`
	Collected []string       `json:"collected,omitempty"`

	// DesiredDigest is the digest of the Desired that the agent goes by; ""
	// before the first. Assignments says what the agent made of each, and is
	// sent only together with a digest or report that is new.
	DesiredDigest string             `json:"desired_digest,omitempty"`
	Assignments   []AssignmentReport `json:"assignments,omitempty"`
	Commands      []CommandResult    `json:"commands,omitempty"`

	// Trust is the generation of trust that the agent goes by. Nil is sent by
	// agents that follow none at the moment: they are told of no new one.
	Trust *TrustPosition `json:"trust,omitempty"`

	// ServersDigest is the ServersDigest of the nodes that the agent knows. Agents
	// that keep no such list send none, and are told of no nodes.
	ServersDigest string `json:"servers_digest,omitempty"`
}

// HostReport is what an agent says of its host. It is stored only when it
// differs from what the coordinator has.
type HostReport struct {
	Hostname  string    `json:"hostname"`
	OS        string    `json:"os"`
	Arch      string    `json:"arch"`
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	// SafeUntil is the offline horizon: the moment when the first expired
	// certificate would be served if the coordinator, every CA and the network
	// were gone from now on. It is past when one is served already, and nil when
	// the host serves no certificate or NotSafe makes any later moment untrue.
	SafeUntil *time.Time `json:"safe_until,omitempty"`
	// NotSafe counts the certificates that are not safe now: expired, revoked, or
	// not in service everywhere they should be. Agents of before do not send it.
	NotSafe int `json:"not_safe,omitempty"`
	// EventsDropped counts facts that a full outbox coalesced or dropped since
	// the agent's store was created.
	EventsDropped uint64 `json:"events_dropped,omitempty"`
	// ClockSkewSeconds is how far the host's clock is ahead of the true time, as
	// far as the agent knows it; negative when it is behind. The agent goes by
	// the true time. It is coarse, so that it does not change with each report.
	ClockSkewSeconds int64 `json:"clock_skew_seconds,omitempty"`
	// Warnings are findings about the host itself that a person has to look at,
	// each with its mend: at most MaxHostWarnings of MaxHostWarningLen bytes.
	Warnings []string `json:"warnings,omitempty"`
}

// Limits of the warnings in a HostReport.
const (
	MaxHostWarnings   = 8
	MaxHostWarningLen = 500
)

// MaxNotSafe bounds the count in a HostReport, far above what a host can have.
const MaxNotSafe = 1 << 24

// Row is one summary with its place in the agent's history. Data is the JSON
// of a Summary; its exact bytes are what Digest covers, so that sides of
// different versions still agree on digests.
type Row struct {
	Name     string          `json:"name"`
	Revision uint64          `json:"revision"`
	Data     json.RawMessage `json:"data"`
}

// Removal says that a managed certificate is no longer kept by the agent.
type Removal struct {
	Name     string `json:"name"`
	Revision uint64 `json:"revision"`
}

// State is where a managed certificate stands, as the agent knows it. Expiry
// is not a state: readers compare NotAfter with the time at which they read.
type State string

// States of a managed certificate.
const (
	StatePending  State = "pending"  // no certificate yet, none being obtained
	StateRenewing State = "renewing" // between the new key and the verified deployment
	StateValid    State = "valid"    // deployed, verified, waiting for its renewal
	StateFailed   State = "failed"   // the last attempt failed; another one is scheduled
)

// Summary is one row about one certificate on one host: no key, no PEM.
type Summary struct {
	// Names are those in the certificate in service; those that are wanted while
	// there is none.
	Names  pki.Names `json:"names"`
	State  State     `json:"state"`
	Issuer string    `json:"issuer"` // its name in the agent's configuration
	// Kind of the issuer: "acme", "coordinator", ...
	IssuerKind string `json:"issuer_kind"`
	// IssuedBy is the issuer of the certificate in service, where it is another
	// one than Issuer: a stand-in.
	IssuedBy string `json:"issued_by,omitempty"`
	// Former says that the certificate in service is of an earlier configuration,
	// with other names, another key or issuer, and is to be replaced. Agents of
	// before do not send it.
	Former bool `json:"former_configuration,omitempty"`

	// The certificate in service; zero before the first one is.
	Serial       string    `json:"serial,omitempty"`      // lower-case hex
	Fingerprint  string    `json:"fingerprint,omitempty"` // SHA-256 of the DER, lower-case hex
	IssuerDN     string    `json:"issuer_dn,omitempty"`
	KeyAlgorithm string    `json:"key_algorithm,omitempty"`
	NotBefore    time.Time `json:"not_before,omitzero"`
	NotAfter     time.Time `json:"not_after,omitzero"`
	RenewAt      time.Time `json:"renew_at,omitzero"`
	// RevokedAt is when the certificate in service was revoked, and
	// RevocationReason why (CRLReason; RFC 5280, section 5.3.1). Zero while
	// nothing is known of a revocation.
	RevokedAt        time.Time `json:"revoked_at,omitzero"`
	RevocationReason int       `json:"revocation_reason,omitempty"`
	// SafeUntil is the offline horizon of this certificate: the first expiry of
	// what its deployments serve, or will serve without help from outside; a
	// revoked certificate ends when it was revoked. Zero
	// when it is not in service at one of them: that is not safe now.
	SafeUntil time.Time `json:"safe_until,omitzero"`
	Renewals  uint64    `json:"renewals"` // certificates put into service since the store was created

	Deployments []DeploymentSummary `json:"deployments,omitempty"`

	Attempt     int       `json:"attempt,omitempty"` // failed attempts of the renewal under way
	NextAttempt time.Time `json:"next_attempt,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	// NeedsAttention says why a person has to act; empty when none has to.
	NeedsAttention string `json:"needs_attention,omitempty"`
	// Waiting is what the order of the renewal under way waits for at its issuer, as
	// far as that says so. It is no failure.
	Waiting string `json:"waiting,omitempty"`
}

// DeploymentState is how the last deployment to one target ended.
type DeploymentState string

// States of a deployment.
const (
	DeploymentPending    DeploymentState = "pending"
	DeploymentVerified   DeploymentState = "verified"   // the new certificate is what the target serves or reads
	DeploymentUnverified DeploymentState = "unverified" // deployed; nothing was configured to verify it with
	DeploymentFailed     DeploymentState = "failed"     // rolled back, or not begun
	DeploymentBroken     DeploymentState = "broken"     // failed, and the rollback failed too
)

// DeploymentSummary is the outcome of one deployment.
type DeploymentSummary struct {
	ID          string          `json:"id"`
	State       DeploymentState `json:"state"`
	Fingerprint string          `json:"fingerprint,omitempty"` // of the certificate that is in service there
	At          time.Time       `json:"at,omitzero"`
	Detail      string          `json:"detail,omitempty"`
}

// EventKind is the kind of a fact in the outbox.
type EventKind string

// Kinds of facts that agents report.
const (
	EventIssued   EventKind = "certificate.issued"
	EventDeployed EventKind = "certificate.deployed"
	EventRenewed  EventKind = "certificate.renewed"
	EventFailed   EventKind = "certificate.failed"
	EventRemoved  EventKind = "certificate.removed"
	EventRevoked  EventKind = "certificate.found_revoked" // by its host, which is about to replace it
	// EventRevocationUnknown says that a responder or list was of no use for a day.
	EventRevocationUnknown EventKind = "revocation.unknown"
	EventIdentityRenewed   EventKind = "identity.renewed"
	EventStarted           EventKind = "agent.started"
	// EventDesiredRefused says that the host could not take what the centre wants.
	EventDesiredRefused EventKind = "desired.refused"
)

// Event is one fact in an agent's outbox. Sequence is given by the agent's
// store, grows by one for each fact and is never used twice; the coordinator
// keeps each fact once.
type Event struct {
	Sequence    uint64    `json:"sequence"`
	At          time.Time `json:"at"`
	Kind        EventKind `json:"kind"`
	Certificate string    `json:"certificate,omitempty"`
	Serial      string    `json:"serial,omitempty"`
	Detail      string    `json:"detail,omitempty"`
	// Issuer is the name of the issuer that had to do with it, and Reason the kind of a
	// failure. Agents of before do not send them.
	Issuer string `json:"issuer,omitempty"`
	Reason Reason `json:"reason,omitempty"`
	// Count is how many facts of this kind a full outbox coalesced into this
	// one; 0 and 1 both mean one.
	Count uint64 `json:"count,omitempty"`
}

// OrderRequest asks for one certificate from a brokered issuer. The agent
// makes ID (unique, unguessable) and repeats the request unchanged until it
// has a result.
type OrderRequest struct {
	ID          string `json:"id"`
	Certificate string `json:"certificate"`
	Issuer      string `json:"issuer"` // "" or "builtin" is the built-in CA
	CSR         []byte `json:"csr"`    // DER
	// ValiditySeconds asks for a lifetime; 0 leaves it to the issuer, which
	// also caps it.
	ValiditySeconds int64 `json:"validity_seconds,omitempty"`
	// PlacedAt is when the agent made the order, by its clock: a coordinator that was
	// restored from a backup goes by it when it does not know the order. Agents of
	// before do not send it.
	PlacedAt time.Time `json:"placed_at,omitzero"`
}

// OrderState is where an order stands, seen from the agent.
type OrderState string

// States of an order.
const (
	OrderPending  OrderState = "pending"
	OrderIssued   OrderState = "issued"
	OrderRejected OrderState = "rejected" // final: this order will never be issued
)

// OrderResult is what became of an order. It is repeated in every answer until
// the agent reports the order as collected.
type OrderResult struct {
	ID    string     `json:"id"`
	State OrderState `json:"state"`
	// Chain is PEM, leaf first, without the root. Only for OrderIssued.
	Chain string `json:"chain,omitempty"`
	// Problem says why. Only for OrderRejected.
	Problem *Problem `json:"problem,omitempty"`
	// Stage, Detail and Mend say what the order waits for, of those that the request
	// had. Only for OrderPending; see Parsed.
	Stage  OrderStage `json:"stage,omitempty"`
	Detail string     `json:"detail,omitempty"`
	Mend   string     `json:"mend,omitempty"`
}

// SyncResponse acknowledges what is committed and hands over what is new.
type SyncResponse struct {
	ServerTime time.Time `json:"server_time"`
	// Revision and Event are the newest that are committed: the agent need not
	// send anything up to them again.
	Revision uint64 `json:"revision"`
	Event    uint64 `json:"event"`
	// ResyncID, when not empty, asks for the full inventory under this id.
	ResyncID string `json:"resync_id,omitempty"`
	// PauseMillis is how long the agent shall wait before its next sync, unless
	// it has something new to say: the coordinator sets the pace of its fleet.
	PauseMillis int64         `json:"pause_millis"`
	Orders      []OrderResult `json:"orders,omitempty"`
	// Desired is sent only when its digest differs from DesiredDigest of the
	// request. Nil leaves things as they are.
	Desired *Desired `json:"desired,omitempty"`
	// Commands are those whose final result has not arrived, at most MaxCommands.
	Commands []Command `json:"commands,omitempty"`
	// Trust has the signed generations of trust that the agent lacks, oldest
	// first; see package trust.
	Trust [][]byte `json:"trust,omitempty"`
	// Servers are the URLs of the cluster's nodes, each of which answers agents. It
	// is sent only when its digest differs from ServersDigest of the request.
	Servers []string `json:"servers,omitempty"`
}
