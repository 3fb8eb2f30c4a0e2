package store

import (
	"encoding/json"
	"time"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Phase is the persisted position of a managed certificate's renewal. Each
// phase names what is on disk and synced; the step that comes next may have
// been begun.
type Phase string

// Phases, in order. docs/reference/renewal.md says what a crash in each leads to.
const (
	PhaseIdle        Phase = "idle"         // nothing under way
	PhaseKeyWritten  Phase = "key_written"  // Next.KeyID is in the key directory; no order is known to exist
	PhaseOrderPlaced Phase = "order_placed" // OrderState holds what the issuer needs to go on
	PhaseIssued      Phase = "issued"       // Next is a checked pair; deployments may have begun
	PhaseDeployed    Phase = "deployed"     // every deployment ended well; Next has become Current, Previous is still kept
)

// Certificate is the record of one managed certificate: the engine's state
// machine. It holds no private key.
type Certificate struct {
	Name       string    `json:"name"`
	Names      pki.Names `json:"names"`       // what the configuration wants now
	Issuer     string    `json:"issuer"`      // issuer's name in the configuration
	IssuerKind string    `json:"issuer_kind"` // and its kind
	// ConfigDigest is the digest of the part of the configuration that a
	// certificate must be renewed for when it changes (names, key, issuer, profile).
	ConfigDigest string `json:"config_digest"`

	Phase    Phase       `json:"phase"`
	Current  *Generation `json:"current,omitempty"`  // in service
	Next     *Generation `json:"next,omitempty"`     // being obtained or deployed
	Previous *Generation `json:"previous,omitempty"` // kept until Current is verified

	// OrderID and OrderState belong to the order under way.
	OrderID    string          `json:"order_id,omitempty"`
	OrderState json.RawMessage `json:"order_state,omitempty"`
	// OrderBegunAt is when it was begun.
	OrderBegunAt time.Time `json:"order_begun_at,omitzero"`
	// Waiting is what the order waits for, as far as its issuer says so, and
	// WaitsForPerson that it is somebody who has to act there. It is no failure.
	Waiting        string `json:"waiting,omitempty"`
	WaitsForPerson bool   `json:"waits_for_person,omitempty"`
	// OrderIssuer is the stand-in that the renewal under way has gone over to;
	// "" while it is with the issuer that is configured first. IssuerAttempt
	// counts the failed attempts since it is with that issuer.
	OrderIssuer   string `json:"order_issuer,omitempty"`
	IssuerAttempt int    `json:"issuer_attempt,omitempty"`

	// Deployments by deployment id.
	Deployments map[string]Deployment `json:"deployments,omitempty"`

	// RenewAt is drawn once for Current and stored; RenewalInfo is the last
	// suggestion of the authority (RFC 9773).
	RenewAt     time.Time    `json:"renew_at,omitzero"`
	RenewalInfo *RenewalInfo `json:"renewal_info,omitempty"`

	// PlannedAt is when the engine means to renew Current: RenewAt, or what the
	// suggestion makes of it. It is kept for reports alone.
	PlannedAt time.Time `json:"planned_at,omitzero"`

	// NextAction is when the engine looks at this certificate again. It is the
	// key of the schedule.
	NextAction time.Time `json:"next_action,omitzero"`

	// OrderAttempt counts the failed attempts to obtain Next since the last
	// progress, and RetryAt is when the next one may be made; zero is at once.
	OrderAttempt int       `json:"order_attempt,omitempty"`
	RetryAt      time.Time `json:"retry_at,omitzero"`

	Attempt        int       `json:"attempt,omitempty"` // failed attempts since the last success, deployments included
	LastError      string    `json:"last_error,omitempty"`
	LastErrorAt    time.Time `json:"last_error_at,omitzero"`
	NeedsAttention string    `json:"needs_attention,omitempty"`
	Renewals       uint64    `json:"renewals"` // generations put into service
	// Forced is set by an operator's "renew": the next action renews whatever the date.
	Forced bool `json:"forced,omitempty"`
}

// Generation is one key and its certificate.
type Generation struct {
	Number       uint64           `json:"number"` // grows by one per pair
	KeyID        string           `json:"key_id"` // file in the key directory
	KeyAlgorithm pki.KeyAlgorithm `json:"key_algorithm"`
	// KeyMadeAt is when the key was made, which is before the pair where the key
	// of the pair before is used again; zero in records of earlier versions.
	KeyMadeAt time.Time `json:"key_made_at,omitzero"`
	// KeySpent says that no other certificate may be asked for with this key: it
	// was revoked or compromised, its authority refuses it, or an order for it was
	// left of which a certificate may still come.
	KeySpent bool `json:"key_spent,omitempty"`
	// The rest is empty until the certificate is issued.
	ChainPEM     string    `json:"chain_pem,omitempty"`
	Serial       string    `json:"serial,omitempty"`
	Fingerprint  string    `json:"fingerprint,omitempty"`
	IssuerDN     string    `json:"issuer_dn,omitempty"`
	NotBefore    time.Time `json:"not_before,omitzero"`
	NotAfter     time.Time `json:"not_after,omitzero"`
	IssuedAt     time.Time `json:"issued_at,omitzero"`
	ConfigDigest string    `json:"config_digest,omitempty"`
	// Issuer is the name of the issuer that issued it; "" in records of earlier
	// versions, which knew one issuer for each certificate.
	Issuer string `json:"issuer,omitempty"`
	// Revoked is set once the certificate is known to be revoked.
	Revoked *Revocation `json:"revoked,omitempty"`
}

// Revocation is what is known of a revoked certificate.
type Revocation struct {
	At     time.Time `json:"at"`
	Reason int       `json:"reason,omitempty"` // CRLReason; RFC 5280, section 5.3.1
}

// End is when the certificate ends: its expiry, or its revocation.
func (g *Generation) End() time.Time {
	if g.Revoked != nil && g.Revoked.At.Before(g.NotAfter) {
		return g.Revoked.At
	}
	return g.NotAfter
}

// RenewalInfo is a stored suggestion of an authority, with the point drawn in
// its window.
type RenewalInfo struct {
	WindowStart    time.Time `json:"window_start"`
	WindowEnd      time.Time `json:"window_end"`
	ExplanationURL string    `json:"explanation_url,omitempty"`
	SelectedAt     time.Time `json:"selected_at"` // drawn once per window
	CheckAgainAt   time.Time `json:"check_again_at"`
}

// Deployment is the persisted side of one deployment.
type Deployment struct {
	// State is the target's own, for Generation; nil when no transaction is open.
	State      json.RawMessage `json:"state,omitempty"`
	Generation uint64          `json:"generation,omitempty"`
	// Outcome of the last finished transaction.
	Outcome     wire.DeploymentState `json:"outcome,omitempty"`
	Fingerprint string               `json:"fingerprint,omitempty"` // in service there
	// NotAfter is the expiry of what is in service there, which may be of a pair
	// that nothing else here remembers.
	NotAfter time.Time `json:"not_after,omitzero"`
	// RevokedAt is when what is in service there was revoked; zero while it is
	// not known to be.
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	At        time.Time `json:"at,omitzero"`
	Detail    string    `json:"detail,omitempty"`
	// Attempt counts the failed attempts at Generation, and RetryAt is when the
	// next one may be made; zero is at once.
	Attempt int       `json:"attempt,omitempty"`
	RetryAt time.Time `json:"retry_at,omitzero"`
}

// Identity is what the agent is to its coordinator.
type Identity struct {
	AgentID string   `json:"agent_id"`
	Servers []string `json:"servers"` // https URLs, as the host was given them
	// Nodes are the https URLs of the cluster's nodes, as it last told them; see
	// wire.CleanServers.
	Nodes        []string          `json:"nodes,omitempty"`
	KeyID        string            `json:"key_id"`
	ChainPEM     string            `json:"chain_pem"`
	RootsPEM     string            `json:"roots_pem"`
	NamePatterns []string          `json:"name_patterns,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	RenewAt      time.Time         `json:"renew_at,omitzero"` // drawn once, stored
	// TrustGeneration and TrustDigest name the generation of trust (package
	// trust) that RootsPEM is; zero while that is not known.
	TrustGeneration uint64 `json:"trust_generation,omitempty"`
	TrustDigest     []byte `json:"trust_digest,omitempty"`
	// Pending is a renewal under way: its key is on disk, its certificate may
	// not be known yet.
	Pending *PendingIdentity `json:"pending,omitempty"`
	// Enrolling is an enrolment under way. With AgentID empty there is no
	// identity yet; otherwise it will replace the present one.
	Enrolling *Enrolling `json:"enrolling,omitempty"`
	// Retired says that the coordinator no longer wants this agent.
	Retired bool `json:"retired,omitempty"`
}

// PendingIdentity is a new key for the identity, and its certificate once known.
type PendingIdentity struct {
	KeyID    string `json:"key_id"`
	ChainPEM string `json:"chain_pem,omitempty"`
	// RootsPEM is what an earlier version trusted with this certificate. Roots
	// come from the enrolment and from generations of trust alone.
	RootsPEM string `json:"roots_pem,omitempty"`
}

// Enrolling is a key that is on disk for the identity that an enrolment token
// is being exchanged for. The same token is always tried with the same key, so
// that a lost answer costs no use of it.
type Enrolling struct {
	TokenID string `json:"token_id"`
	KeyID   string `json:"key_id"`
}

// SyncState is what the agent remembers of its coordinator's acknowledgements.
type SyncState struct {
	AckedRevision uint64    `json:"acked_revision"`
	ResyncID      string    `json:"resync_id,omitempty"` // full inventory under way
	LastSuccess   time.Time `json:"last_success,omitzero"`
	LastError     string    `json:"last_error,omitempty"`
	LastErrorAt   time.Time `json:"last_error_at,omitzero"`
	CutOffSince   time.Time `json:"cut_off_since,omitzero"` // first failure since the last success
	// ClockOffset is the coordinator's clock minus ours at the last answer.
	ClockOffset time.Duration `json:"clock_offset,omitempty"`
}

// ClockMark is a time that has been, as the agent's clock keeps it over
// restarts.
type ClockMark struct {
	Time    time.Time     `json:"time"`
	Elapsed time.Duration `json:"elapsed,omitempty"` // since the start of the machine
	BootID  string        `json:"boot_id,omitempty"` // of that run of the machine
	Vouched bool          `json:"vouched,omitempty"` // by a server
}

// Turns is how far an issuer's budget of orders is used up, and whether the
// issuer takes any at present.
type Turns struct {
	// EarnedAt is when the passing of time has made up for every order so far.
	EarnedAt time.Time `json:"earned_at,omitzero"`
	// OverdrawnAt is the same for the orders that were begun beyond the budget.
	OverdrawnAt time.Time `json:"overdrawn_at,omitzero"`
	// LimitedAt is when the issuer last said that it takes nothing new until
	// LimitedUntil, and LimitedFor the certificate that it said so for.
	LimitedAt    time.Time `json:"limited_at,omitzero"`
	LimitedUntil time.Time `json:"limited_until,omitzero"`
	LimitedFor   string    `json:"limited_for,omitempty"`
	// Paused says that it has said so for another one too, so that it means the
	// account; ProbeAt is when a single order may ask whether that still holds.
	Paused  bool      `json:"paused,omitempty"`
	ProbeAt time.Time `json:"probe_at,omitzero"`
}

// Order is an open order at a brokered issuer.
type Order struct {
	Request  wire.OrderRequest `json:"request"`
	Result   *wire.OrderResult `json:"result,omitempty"`
	PlacedAt time.Time         `json:"placed_at"`
	// Collected orders have a stored result that the coordinator was not yet told of.
	Collected bool `json:"collected,omitempty"`
	// Progress is what the coordinator last said of an order that is pending; zero if it
	// said nothing.
	Progress wire.OrderProgress `json:"progress,omitzero"`
}
