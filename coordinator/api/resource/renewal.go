package resource

import "time"

// Command is one act that a host was asked for.
type Command struct {
	ID          string    `json:"id"`
	AgentID     string    `json:"agent_id"`
	Kind        string    `json:"kind" enum:"renew,revoke"`
	Certificate string    `json:"certificate" doc:"Its name on the host."`
	Serial      string    `json:"serial,omitempty" doc:"The certificate that it was meant for; with another one in service it is done already."`
	State       string    `json:"state" enum:"open,accepted,done,failed,refused,cancelled"`
	Detail      string    `json:"detail,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	CreatedBy   string    `json:"created_by,omitempty"`
	DoneAt      time.Time `json:"done_at,omitzero"`
}

// RevokeCertificate asks for a certificate to be revoked.
type RevokeCertificate struct {
	AgentID     string `json:"agent_id,omitempty" maxLength:"128" doc:"With certificate: the certificate in service there."`
	Certificate string `json:"certificate,omitempty" maxLength:"128" doc:"Its name on the host."`
	Serial      string `json:"serial,omitempty" maxLength:"128" doc:"Serial number in hex, instead of agent_id and certificate. With them: the number that it had when it was looked at; one that has come in its place is not revoked."`
	Reason      string `json:"reason" enum:"unspecified,keyCompromise,cACompromise,affiliationChanged,superseded,cessationOfOperation,privilegeWithdrawn" doc:"CRLReason of RFC 5280, section 5.3.1."`
}

// RevokedCertificate is what became of the wish.
type RevokedCertificate struct {
	DryRun      bool   `json:"dry_run,omitempty" doc:"Nothing was revoked."`
	Serial      string `json:"serial"`
	AgentID     string `json:"agent_id,omitempty"`
	Certificate string `json:"certificate,omitempty"`
	InService   bool   `json:"in_service" doc:"Whether a host has it in service. If not, there is nothing to replace."`
	Already     bool   `json:"already" doc:"Whether the built-in CA or the authority had revoked it before, or its host had been asked before."`
	// By says who revokes it.
	By      string   `json:"by" enum:"builtin,authority,agent" doc:"builtin: the built-in CA has revoked it. authority: the authority at which the coordinator ordered it has, unless pending is set. agent: its host was asked to revoke it at its issuer."`
	Pending bool     `json:"pending,omitempty" doc:"The authority has taken the request, and decides later, or a person there has to approve it."`
	OrderID string   `json:"order_id,omitempty" doc:"The order at an authority that came to the certificate, with agent_id."`
	Issuer  string   `json:"issuer,omitempty" doc:"The issuer of that order."`
	Command *Command `json:"command,omitempty" doc:"What the host was asked for: to revoke and replace it, or, where somebody else revokes it, to replace it."`
}

// CreateRenewals asks for a mass renewal.
type CreateRenewals struct {
	Selector              string `json:"selector" minLength:"1" maxLength:"1024" example:"env=prod" doc:"Which hosts, by their labels; * is every host."`
	Issuer                string `json:"issuer,omitempty" maxLength:"128" doc:"Only certificates of the issuer with this name."`
	NamePattern           string `json:"name_pattern,omitempty" maxLength:"255" example:"**.shop.example.com" doc:"Only certificates that hold a name of this pattern: a name, *.example.com for one label, **.example.com for any depth and wildcards, =*.example.com for this wildcard, 10.0.0.0/8 for addresses."`
	ExpiringWithinSeconds int64  `json:"expiring_within_seconds,omitempty" minimum:"1" maximum:"315360000" doc:"Only certificates that expire within this time."`
	OverSeconds           int64  `json:"over_seconds,omitempty" minimum:"0" maximum:"2592000" doc:"The window over which the renewals are spread. Absent: at once."`
	Reason                string `json:"reason,omitempty" maxLength:"500" doc:"Why, for the audit trail."`
}

// Renewals is a mass renewal and how far it is.
type Renewals struct {
	ID             string    `json:"id,omitempty" doc:"Absent in a dry run."`
	State          string    `json:"state" enum:"planned,running,cancelled,done,ended" doc:"done: nothing is left to renew. ended: the time for it is over, and something is left."`
	Selector       string    `json:"selector"`
	NarrowedTo     string    `json:"narrowed_to,omitempty" doc:"The scope of the token to which the selector of the request was narrowed, in the answer to that."`
	Issuer         string    `json:"issuer,omitempty"`
	NamePattern    string    `json:"name_pattern,omitempty"`
	ExpiringBefore time.Time `json:"expiring_before,omitzero"`
	OverSeconds    int64     `json:"over_seconds"`
	Reason         string    `json:"reason,omitempty"`
	CreatedAt      time.Time `json:"created_at"`
	CreatedBy      string    `json:"created_by,omitempty"`
	EndsAt         time.Time `json:"ends_at" doc:"When the last certificate has its turn."`
	CancelledAt    time.Time `json:"cancelled_at,omitzero"`
	CancelledBy    string    `json:"cancelled_by,omitempty"`

	Targets   int `json:"targets" doc:"Certificates that it was begun for."`
	Replaced  int `json:"replaced" doc:"Those with another certificate in service since, or gone."`
	Remaining int `json:"remaining" doc:"Those that are still to be renewed."`
	Overdue   int `json:"overdue" doc:"Those of the remaining whose turn has come."`
	CutOff    int `json:"cut_off" doc:"Those of the remaining whose host is cut off."`
	Failed    int `json:"failed" doc:"Those that their hosts could not renew; their ordinary renewal goes on."`

	Failures []Command `json:"failures" nullable:"false" doc:"What failed, at most 100."`

	Hosts        []RenewalsHost `json:"hosts,omitempty" doc:"The hosts with something left, by agent, at most 500. Absent in a list."`
	HostsOmitted int            `json:"hosts_omitted,omitempty" doc:"Hosts beyond those."`
}

// RenewalsHost is what is left of a mass renewal on one host.
type RenewalsHost struct {
	AgentID   string `json:"agent_id"`
	Hostname  string `json:"hostname"`
	Remaining int    `json:"remaining" doc:"Certificates that are still to be renewed."`
	Overdue   int    `json:"overdue" doc:"Those of the remaining whose turn has come."`
	Failed    int    `json:"failed" doc:"Those that the host could not renew."`
	CutOff    bool   `json:"cut_off" doc:"Whether the host is cut off, and is asked when it comes back."`
}
