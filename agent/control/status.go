package control

import (
	"context"
	"errors"
	"time"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/revocation"
	"github.com/certctl/certctl/agent/store"
	agentsync "github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/wire"
)

// ErrUnknownCertificate is what Backend.Renew wraps when no managed certificate
// has that name.
var ErrUnknownCertificate = errors.New("no managed certificate has this name")

// ErrNotNow is what Backend wraps when something is possible again in a moment.
var ErrNotNow = errors.New("not possible just now")

// Backend is the running agent. Its methods are called concurrently and return
// soon after their context is done.
type Backend interface {
	// Status describes the agent now. The result is the caller's own.
	Status(ctx context.Context) (*Status, error)
	// Renew makes the certificate of that name due for renewal at once, and
	// returns when that is stored, not when it is renewed; underWay says that a
	// renewal had begun already. For a name that is not managed the error wraps
	// ErrUnknownCertificate.
	Renew(ctx context.Context, name string) (underWay bool, err error)
	// Reload puts the configuration on disk into effect. An error is about that
	// configuration, and means that everything goes on as it was.
	Reload(ctx context.Context) (*Reload, error)
	// Subjects hands out a copy of what is known of each certificate, for a
	// drill, and stops at the first error of yield.
	Subjects(ctx context.Context, yield func(*renewal.Subject) error) error
	// Enroll exchanges a token for an identity. An error that is, or wraps, a
	// *wire.Problem reaches the client as it is; of others only the text does.
	Enroll(ctx context.Context, request EnrollRequest) (*Enrollment, error)
}

// EnrollRequest asks the agent to enrol. Its token prints itself redacted.
type EnrollRequest struct {
	Servers []string // https URLs of the coordinator's nodes
	Token   wire.EnrollmentToken
	Replace bool // give up the present identity, if there is one
}

// Status is what the agent knows about itself, at one moment.
type Status struct {
	At    time.Time `json:"at"`
	Agent Agent     `json:"agent"`
	// Enrollment is nil while the host is not enrolled.
	Enrollment  *Enrollment `json:"enrollment,omitempty"`
	Coordinator Connection  `json:"coordinator"`
	Clock       Clock       `json:"clock"`
	// SafeUntil is the offline horizon: the moment when the first expired
	// certificate would be served if the coordinator, every CA and the network
	// were gone from now on. It is past when one is served already, and nil when
	// no certificate is in service or one of NotSafe makes any later moment untrue.
	SafeUntil *time.Time `json:"safe_until,omitempty"`
	// NotSafe names the certificates that are not safe now, in order: those that
	// are not in service everywhere, expired or revoked.
	NotSafe      []string      `json:"not_safe,omitempty"`
	Certificates []Certificate `json:"certificates"` // ordered by name
	// Assignments are what this host made of the certificates that the centre
	// defines for it, ordered by name. Active ones are among Certificates.
	Assignments []Assignment `json:"assignments,omitempty"`
	// Removed are kept in case that they come back into the configuration. They
	// are neither renewed nor deployed nor judged.
	Removed []Certificate `json:"removed,omitempty"` // ordered by name
	// Warnings are findings about the host or the agent itself that a person
	// has to look at, each one line with its mend.
	Warnings []string `json:"warnings,omitempty"`
}

// Where a certificate is defined.
const (
	SourceLocal    = "local"    // in this host's configuration
	SourceAssigned = "assigned" // at the centre
)

// Assignment is what this host made of one assignment.
type Assignment struct {
	Name     string               `json:"name"`
	Revision uint64               `json:"revision"`
	State    wire.AssignmentState `json:"state"`
	Detail   string               `json:"detail,omitempty"` // why it is not active, with the mend
}

// Agent is the running program.
type Agent struct {
	Build      buildinfo.Info `json:"build"`
	Hostname   string         `json:"hostname"`
	PID        int            `json:"pid"`
	StartedAt  time.Time      `json:"started_at"`
	StateDir   string         `json:"state_dir"`
	ConfigFile string         `json:"config_file,omitempty"`
	// ConfiguredAt is when the configuration was put into effect.
	ConfiguredAt time.Time `json:"configured_at,omitzero"`
}

