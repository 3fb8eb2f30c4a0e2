package fleet

import (
	"encoding/json"
	"time"

	"github.com/certctl/certctl/shared/wire"
)

// AgentState is where an agent stands.
type AgentState string

// States of an agent.
const (
	AgentActive  AgentState = "active"
	AgentRetired AgentState = "retired"
)

// Identity is one identity certificate of an agent.
type Identity struct {
	Certificate          []byte    `cbor:"1,keyasint"` // DER
	Fingerprint          string    `cbor:"2,keyasint"` // SHA-256 of the certificate, lower-case hex
	PublicKeyFingerprint string    `cbor:"3,keyasint"` // SHA-256 of the SubjectPublicKeyInfo, lower-case hex
	Serial               string    `cbor:"4,keyasint"` // lower-case hex
	NotAfter             time.Time `cbor:"5,keyasint"`
}

// Agent is an enrolled agent.
type Agent struct {
	ID           string            `cbor:"1,keyasint"`
	State        AgentState        `cbor:"2,keyasint"`
	Labels       map[string]string `cbor:"3,keyasint,omitempty"`
	NamePatterns []string          `cbor:"4,keyasint,omitempty"`
	TokenID      string            `cbor:"5,keyasint"` // that it enrolled with
	EnrolledAt   time.Time         `cbor:"6,keyasint"`
	RetiredAt    time.Time         `cbor:"7,keyasint"` // zero unless retired
	Host         wire.HostReport   `cbor:"8,keyasint"`

	// Enrolled is the identity that the token was spent on: an enrolment
	// repeated with its key gets the same answer. Current is in use; Pending was
	// handed out and takes its place when it is first used.
	Enrolled Identity  `cbor:"9,keyasint"`
	Current  Identity  `cbor:"10,keyasint"`
	Pending  *Identity `cbor:"11,keyasint,omitempty"`

	// Sync holds what is acknowledged to the agent.
	Sync SyncProgress `cbor:"12,keyasint"`
	// Certificates counts the agent's summaries.
	Certificates int `cbor:"13,keyasint"`
	// ModifyIndex is the log index of the record's last change.
	ModifyIndex uint64 `cbor:"14,keyasint"`
	// DesiredDigest is that of the assignments that the agent goes by.
	DesiredDigest string `cbor:"20,keyasint,omitempty"`

	// TrustGeneration is the generation of trust that the agent says to go by;
	// 0 if it never did.
	TrustGeneration uint64 `cbor:"40,keyasint,omitempty"`
	// SharedAt is when it was last noted that two hosts use the identity, zero
	// if it never was; see [NoteSharedIdentity].
	SharedAt time.Time `cbor:"41,keyasint,omitzero"`
}

// SyncProgress is how far an agent's inventory and events have arrived.
type SyncProgress struct {
	BootID         string `cbor:"1,keyasint,omitempty"`
	PreviousBootID string `cbor:"2,keyasint,omitempty"` // its requests are late duplicates
	Sequence       uint64 `cbor:"3,keyasint,omitempty"`
	// Revision and Event are the newest that are stored.
	Revision uint64 `cbor:"4,keyasint,omitempty"`
	Event    uint64 `cbor:"5,keyasint,omitempty"`
	// Digest covers the agent's rows as they are stored here.
	Digest wire.Digest `cbor:"6,keyasint"`
	// ResyncID names the full inventory that was asked for and has not arrived
	// in full; "" when there is none. While it is set, Revision is the progress
	// of that inventory once its first page has arrived.
	ResyncID string `cbor:"7,keyasint,omitempty"`
	// Resyncs counts the full inventories asked for, and marks the rows that
	// the last one carried.
	Resyncs uint32 `cbor:"8,keyasint,omitempty"`
	// ResyncBegun says that a page of ResyncID has arrived.
	ResyncBegun bool `cbor:"9,keyasint,omitempty"`
}

