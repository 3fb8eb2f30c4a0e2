package resource

import "time"

// SyncReport is how the fleet stands, in sums and host by host.
type SyncReport struct {
	Fleet    FleetStanding  `json:"fleet" doc:"All hosts that the request is about, in sums: those with its labels, whatever its other filters leave out of the list."`
	Activity *FleetActivity `json:"activity,omitempty" doc:"What came in from all hosts lately. Absent when the request, or its token, is about some of them: it is not kept by host."`
	Page[HostStanding]
}

// HostStanding is how one host stands.
type HostStanding struct {
	AgentID  string            `json:"agent_id"`
	Hostname string            `json:"hostname"`
	Labels   map[string]string `json:"labels"`
	Risk     string            `json:"risk" enum:"expired,unserved,expiring,cut_off,attention,warned,none" doc:"The worst that is known of the host, in the order of the list. expired: it serves what has expired or was revoked. unserved: a certificate is not in service where it should be. expiring: it is safe for less than a week, and is cut off, or a renewal fails or needs a person. cut_off: it was not heard of for several syncs. attention: something needs a person. warned: it warns of something about itself, or its clock is wrong."`
	Reason   string            `json:"reason,omitempty" doc:"What is the matter, the worst first; absent if nothing is."`
	Mend     string            `json:"mend,omitempty" doc:"What to do about the worst of it."`

	Connected   bool      `json:"connected" doc:"Whether the host was heard of within the last few syncs."`
	LastSync    time.Time `json:"last_sync,omitzero" doc:"Last sign of life. In lists only of hosts that are cut off: while they are connected it is of the last few syncs."`
	SyncDue     time.Time `json:"sync_due,omitzero" doc:"When the next sign of life was due, at the present pace. The host lags by what has passed since."`
	CutOffSince time.Time `json:"cut_off_since,omitzero" doc:"Last sign of life of a host that is not connected."`

	SafeUntil time.Time `json:"safe_until,omitzero" doc:"Offline horizon: when the first expired certificate would be served if the coordinator, every CA and the network were gone from the last report on. It is past when one is served already, and absent when the host serves no certificate, or not_safe makes any later moment untrue."`
	NotSafe   int       `json:"not_safe" doc:"Certificates of the host that were not safe at the last report: expired, revoked, or not in service at one of their deployments."`

	Certificates     int               `json:"certificates" doc:"Managed certificates of the host."`
	NextExpiry       time.Time         `json:"next_expiry,omitzero" doc:"When the first of them expires that has not yet."`
	NeedingAttention int               `json:"needing_attention" doc:"Those of them for which a person has to act."`
	Health           HealthCounts      `json:"health" doc:"Those of them by health."`
	States           CertificateStates `json:"states" doc:"Those of them by what the host is about with them."`
	Deployments      DeploymentStates  `json:"deployments" doc:"Their deployments by how the last one to each target ended."`

	FactsDropped     uint64   `json:"facts_dropped" doc:"Facts that a full outbox on the host merged or dropped, since the agent's store was created."`
	ClockSkewSeconds int64    `json:"clock_skew_seconds" doc:"How far the host's clock is ahead of the true time; negative when it is behind. Below half a minute it is not reported."`
	IdentityShared   bool     `json:"identity_shared" doc:"Whether two hosts use the agent's identity."`
	Warnings         []string `json:"warnings" nullable:"false" doc:"Findings about the host itself that a person has to look at."`
	Version          string   `json:"version" doc:"Of the agent's program."`
	OS               string   `json:"os"`
	Arch             string   `json:"arch"`
}

// HostReport is how one host stands, and what it did lately.
type HostReport struct {
	HostStanding
	LagSeconds int64        `json:"lag_seconds" doc:"How long its next sign of life has been due; 0 if it is not due yet."`
	Activity   HostActivity `json:"activity" doc:"What the host did within the last seven days, as far as the journal of the node that answers tells."`
}

// HostActivity is what one host did within a time.
type HostActivity struct {
	Renewed        uint64 `json:"renewed" doc:"Certificates that were put into service, first ones too."`
	RenewedOffline uint64 `json:"renewed_offline" doc:"Those of them that were heard of only later, because the host was cut off."`
	Failed         uint64 `json:"failed" doc:"Failures that the host told of. One certificate may fail many times."`
	Partial        bool   `json:"partial" doc:"The journal has more of that time than was looked through."`
}

// FleetActivity is what came in lately, by days of UTC.
type FleetActivity struct {
	Today     DayActivity `json:"today" doc:"Since midnight, some 15 minutes old."`
	Yesterday DayActivity `json:"yesterday"`
	Week      DayActivity `json:"last_7_days" doc:"Today, and the six days before."`
}

