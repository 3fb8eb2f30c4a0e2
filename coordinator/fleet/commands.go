package fleet

import (
	"slices"
	"time"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Types of commands.
const (
	TypeInitCA                Type = 1
	TypeCreateEnrollmentToken Type = 2
	TypeRevokeEnrollmentToken Type = 3
	TypeEnrollAgent           Type = 4
	TypeSetPendingIdentity    Type = 5
	TypePromoteIdentity       Type = 6
	TypeRetireAgent           Type = 7
	TypeSyncAgent             Type = 8
	TypeTouchAgents           Type = 9
	TypeCompleteOrder         Type = 10
	TypeRejectOrder           Type = 11
	TypeCreateAPIToken        Type = 12
	TypeRevokeAPIToken        Type = 13
	TypePutAssignment         Type = 20
	TypeDeleteAssignment      Type = 21
	TypeCommandAgent          Type = 22
	TypeBeginCampaign         Type = 23
	TypeCancelCampaign        Type = 24
	TypeRevokeCertificate     Type = 25
	TypePublishRevocations    Type = 26
	TypeChangeCA              Type = 40
	TypeAcknowledgeTrust      Type = 41
	TypeNoteSharedIdentity    Type = 42
	TypeInitClusterCA         Type = 60
	TypeChangeClusterCA       Type = 61
	TypeCreateJoinToken       Type = 62
	TypeRevokeJoinToken       Type = 63
	TypeUseJoinToken          Type = 64
	TypeAnnounceNode          Type = 65
	TypeForgetNode            Type = 66
	TypeNoteRestore           Type = 67
	TypeStageRestore          Type = 68
	TypeApplyRestore          Type = 69
	TypeDropRestore           Type = 70
	TypeNoteTransfer          Type = 71
	TypeClaimOrder            Type = 80
	TypeRecordOrder           Type = 81
	TypeCancelOrder           Type = 82
	TypeRetryOrder            Type = 83
	TypeResolveOrder          Type = 84
	TypeRevokeOrder           Type = 85
	TypeNotePrune             Type = 90
	TypeRotateAPIToken        Type = 91
	TypeRecordDay             Type = 98
	TypeBeginAuditChain       Type = 95
)

// InitCA stores the built-in certificate authority unless there is one. The
// outcome is an InitializedCA.
type InitCA struct {
	Actor       string      `cbor:"1,keyasint,omitempty"`
	Authorities []Authority `cbor:"2,keyasint"`
}

// InitializedCA is the authority that is stored, whoever proposed it.
type InitializedCA struct {
	CA      CA   `cbor:"1,keyasint"`
	Created bool `cbor:"2,keyasint,omitempty"` // by this command
}

// CreateEnrollmentToken stores a new token. An id that exists gives CodeConflict.
type CreateEnrollmentToken struct {
	Actor        string            `cbor:"1,keyasint,omitempty"`
	ID           string            `cbor:"2,keyasint"`
	SecretHash   [32]byte          `cbor:"3,keyasint"`
	Description  string            `cbor:"4,keyasint,omitempty"`
	Labels       map[string]string `cbor:"5,keyasint,omitempty"`
	NamePatterns []string          `cbor:"6,keyasint,omitempty"`
	MaxUses      uint32            `cbor:"7,keyasint,omitempty"` // 0 is unlimited
	ExpiresAt    time.Time         `cbor:"8,keyasint"`
}

// RevokeEnrollmentToken ends a token. Ending it again changes nothing; an
// unknown id gives CodeNotFound.
type RevokeEnrollmentToken struct {
	Actor string `cbor:"1,keyasint,omitempty"`
	ID    string `cbor:"2,keyasint"`
}

// EnrollAgent spends one use of a token and creates an agent, in one step. The
// proposer has checked the CSR and signed Identity for AgentID beforehand; if
// the key is enrolled already, the outcome is what was stored then and the new
// certificate is thrown away. The outcome is an Enrollment.
//
// Codes: CodeTokenUnknown (also a wrong secret), CodeTokenExpired,
// CodeTokenRevoked, CodeTokenUsed, CodeNamesRefused, CodeAgentRetired,
// CodeConflict.
type EnrollAgent struct {
	TokenID    string          `cbor:"1,keyasint"`
	SecretHash [32]byte        `cbor:"2,keyasint"`
	AgentID    string          `cbor:"3,keyasint"` // proposed
	Identity   Identity        `cbor:"4,keyasint"`
	Host       wire.HostReport `cbor:"5,keyasint"`
	Names      pki.Names       `cbor:"6,keyasint"` // wanted from brokered issuers; may be empty
}

// Enrollment is the identity that belongs to the key of an enrolment.
type Enrollment struct {
	AgentID      string            `cbor:"1,keyasint"`
	Identity     Identity          `cbor:"2,keyasint"`
	Labels       map[string]string `cbor:"3,keyasint,omitempty"`
	NamePatterns []string          `cbor:"4,keyasint,omitempty"`
	// Repeated says that the key was enrolled before, and no use was counted.
	Repeated bool `cbor:"5,keyasint,omitempty"`
}

// SetPendingIdentity stores a renewed identity beside the current one. If one
// is pending for the same key, the outcome is that one. Another key replaces
// what was pending. The outcome is an Identity.
//
// Codes: CodeIdentityUnknown, CodeAgentRetired, CodeConflict.
type SetPendingIdentity struct {
	AgentID  string   `cbor:"1,keyasint"`
	Identity Identity `cbor:"2,keyasint"`
}

// PromoteIdentity makes the pending identity the current one: it was used for
// the first time. If it is current already, nothing changes. Any other
// fingerprint gives CodeIdentityUnknown, a retired agent CodeAgentRetired.
type PromoteIdentity struct {
	AgentID     string `cbor:"1,keyasint"`
	Fingerprint string `cbor:"2,keyasint"` // of the certificate
}

// RetireAgent ends an agent: its identities are refused from now on, its
// summaries and orders go, and what it held of the built-in CA is revoked. Orders
// that other authorities may have are taken back, and go when that is done; what is
// left of those that were issued stays, so that it can be revoked. Retiring it again
// changes nothing; an unknown id gives CodeNotFound. The outcome is a Retirement.
type RetireAgent struct {
	Actor   string `cbor:"1,keyasint,omitempty"`
	AgentID string `cbor:"2,keyasint"`
	Reason  string `cbor:"3,keyasint,omitempty"`
}

// Retirement counts the certificates of the built-in CA that were revoked with
// an agent, and those for which the revocation list had no room; and its orders
// at other authorities that are to be taken back.
type Retirement struct {
	Revoked    int `cbor:"1,keyasint,omitempty"`
	NotRevoked int `cbor:"2,keyasint,omitempty"`
	OpenOrders int `cbor:"3,keyasint,omitempty"`
}

// SyncAgent is what one sync request changes; see wire.SyncRequest for the
// fields of the same names. Parts that are known already are passed over, so
// that a repeated request changes nothing. A request larger than a log entry
// is cut by [SplitSync]. The outcome is a SyncOutcome.
//
// Codes: CodeIdentityUnknown, CodeAgentRetired, CodeStale, CodeInvalid.
type SyncAgent struct {
	AgentID  string `cbor:"1,keyasint"`
	BootID   string `cbor:"2,keyasint"`
	Sequence uint64 `cbor:"3,keyasint"`
	// Host is nil if it is what the state holds already.
	Host *wire.HostReport `cbor:"4,keyasint,omitempty"`

	BaseRevision uint64      `cbor:"5,keyasint,omitempty"`
	Revision     uint64      `cbor:"6,keyasint,omitempty"`
	HeadRevision uint64      `cbor:"7,keyasint,omitempty"`
	Digest       wire.Digest `cbor:"8,keyasint"`
	ResyncID     string      `cbor:"9,keyasint,omitempty"`
	Rows         []Row       `cbor:"10,keyasint,omitempty"`
	Removed      []Removal   `cbor:"11,keyasint,omitempty"`

	Events    []wire.Event     `cbor:"12,keyasint,omitempty"` // by ascending sequence
	Orders    []OrderPlacement `cbor:"13,keyasint,omitempty"`
	Collected []string         `cbor:"14,keyasint,omitempty"`

	// DesiredDigest is the digest of the assignments that the agent goes by, ""
	// if it is what the state holds already. Reports are new or differ from the
	// stored ones; ReportsGone names those that are no longer made.
	DesiredDigest string                  `cbor:"15,keyasint,omitempty"`
	Reports       []wire.AssignmentReport `cbor:"16,keyasint,omitempty"`
	ReportsGone   []string                `cbor:"17,keyasint,omitempty"`
	Commands      []CommandReport         `cbor:"18,keyasint,omitempty"`
}

// Row is a summary with the columns that its proposer took out of it.
type Row struct {
	Name     string  `cbor:"1,keyasint"`
	Revision uint64  `cbor:"2,keyasint"`
	Data     []byte  `cbor:"3,keyasint"` // JSON
	Columns  Columns `cbor:"4,keyasint"`
}

// Removal is a wire.Removal.
type Removal struct {
	Name     string `cbor:"1,keyasint"`
	Revision uint64 `cbor:"2,keyasint"`
}

// OrderPlacement is an order as its proposer read it: the CSR is checked, its
// names and key taken out.
type OrderPlacement struct {
	ID                   string        `cbor:"1,keyasint"`
	Certificate          string        `cbor:"2,keyasint"`
	Issuer               string        `cbor:"3,keyasint"`
	CSR                  []byte        `cbor:"4,keyasint"` // DER
	Names                pki.Names     `cbor:"5,keyasint"`
	PublicKeyFingerprint string        `cbor:"6,keyasint,omitempty"`
	Validity             time.Duration `cbor:"7,keyasint,omitempty"`
	// Problem rejects the order for what the proposer found (an unknown issuer,
	// a damaged CSR); nil lets the state decide.
	Problem *wire.Problem `cbor:"8,keyasint,omitempty"`
	// Doubtful says that the agent made the order before the state was replaced by that
	// of a backup, which does not know it: it may have been placed then.
	Doubtful bool `cbor:"9,keyasint,omitempty"`
}

// SyncOutcome is where an agent stands after a SyncAgent.
type SyncOutcome struct {
	Revision uint64      `cbor:"1,keyasint,omitempty"`
	Event    uint64      `cbor:"2,keyasint,omitempty"`
	ResyncID string      `cbor:"3,keyasint,omitempty"` // asks for a full inventory
	Digest   wire.Digest `cbor:"4,keyasint"`           // of the stored rows
	// Orders has one entry for each order of the command.
	Orders []OrderOutcome `cbor:"5,keyasint,omitempty"`
}

// OrderOutcome is where one order stands.
type OrderOutcome struct {
	ID      string        `cbor:"1,keyasint"`
	State   OrderState    `cbor:"2,keyasint"` // "" if it was not stored
	Problem *wire.Problem `cbor:"3,keyasint,omitempty"`
}

// TouchAgents records when agents were last heard of. Times only move forward;
// unknown agents are passed over.
type TouchAgents struct {
	Seen []Seen `cbor:"1,keyasint"`
}

// Seen is one agent's last sign of life.
type Seen struct {
	Agent string    `cbor:"1,keyasint"`
	At    time.Time `cbor:"2,keyasint"`
}

// CompleteOrder stores the certificate of a requested order. The first outcome
// of an order wins; a later one changes nothing. The outcome is an
// OrderOutcome. An unknown order gives CodeNotFound.
type CompleteOrder struct {
	Agent       string    `cbor:"1,keyasint"`
	ID          string    `cbor:"2,keyasint"`
	ChainPEM    string    `cbor:"3,keyasint"`
	Serial      string    `cbor:"4,keyasint"`
	Fingerprint string    `cbor:"5,keyasint"`
	NotAfter    time.Time `cbor:"6,keyasint"`
	// Signer is the key id of the issuing CA of the built-in CA that signed it,
	// lower-case hex.
	Signer string `cbor:"20,keyasint,omitempty"`
}

// RejectOrder ends a requested order without a certificate. Rules and outcome
// are those of CompleteOrder.
type RejectOrder struct {
	Agent   string       `cbor:"1,keyasint"`
	ID      string       `cbor:"2,keyasint"`
	Problem wire.Problem `cbor:"3,keyasint"`
}

// CreateAPIToken stores a new API token. An id or hash that exists gives
// CodeConflict.
type CreateAPIToken struct {
	Actor     string    `cbor:"1,keyasint,omitempty"`
	ID        string    `cbor:"2,keyasint"`
	Name      string    `cbor:"3,keyasint"`
	Hash      [32]byte  `cbor:"4,keyasint"`
	Role      Role      `cbor:"5,keyasint"`
	ExpiresAt time.Time `cbor:"6,keyasint"` // zero never expires
	// Scope and FixedExpiry are of version 2.
	Scope       Scope `cbor:"7,keyasint,omitempty"`
	FixedExpiry bool  `cbor:"8,keyasint,omitempty"`
}

// RotateAPIToken gives an API token another secret. The earlier one stays good up to a
// moment. A token with an end gets as long as it had from its making, or its last
// rotation, up to that, unless its end is fixed. The secret that it has already changes
// nothing.
//
// Codes: CodeNotFound, CodeConflict.
type RotateAPIToken struct {
	Actor string   `cbor:"1,keyasint,omitempty"`
	ID    string   `cbor:"2,keyasint"`
	Hash  [32]byte `cbor:"3,keyasint"` // of the new secret
	// Until is up to when the earlier secret stays good; one that has passed ends it at
	// once.
	Until time.Time `cbor:"4,keyasint"`
}

// RevokeAPIToken ends an API token. Ending it again changes nothing; an unknown
// id gives CodeNotFound.
type RevokeAPIToken struct {
	Actor string `cbor:"1,keyasint,omitempty"`
	ID    string `cbor:"2,keyasint"`
}

// version is the lowest that has what the sync says, so that nodes of before go on
// while there are any.
func (p SyncAgent) version() uint8 {
	if slices.ContainsFunc(p.Events, func(e wire.Event) bool { return e.Issuer != "" || e.Reason != "" }) {
		return 6
	}
	if slices.ContainsFunc(p.Orders, func(o OrderPlacement) bool { return o.Doubtful }) {
		return 5
	}
	return 4
}

// version is 1 for a token that nodes of before know to limit as it says.
func (p CreateAPIToken) version() uint8 {
	if !p.Scope.IsZero() || p.FixedExpiry {
		return 2
	}
	return 1
}

func (InitCA) commandType() Type                { return TypeInitCA }
func (CreateEnrollmentToken) commandType() Type { return TypeCreateEnrollmentToken }
func (RevokeEnrollmentToken) commandType() Type { return TypeRevokeEnrollmentToken }
func (EnrollAgent) commandType() Type           { return TypeEnrollAgent }
func (SetPendingIdentity) commandType() Type    { return TypeSetPendingIdentity }
func (PromoteIdentity) commandType() Type       { return TypePromoteIdentity }
func (RetireAgent) commandType() Type           { return TypeRetireAgent }
func (SyncAgent) commandType() Type             { return TypeSyncAgent }
func (TouchAgents) commandType() Type           { return TypeTouchAgents }
func (CompleteOrder) commandType() Type         { return TypeCompleteOrder }
func (RejectOrder) commandType() Type           { return TypeRejectOrder }
func (CreateAPIToken) commandType() Type        { return TypeCreateAPIToken }
func (RevokeAPIToken) commandType() Type        { return TypeRevokeAPIToken }
func (RotateAPIToken) commandType() Type        { return TypeRotateAPIToken }