// Certificate is the summary of one managed certificate on one host, with the
// columns by which it is found. Data is the JSON of a wire.Summary as the agent
// sent it.
type Certificate struct {
	Agent    string          `cbor:"1,keyasint"`
	Name     string          `cbor:"2,keyasint"`
	Revision uint64          `cbor:"3,keyasint"`
	Data     json.RawMessage `cbor:"4,keyasint"`
	Columns  Columns         `cbor:"5,keyasint"`
	// Resync is the agent's SyncProgress.Resyncs at which the row last came in
	// as part of a full inventory, or was new.
	Resync uint32 `cbor:"6,keyasint,omitempty"`
	// ModifyIndex is the log index of the record's last change.
	ModifyIndex uint64 `cbor:"7,keyasint"`
	// SerialIndex is the log index at which the serial number came in.
	SerialIndex uint64 `cbor:"20,keyasint,omitempty"`

	hash wire.Digest // of the row; follows from the fields above
}

// Columns are the fields of a wire.Summary by which summaries are found. The
// proposer takes them out of the JSON, so that nodes of different versions
// cannot read it differently.
type Columns struct {
	Names       []string   `cbor:"1,keyasint,omitempty"`
	State       wire.State `cbor:"2,keyasint,omitempty"`
	Issuer      string     `cbor:"3,keyasint,omitempty"`
	Serial      string     `cbor:"4,keyasint,omitempty"`
	Fingerprint string     `cbor:"5,keyasint,omitempty"`
	NotAfter    time.Time  `cbor:"6,keyasint"`
	Attention   bool       `cbor:"7,keyasint,omitempty"` // a person has to act
}

// OrderState is where an order stands.
type OrderState string

// States of an order, as they are stored; [Order.Stage] has the words that people
// see. Collected orders are kept for a day without their content, so that a late
// duplicate of the request does not order again; those at other authorities for as
// long as their certificates are valid.
const (
	OrderRequested OrderState = "requested"
	OrderIssued    OrderState = "issued" // the certificate is here
	OrderRejected  OrderState = "rejected"
	OrderCollected OrderState = "collected" // the agent has the result
)

// Order is a certificate request of an agent at a brokered issuer.
type Order struct {
	Agent                string        `cbor:"1,keyasint"`
	ID                   string        `cbor:"2,keyasint"` // made by the agent
	Certificate          string        `cbor:"3,keyasint"` // name in the agent's configuration
	Issuer               string        `cbor:"4,keyasint"`
	CSR                  []byte        `cbor:"5,keyasint,omitempty"` // DER
	Names                []string      `cbor:"6,keyasint,omitempty"`
	PublicKeyFingerprint string        `cbor:"7,keyasint,omitempty"`
	Validity             time.Duration `cbor:"8,keyasint,omitempty"` // 0 leaves it to the issuer
	State                OrderState    `cbor:"9,keyasint"`
	PlacedAt             time.Time     `cbor:"10,keyasint"`
	DoneAt               time.Time     `cbor:"11,keyasint"` // issued, rejected or collected
	// Of an issued order.
	ChainPEM    string    `cbor:"12,keyasint,omitempty"`
	Serial      string    `cbor:"13,keyasint,omitempty"`
	Fingerprint string    `cbor:"14,keyasint,omitempty"`
	NotAfter    time.Time `cbor:"15,keyasint"`
	// Problem is why an order was rejected.
	Problem     *wire.Problem `cbor:"16,keyasint,omitempty"`
	ModifyIndex uint64        `cbor:"17,keyasint"`
	// Digest of the CSR, kept when the CSR is not.
	CSRDigest [32]byte `cbor:"18,keyasint"`
	// Brokering is what is known of the order at its authority; nil for the built-in
	// CA, and before the order is claimed for the first time.
	Brokering *Brokering `cbor:"40,keyasint,omitempty"`
	// Revocation is what became of the wish to have its certificate revoked at its
	// authority; nil without, and for the built-in CA.
	Revocation *OrderRevocation `cbor:"41,keyasint,omitempty"`
}

