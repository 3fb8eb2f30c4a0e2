package wire

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Limits of what the centre wants of one agent.
const (
	MaxAssignments       = 1000
	MaxAssignmentBytes   = 64 << 10
	MaxCommands          = 100 // open at one agent, and reported in one request
	maxDesiredDigestText = 64
)

// Desired is what the centre wants of one agent beyond its own configuration.
// The coordinator sends it whole, and only when Digest differs from the one in
// the request; the agent keeps it on disk and goes by it while it is cut off.
type Desired struct {
	// Digest names this state: an opaque text of the coordinator's, at most 64
	// octets, equal for equal contents on every node.
	Digest      string       `json:"digest"`
	Assignments []Assignment `json:"assignments,omitempty"` // ordered by name, names unique
}

// Assignment is a managed certificate that was defined centrally and whose label
// selector matches the agent.
type Assignment struct {
	// Name is the managed certificate's name on the host. A certificate of the
	// same name in the host's own configuration wins.
	Name string `json:"name"`
	// Revision grows with each change of the definition.
	Revision uint64 `json:"revision"`
	// Certificate is the definition: one entry of the agent configuration's
	// list certificates, in JSON and without its name, with placeholders filled
	// in. The agent parses it as strictly as its own file.
	Certificate json.RawMessage `json:"certificate"`
}

// AssignmentState is what an agent made of an assignment.
type AssignmentState string

// States of an assignment at an agent.
const (
	AssignmentActive   AssignmentState = "active"   // managed; its row says how it goes
	AssignmentShadowed AssignmentState = "shadowed" // the host's own configuration has the name
	AssignmentRefused  AssignmentState = "refused"  // the host's rules or names do not allow it, or it cannot be parsed
)

// AssignmentReport is an agent's answer to one assignment.
type AssignmentReport struct {
	Name     string          `json:"name"`
	Revision uint64          `json:"revision"`
	State    AssignmentState `json:"state"`
	Detail   string          `json:"detail,omitempty"` // why it is not active, with the mend
}

// CommandKind is what a command asks for.
type CommandKind string

// Kinds of commands. An agent refuses a kind that it does not know.
const (
	CommandRenew  CommandKind = "renew"  // replace the pair in service with a new key
	CommandRevoke CommandKind = "revoke" // revoke the certificate at its issuer, and replace it
)

// Command asks an agent for one act. It is repeated in every answer until its
// result has arrived; the agent carries it out once, whatever crashes.
type Command struct {
	ID          string      `json:"id"` // 8 to 64 letters, digits, - or _
	Kind        CommandKind `json:"kind"`
	Certificate string      `json:"certificate"` // its name on the host
	// Serial, lower-case hex, binds the command to the certificate that it was
	// meant for: with another one in service it is done already. Empty means
	// whatever is in service when the command is carried out.
	Serial string `json:"serial,omitempty"`
	// Reason is the CRLReason of a revocation (RFC 5280, section 5.3.1).
	Reason int `json:"reason,omitempty"`
	// RevokedAt, of a renewal, is when the authority revoked the certificate with
	// this Serial, for Reason: the host is to hold it for revoked. Zero if it is
	// not. An agent that does not know of it renews all the same.
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	// NotBefore is when the act may begin. It spreads a mass renewal.
	NotBefore time.Time `json:"not_before,omitzero"`
}

// CommandState is how far an agent is with a command.
type CommandState string

// States of a command at an agent. All but accepted are final.
const (
	CommandAccepted CommandState = "accepted" // stored on the host; it survives a restart
	CommandDone     CommandState = "done"
	CommandFailed   CommandState = "failed"
	CommandRefused  CommandState = "refused" // unknown kind or certificate
)

// Final reports whether the command will not change any more.
func (s CommandState) Final() bool {
	return s == CommandDone || s == CommandFailed || s == CommandRefused
}

// CommandResult is an agent's answer to a command, repeated until the coordinator
// no longer sends the command.
type CommandResult struct {
	ID     string       `json:"id"`
	State  CommandState `json:"state"`
	Detail string       `json:"detail,omitempty"`
	At     time.Time    `json:"at"`
}

