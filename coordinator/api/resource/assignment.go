package resource

import (
	"encoding/json"
	"time"
)

// Assignment is a managed certificate that is defined for all hosts that a
// label selector matches.
type Assignment struct {
	Name        string          `json:"name" doc:"Name of the managed certificate on each host."`
	Selector    string          `json:"selector" doc:"Which hosts have it, by their labels." example:"env=prod,role in (web,api),!legacy"`
	Certificate json.RawMessage `json:"certificate" doc:"The definition, with the keys of an entry of the agent configuration's certificates, but for the name. Names, paths of files, and address and server_name of verify may hold ${hostname} and ${label.KEY}."`
	Revision    uint64          `json:"revision" doc:"Grows by one with each change."`
	CreatedAt   time.Time       `json:"created_at"`
	CreatedBy   string          `json:"created_by"`
	UpdatedAt   time.Time       `json:"updated_at"`
	UpdatedBy   string          `json:"updated_by"`
}

// PutAssignment asks for an assignment to be as it says.
type PutAssignment struct {
	Selector    string          `json:"selector" minLength:"1" maxLength:"1024" example:"env=prod,role in (web,api),!legacy" doc:"Equality (env=prod, env!=prod), sets (role in (web,api), role notin (db)), existence (legacy, !legacy), separated by commas; * alone is every host."`
	Certificate json.RawMessage `json:"certificate" doc:"The definition."`
	// Revision makes the change conditional.
	Revision *uint64 `json:"revision,omitempty" doc:"The revision that the change was made to; 0 for one that is new. With another one stored the request is refused. Absent: whatever is stored is replaced."`
}

// AssignmentResult is what a PutAssignment comes to, or would.
type AssignmentResult struct {
	Assignment Assignment        `json:"assignment"`
	Change     string            `json:"change" enum:"created,changed,unchanged,deleted"`
	DryRun     bool              `json:"dry_run"`
	Hosts      AssignmentChanges `json:"hosts" doc:"What changes on the hosts."`
}

// AssignmentChanges are what an assignment's change does to hosts.
type AssignmentChanges struct {
	Added      int                `json:"added"`
	Changed    int                `json:"changed"`
	Removed    int                `json:"removed" doc:"Hosts on which the certificate is no longer managed. Its files stay."`
	NotAllowed int                `json:"not_allowed" doc:"Hosts that match and do not get it; detail says why."`
	Unchanged  int                `json:"unchanged"`
	HostRules  string             `json:"host_rules" enum:"unknown" doc:"Whether the hosts' own rules (assignments in their configuration) were asked: they never are. A host says that it refuses an assignment only once it has it."`
	Refused    int                `json:"refused" doc:"Hosts, counted above too, that refused by their own rules the revision that is stored now, and are asked to manage this one."`
	Items      []AssignmentChange `json:"items" nullable:"false" doc:"The hosts for which something changes, those that are not allowed, and those that refused, by agent; at most 500."`
	Omitted    int                `json:"omitted" doc:"Hosts beyond those."`
}

// AssignmentChange is what an assignment's change does to one host.
type AssignmentChange struct {
	AgentID  string `json:"agent_id"`
	Hostname string `json:"hostname"`
	Change   string `json:"change" enum:"added,changed,removed,not_allowed,unchanged"`
	Detail   string `json:"detail,omitempty" doc:"Why it is not allowed, or the names on this host."`
	Refused  string `json:"refused,omitempty" doc:"Why the host refused the revision that is stored now, by its own rules."`
	Shadowed bool   `json:"shadowed" doc:"Whether the host said last that its own configuration has a certificate of this name, which wins."`
}

// AssignmentDetail is an assignment with where it stands.
type AssignmentDetail struct {
	Assignment
	Hosts AssignmentStatus `json:"hosts"`
}

// AssignmentCounts are how many hosts of an assignment are in which state.
type AssignmentCounts struct {
	Matched    int `json:"matched" doc:"Active agents that the selector matches."`
	Active     int `json:"active"`
	Shadowed   int `json:"shadowed" doc:"Hosts whose own configuration has a certificate of this name."`
	Refused    int `json:"refused" doc:"Hosts that do not take it."`
	NotAllowed int `json:"not_allowed" doc:"Hosts that it is not sent to."`
	Waiting    int `json:"waiting" doc:"Hosts that have not said yet what they made of this revision."`
}

// AssignmentStatus is where an assignment stands on its hosts.
type AssignmentStatus struct {
	AssignmentCounts
	Items   []AssignmentHost `json:"items" nullable:"false" doc:"The hosts by agent, at most 500; those where it is not active first."`
	Omitted int              `json:"omitted"`
}

// ListedAssignment is an assignment of a list.
type ListedAssignment struct {
	Assignment
	Hosts *AssignmentCounts `json:"hosts,omitempty" doc:"Where it stands on its hosts, if that was asked for."`
}

// AssignmentHost is where an assignment stands on one host.
type AssignmentHost struct {
	AgentID  string    `json:"agent_id"`
	Hostname string    `json:"hostname"`
	State    string    `json:"state" enum:"active,shadowed,refused,not_allowed,waiting"`
	Detail   string    `json:"detail,omitempty" doc:"Why it is not active, with the mend."`
	At       time.Time `json:"at,omitzero" doc:"When the host said so."`
}