// Enrollment is what the agent is to its coordinator.
type Enrollment struct {
	AgentID string `json:"agent_id"`
	// Replaced is the agent that this host was until it enrolled just now, which the
	// coordinator goes on accepting until somebody retires it.
	Replaced string   `json:"replaced_agent_id,omitempty"`
	Servers  []string `json:"servers"` // as the host was given them
	// Nodes are the nodes of the coordinator's cluster, as it last told them.
	Nodes        []string          `json:"nodes,omitempty"`
	NamePatterns []string          `json:"name_patterns,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	// The identity certificate, which is not one of the managed ones.
	IdentityNotAfter time.Time `json:"identity_not_after,omitzero"`
	IdentityRenewAt  time.Time `json:"identity_renew_at,omitzero"`
	// IdentityProblem is why it cannot be used, with the mend, which only a person
	// can do; "" if it can.
	IdentityProblem string `json:"identity_problem,omitempty"`
}

// ConnectionState is how the agent stands with its coordinator. Being cut off
// is a normal state: renewals at direct issuers go on.
type ConnectionState string

// States of the connection.
const (
	ConnectionNotEnrolled = ConnectionState(agentsync.NotEnrolled)
	ConnectionStarting    = ConnectionState(agentsync.Starting) // no answer in this run yet, and no failure
	ConnectionConnected   = ConnectionState(agentsync.Connected)
	ConnectionCutOff      = ConnectionState(agentsync.CutOff)
	ConnectionUnknown     = ConnectionState(agentsync.Unknown) // the coordinator does not know this identity
	ConnectionRetired     = ConnectionState(agentsync.Retired) // the coordinator no longer wants this agent
)

// Connection is what is known about the coordinator.
type Connection struct {
	State       ConnectionState `json:"state"`
	Server      string          `json:"server,omitempty"` // last one that answered or was tried
	LastSuccess time.Time       `json:"last_success,omitzero"`
	CutOffSince time.Time       `json:"cut_off_since,omitzero"` // first failure since the last success
	LastError   string          `json:"last_error,omitempty"`
	LastErrorAt time.Time       `json:"last_error_at,omitzero"`
	NextSync    time.Time       `json:"next_sync,omitzero"`
	// IdentitySharedAt is when another host last used a copy of this identity;
	// absent when none did for a day.
	IdentitySharedAt time.Time `json:"identity_shared_at,omitzero"`
	// ClockOffsetMillis is the coordinator's clock minus this host's.
	ClockOffsetMillis int64  `json:"clock_offset_millis,omitempty"`
	EventsDropped     uint64 `json:"events_dropped,omitempty"`
}

// Clock is what is known about the time. Everything in a status is by the
// trusted time, which is not that of a wall clock that is wrong.
type Clock struct {
	Wall time.Time `json:"wall"`
	// SkewMillis is the wall clock minus the trusted time.
	SkewMillis int64 `json:"skew_millis"`
	// Basis says where trusted time comes from: wall, observed, held or mark.
	Basis clock.Basis `json:"basis"`
	// Confirmed is false while renewals that are due by the date alone wait for a
	// server to be asked for the time.
	Confirmed bool `json:"confirmed"`
	Disputed  bool `json:"disputed,omitempty"`
	// Warnings say what a person has to look at, each one line with its mend.
	Warnings []string      `json:"warnings,omitempty"`
	Sources  []ClockSource `json:"sources,omitempty"`
}

// ClockSource is a server that told the time.
type ClockSource struct {
	Name string `json:"name"`
	// SkewMillis is the wall clock minus the server's, BoundMillis how far that
	// may be wrong.
	SkewMillis  int64 `json:"skew_millis"`
	BoundMillis int64 `json:"bound_millis"`
	AgeSeconds  int64 `json:"age_seconds"`
}

// ClockOf describes a reading.
func ClockOf(r clock.Reading) Clock {
	c := Clock{Wall: r.Wall, SkewMillis: r.Skew.Milliseconds(), Basis: r.Basis, Confirmed: r.Confirmed, Disputed: r.Disputed, Warnings: r.Warnings()}
	for _, s := range r.Sources {
		c.Sources = append(c.Sources, ClockSource{
			Name: s.Name, SkewMillis: s.Skew.Milliseconds(), BoundMillis: s.Bound.Milliseconds(), AgeSeconds: int64(s.Age / time.Second),
		})
	}
	return c
}

// Certificate is one managed certificate with everything that the agent keeps
// about it, keys excepted.
type Certificate struct {
	Name   string `json:"name"`
	Source string `json:"source,omitempty"` // local or assigned
	wire.Summary
	Phase store.Phase `json:"phase"`
	// Generation is the number of the pair in service, 0 if there is none.
	Generation uint64 `json:"generation,omitempty"`
	// KeyPolicy is rotate or reuse, and KeyMadeAt when the key in service was made.
	KeyPolicy  managed.KeyPolicy `json:"key_policy,omitempty"`
	KeyMadeAt  time.Time         `json:"key_made_at,omitzero"`
	NextAction time.Time         `json:"next_action,omitzero"`
	// WaitsFor is the issuer at which the renewal waits for a turn, and WaitsUntil
	// when that comes as far as is known. It is no failure.
	WaitsFor   string     `json:"waits_for_issuer,omitempty"`
	WaitsUntil time.Time  `json:"waits_until,omitzero"`
	Forced     bool       `json:"forced,omitempty"`
	Suggestion *RenewHint `json:"renewal_info,omitempty"`
	// RevocationCheck is what the last check for revocation came to; nil if there
	// was none in this run of the agent.
	RevocationCheck *revocation.Check `json:"revocation_check,omitempty"`
	// RemovedAt is when it left the configuration, and KeptUntil when what is kept
	// of it is deleted.
	RemovedAt time.Time `json:"removed_at,omitzero"`
	KeptUntil time.Time `json:"kept_until,omitzero"`
}

// StateRemoved is the state of a certificate that left the configuration. It is
// never reported to the coordinator.
const StateRemoved wire.State = "removed"

// RemovedOf describes a certificate that left the configuration. That it is safe
// until some time, or planned to be renewed, is not said of it.
func RemovedOf(r renewal.RemovedCertificate) Certificate {
	c := CertificateOf(r.Record, "")
	c.State, c.RemovedAt, c.KeptUntil = StateRemoved, r.RemovedAt, r.KeptUntil
	c.SafeUntil, c.RenewAt, c.NextAttempt, c.NextAction = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return c
}

// Reload is what a new configuration changed.
type Reload struct {
	Added     []string `json:"added,omitempty"` // certificates
	Removed   []string `json:"removed,omitempty"`
	Changed   []string `json:"changed,omitempty"`
	Unchanged int      `json:"unchanged"`
	// Settings are those that changed beside the certificates.
	Settings []string `json:"settings,omitempty"`
}

// RenewHint is the last suggestion of the authority (RFC 9773).
type RenewHint struct {
	WindowStart    time.Time `json:"window_start"`
	WindowEnd      time.Time `json:"window_end"`
	SelectedAt     time.Time `json:"selected_at"`
	ExplanationURL string    `json:"explanation_url,omitempty"`
}

// CertificateOf describes a record of the store.
func CertificateOf(record *store.Certificate, policy managed.KeyPolicy) Certificate {
	c := Certificate{
		KeyPolicy: policy,
		Name:      record.Name, Summary: record.Summary(), Phase: record.Phase,
		NextAction: record.NextAction, Forced: record.Forced,
	}
	if record.Current != nil {
		c.Generation, c.KeyMadeAt = record.Current.Number, record.Current.KeyMadeAt
	}
	if info := record.RenewalInfo; info != nil && !info.SelectedAt.IsZero() {
		c.Suggestion = &RenewHint{
			WindowStart: info.WindowStart, WindowEnd: info.WindowEnd,
			SelectedAt: info.SelectedAt, ExplanationURL: info.ExplanationURL,
		}
	}
	return c
}

// EnrollmentOf describes an identity; nil stays nil, and so does one whose
// enrolment has not ended yet.
func EnrollmentOf(identity *store.Identity, notAfter time.Time) *Enrollment {
	if identity == nil || identity.AgentID == "" {
		return nil
	}
	return &Enrollment{
		AgentID: identity.AgentID, Servers: identity.Servers, Nodes: identity.Nodes, NamePatterns: identity.NamePatterns, Labels: identity.Labels,
		IdentityNotAfter: notAfter, IdentityRenewAt: identity.RenewAt,
	}
}

// ConnectionOf describes the state of sync at a time; eventsDropped is the
// store's count.
func ConnectionOf(state agentsync.State, eventsDropped uint64, now time.Time) Connection {
	connection := Connection{
		State: ConnectionState(state.Standing), Server: state.Server,
		LastSuccess: state.LastSuccess, CutOffSince: state.CutOffSince,
		LastError: state.LastError, LastErrorAt: state.LastErrorAt, NextSync: state.NextSync,
		ClockOffsetMillis: state.ClockOffset.Milliseconds(), EventsDropped: eventsDropped,
	}
	if state.Shared(now) {
		connection.IdentitySharedAt = state.SharedAt
	}
	return connection
}