// EnrollmentToken is what is kept of an enrolment token: not its secret.
type EnrollmentToken struct {
	ID           string            `cbor:"1,keyasint"`
	SecretHash   [32]byte          `cbor:"2,keyasint"`
	Description  string            `cbor:"3,keyasint,omitempty"`
	Labels       map[string]string `cbor:"4,keyasint,omitempty"`
	NamePatterns []string          `cbor:"5,keyasint,omitempty"`
	MaxUses      uint32            `cbor:"6,keyasint,omitempty"` // 0 is unlimited
	Uses         uint32            `cbor:"7,keyasint,omitempty"`
	CreatedAt    time.Time         `cbor:"8,keyasint"`
	CreatedBy    string            `cbor:"9,keyasint,omitempty"`
	ExpiresAt    time.Time         `cbor:"10,keyasint"`
	RevokedAt    time.Time         `cbor:"11,keyasint"` // zero unless revoked
	RevokedBy    string            `cbor:"12,keyasint,omitempty"`
	ModifyIndex  uint64            `cbor:"13,keyasint"`
}

// Role is what the bearer of an API token may do.
type Role string

// Roles, each of which includes the one before.
const (
	RoleViewer   Role = "viewer"
	RoleOperator Role = "operator"
	RoleAdmin    Role = "admin"
)

// Valid reports whether the role is one of the above.
func (r Role) Valid() bool { return r.rank() > 0 }

// Includes reports whether r may do what needs other.
func (r Role) Includes(other Role) bool { return other.Valid() && r.rank() >= other.rank() }

func (r Role) rank() int {
	switch r {
	case RoleViewer:
		return 1
	case RoleOperator:
		return 2
	case RoleAdmin:
		return 3
	default:
		return 0
	}
}

// APIToken is what is kept of an API token: not its secret.
type APIToken struct {
	ID          string    `cbor:"1,keyasint"`
	Name        string    `cbor:"2,keyasint"`
	Hash        [32]byte  `cbor:"3,keyasint"` // SHA-256 of the secret, which has 256 random bits
	Role        Role      `cbor:"4,keyasint"`
	CreatedAt   time.Time `cbor:"5,keyasint"`
	CreatedBy   string    `cbor:"6,keyasint,omitempty"`
	ExpiresAt   time.Time `cbor:"7,keyasint"` // zero never expires
	RevokedAt   time.Time `cbor:"8,keyasint"` // zero unless revoked
	ModifyIndex uint64    `cbor:"9,keyasint"`
	// Scope limits it to hosts. A node that does not know of scopes does not get as far
	// as ignoring one: it refuses the record.
	Scope Scope `cbor:"10,keyasint,omitempty"`
	// FixedExpiry says that a rotation does not put off its end.
	FixedExpiry bool      `cbor:"11,keyasint,omitempty"`
	Rotation    *Rotation `cbor:"12,keyasint,omitempty"` // the last one
}

// Rotation is when a token got the secret that it has, and the one that it had before.
type Rotation struct {
	At   time.Time `cbor:"1,keyasint"`
	By   string    `cbor:"2,keyasint,omitempty"`
	Hash [32]byte  `cbor:"3,keyasint"` // of the earlier secret
	// Until is up to when the earlier secret is good too.
	Until time.Time `cbor:"4,keyasint"`
}

// presence is when an agent was last heard of. It has a table of its own so
// that heartbeats do not change the version of the agents' table.
type presence struct {
	Agent string    `cbor:"1,keyasint"`
	At    time.Time `cbor:"2,keyasint"`
}

// seenCommand remembers the result of a command.
type seenCommand struct {
	ID      ID     `cbor:"1,keyasint"`
	Index   uint64 `cbor:"2,keyasint"`
	Ordinal uint32 `cbor:"3,keyasint"` // within the entry
	Time    int64  `cbor:"4,keyasint"`
	Result  Result `cbor:"5,keyasint"`
}

// tableInfo is the bookkeeping of one table.
type tableInfo struct {
	Table   Table  `cbor:"1,keyasint"`
	Version uint64 `cbor:"2,keyasint"` // log index of the last change
	Rows    int    `cbor:"3,keyasint"`
}

// position is how far the log was applied.
type position struct {
	Index uint64 `cbor:"1,keyasint"`
	Audit uint64 `cbor:"2,keyasint"` // last audit number given
	// RestoredAt is when the state was last replaced by that of a backup; zero if it
	// never was, or by a version that had no orders at authorities.
	RestoredAt time.Time `cbor:"3,keyasint,omitzero"`
	// Chain is the newest fact of the audit trail's chain; nil before it was begun. It is
	// replaced, and never changed.
	Chain *AuditHead `cbor:"4,keyasint,omitempty"`
}