// CertificateStates counts certificates by what their hosts are about with them.
type CertificateStates struct {
	Pending  int `json:"pending" doc:"None yet, and none being obtained."`
	Renewing int `json:"renewing"`
	Valid    int `json:"valid" doc:"Waiting for the renewal. It may have expired all the same: health tells."`
	Failed   int `json:"failed" doc:"The last attempt failed, and another one is scheduled."`
	Other    int `json:"other" doc:"States that this version does not know."`
}

// DeploymentStates counts deployments by how the last one to each target ended.
type DeploymentStates struct {
	Verified   int `json:"verified" doc:"What the target serves, or reads, was looked at."`
	Unverified int `json:"unverified" doc:"Deployed, and there is nothing to verify it with."`
	Pending    int `json:"pending" doc:"Not done yet."`
	Failed     int `json:"failed" doc:"Not done, or taken back: what was there before is in service."`
	Broken     int `json:"broken" doc:"Failed, and what was there before could not be put back."`
}

// FleetStanding is how hosts stand in sums.
type FleetStanding struct {
	Hosts       int       `json:"hosts" doc:"Active hosts."`
	Connected   int       `json:"connected"`
	CutOff      int       `json:"cut_off"`
	CutOffSince time.Time `json:"cut_off_since,omitzero" doc:"Last sign of life of the host that is cut off for longest."`
	AtRisk      int       `json:"at_risk" doc:"Hosts with any risk."`
	Risks       HostRisks `json:"risks" doc:"Hosts by risk."`

	SafeUntil    time.Time `json:"safe_until,omitzero" doc:"The earliest offline horizon of any host. Absent when none serves a certificate, or not_safe makes any later moment untrue."`
	NotSafe      int       `json:"not_safe" doc:"Certificates that were not safe at the last report of their host."`
	NotSafeHosts int       `json:"not_safe_hosts" doc:"Hosts with such a certificate."`

	Certificates     int               `json:"certificates"`
	NextExpiry       time.Time         `json:"next_expiry,omitzero" doc:"When the first certificate expires that has not yet."`
	NeedingAttention int               `json:"needing_attention" doc:"Certificates for which a person has to act."`
	Health           HealthCounts      `json:"health" doc:"Certificates by health."`
	States           CertificateStates `json:"states" doc:"Certificates by what their hosts are about with them."`
	Deployments      DeploymentStates  `json:"deployments" doc:"Deployments by how the last one to each target ended."`
	Expiring         []ExpiringWeek    `json:"expiring" nullable:"false" doc:"Certificates in service by the week in which they expire: this week, of which only what is still to come counts, and the twelve after it."`
	ExpiringLater    int               `json:"expiring_later" doc:"Certificates in service that expire after those weeks."`
	Issuers          []IssuerStanding  `json:"issuers" nullable:"false" doc:"Certificates by issuer, most first: at most 64, the last of which, (other), is all that have no room."`

	FactsDropped          uint64         `json:"facts_dropped" doc:"Facts that full outboxes on hosts merged or dropped, since their stores were created."`
	FactsDroppedHosts     int            `json:"facts_dropped_hosts" doc:"Hosts that did."`
	ClockWrong            int            `json:"clock_wrong" doc:"Hosts whose clock is wrong by more than a minute."`
	WorstClockSkewSeconds int64          `json:"worst_clock_skew_seconds" doc:"The clock that is wrong by most: ahead, or negative when it is behind."`
	Warned                int            `json:"warned" doc:"Hosts that warn of something about themselves."`
	IdentityShared        int            `json:"identity_shared" doc:"Hosts whose identity another host uses too."`
	Versions              []VersionHosts `json:"versions" nullable:"false" doc:"Hosts by the version of their agent, most first: at most 64, the last of which, (other), is all that have no room."`
}

// HostRisks counts hosts by risk.
type HostRisks struct {
	Expired   int `json:"expired"`
	Unserved  int `json:"unserved"`
	Expiring  int `json:"expiring"`
	CutOff    int `json:"cut_off"`
	Attention int `json:"attention"`
	Warned    int `json:"warned"`
	None      int `json:"none"`
}

// ExpiringWeek is how many certificates expire in a week.
type ExpiringWeek struct {
	Week         string `json:"week" example:"2031-05-05" doc:"The Monday on which it begins, by UTC."`
	Certificates int    `json:"certificates"`
}

// IssuerStanding is how the certificates of one issuer stand.
type IssuerStanding struct {
	Issuer       string `json:"issuer" doc:"Its name in the configuration of hosts."`
	Certificates int    `json:"certificates"`
	Troubled     int    `json:"troubled" doc:"Those of them that are expired, revoked, unserved or at risk."`
}

// VersionHosts is how many hosts have a version of the agent.
type VersionHosts struct {
	Version string `json:"version"`
	Hosts   int    `json:"hosts"`
}

// CSVContentType is that of an answer as CSV (RFC 4180).
const CSVContentType = "text/csv"