// validateDesired checks what an agent says about assignments and commands.
func (r *SyncRequest) validateDesired() *Problem {
	switch {
	case len(r.DesiredDigest) > maxDesiredDigestText:
		return invalid("desired_digest", fmt.Sprintf("expected at most %d bytes", maxDesiredDigestText), "")
	case len(r.Assignments) > MaxAssignments:
		return invalid("assignments", fmt.Sprintf("%d reports; expected at most %d", len(r.Assignments), MaxAssignments), "")
	case len(r.Commands) > MaxCommands:
		return invalid("commands", fmt.Sprintf("%d results; expected at most %d", len(r.Commands), MaxCommands), "send the rest with the next sync")
	}
	for i, a := range r.Assignments {
		field := fmt.Sprintf("assignments[%d]", i)
		switch {
		case !ValidName(a.Name):
			return invalid(field+".name", "expected the name of an assignment", "")
		case a.State != AssignmentActive && a.State != AssignmentShadowed && a.State != AssignmentRefused:
			return invalid(field+".state", "expected active, shadowed or refused", "")
		case len(a.Detail) > MaxTextLen:
			return invalid(field+".detail", fmt.Sprintf("expected at most %d bytes of text", MaxTextLen), "")
		}
	}
	for i, c := range r.Commands {
		field := fmt.Sprintf("commands[%d]", i)
		switch {
		case !validID(c.ID):
			return invalid(field+".id", "expected the id of a command", "")
		case c.State != CommandAccepted && c.State != CommandDone && c.State != CommandFailed && c.State != CommandRefused:
			return invalid(field+".state", "expected accepted, done, failed or refused", "")
		case len(c.Detail) > MaxTextLen:
			return invalid(field+".detail", fmt.Sprintf("expected at most %d bytes of text", MaxTextLen), "")
		case !validTime(c.At):
			return invalid(field+".at", timeExpected, "")
		}
	}
	return nil
}

// Validate checks what the centre wants before the agent stores it, so that a
// coordinator of another version cannot put anything on disk that this one
// cannot read back.
func (d *Desired) Validate() *Problem {
	if d.Digest == "" || len(d.Digest) > maxDesiredDigestText || len(d.Assignments) > MaxAssignments {
		return invalid("desired", fmt.Sprintf("expected a digest and at most %d assignments", MaxAssignments), "upgrade the agent")
	}
	last := ""
	for i, a := range d.Assignments {
		field := fmt.Sprintf("desired.assignments[%d]", i)
		if !ValidName(a.Name) || a.Name <= last && i > 0 {
			return invalid(field+".name", "expected growing names", "")
		}
		if len(a.Certificate) == 0 || len(a.Certificate) > MaxAssignmentBytes {
			return &Problem{
				Title: "Assignment too large", Status: http.StatusBadRequest, Code: CodeInvalid, Field: field + ".certificate",
				Detail: fmt.Sprintf("%d bytes; expected 1 to %d", len(a.Certificate), MaxAssignmentBytes),
			}
		}
		last = a.Name
	}
	return nil
}

// ValidCommandID reports whether a command of that id can be answered.
func ValidCommandID(id string) bool { return validID(id) }

// Validate checks the shape of a command. A kind that is not known is no error
// here: the agent answers it with CommandRefused.
func (c *Command) Validate() *Problem {
	switch {
	case !validID(c.ID):
		return invalid("commands.id", "expected an id of 8 to 64 letters, digits, - or _", "")
	case !ValidName(c.Certificate):
		return invalid("commands.certificate", "expected the name of a managed certificate", "")
	case len(c.Serial) > MaxNameLen || len(c.Kind) > MaxNameLen || c.Reason < 0 || c.Reason > 10:
		return invalid("commands", "expected a short kind and serial, and a reason from 0 to 10", "")
	case !c.RevokedAt.IsZero() && (c.Serial == "" || !validTime(c.RevokedAt)):
		return invalid("commands.revoked_at", "expected a serial, and a time in the years 1 to 9999, in UTC", "")
	case !validTime(c.NotBefore):
		return invalid("commands.not_before", timeExpected, "")
	}
	return nil
}
