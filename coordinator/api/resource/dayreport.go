package resource

import "time"

// DayReport is what is kept of one day.
type DayReport struct {
	Date     string       `json:"date" doc:"The day, in UTC." example:"2026-01-31"`
	Final    bool         `json:"final" doc:"Whether the day was over when this was counted: it stays so. Without it it is what came in today so far."`
	Standing *DayStanding `json:"standing,omitempty" doc:"How the fleet stood at the day's end. Absent if no leader counted it then: none was there within six hours, or the day is not over."`
	Activity DayActivity  `json:"activity" doc:"What came in on the day. What a host that was cut off did earlier came in when it was back."`
}

// DayStanding is a count of the fleet at the end of a day.
type DayStanding struct {
	CountedAt time.Time `json:"counted_at" doc:"When it was counted: a few minutes after the day's end, or up to six hours if there was no leader."`
	Hosts     uint64    `json:"hosts" doc:"Hosts that are not retired: connected or cut off."`
	Connected uint64    `json:"connected" doc:"Hosts that were heard of within the last few syncs."`
	CutOff    uint64    `json:"cut_off" doc:"Hosts that were not heard of for several syncs."`
	Retired   uint64    `json:"retired" doc:"Hosts that were retired, ever."`
	AtRisk    uint64    `json:"at_risk" doc:"Hosts with any risk; risks has which."`
	Risks     []Counted `json:"risks" nullable:"false" doc:"Hosts by their risk, as in the report of the sync; those with none too. What there is none of is left out."`
	NotSafe   uint64    `json:"not_safe" doc:"Hosts with a certificate that was not safe at their last report: expired, revoked, or not in service at one of its deployments."`
	SafeUntil time.Time `json:"safe_until,omitzero" doc:"Offline horizon: when the first expired certificate would have been served if everything but the hosts had been gone. Absent when no host serves any, or one was not safe."`

	ClockWrong   uint64 `json:"clock_wrong" doc:"Hosts whose clocks were wrong by a minute or more."`
	FactsDropped uint64 `json:"facts_dropped" doc:"What hosts had dropped ever; facts_dropped of the activity is the day's."`

	Certificates        uint64    `json:"certificates" doc:"Managed certificates of hosts that are not retired."`
	Expired             uint64    `json:"expired" doc:"Certificates that had expired, and were in service."`
	NeedingAttention    uint64    `json:"needing_attention" doc:"Certificates for which a person had to act."`
	States              []Counted `json:"states" nullable:"false" doc:"Certificates by what their hosts were about with them."`
	Health              []Counted `json:"health" nullable:"false" doc:"Certificates by health."`
	ExpiringWeeks       []uint64  `json:"expiring_weeks" nullable:"false" doc:"Certificates that were to expire in each week, from Monday by UTC: that of counted_at first."`
	DeploymentsVerified uint64    `json:"deployments_verified" doc:"Deployments of which the target was looked at, and serves or reads what was deployed."`
	DeploymentsFailed   uint64    `json:"deployments_failed" doc:"Deployments that had failed, whether they could be taken back or not."`
	Versions            []Counted `json:"versions" nullable:"false" doc:"Hosts by the version of their agent: the ten that most have, and (other)."`
}

// Counted is how many there are of something.
type Counted struct {
	Name  string `json:"name" doc:"What is counted. In round brackets it is no name: (other) is all that are not listed, (unknown) what was not told."`
	Count uint64 `json:"count" doc:"How many there are."`
}

// DayActivity is what came in on a day, or on several.
type DayActivity struct {
	Partial        bool             `json:"partial" doc:"Facts of the day are missing: the journals had dropped them, or never had them."`
	Renewed        uint64           `json:"renewed" doc:"Certificates that were put into service, first ones too."`
	RenewedOffline uint64           `json:"renewed_offline" doc:"Those of them that the host had done by itself while it was cut off."`
	Failed         uint64           `json:"failed" doc:"Failures that hosts told of. One certificate may fail many times."`
	FactsDropped   *uint64          `json:"facts_dropped,omitempty" doc:"What hosts could not keep until they were heard of again, since the day before was counted. Absent if that is not known."`
	Issuers        []IssuerActivity `json:"issuers" nullable:"false" doc:"By issuer, the busiest first: 32 of them, and (other). (unknown): not told, and the certificate is gone."`
}

// IssuerActivity is the part of one issuer.
type IssuerActivity struct {
	Issuer         string    `json:"issuer" doc:"Its name in the configuration of hosts."`
	Renewed        uint64    `json:"renewed" doc:"Its certificates that were put into service, first ones too."`
	RenewedOffline uint64    `json:"renewed_offline" doc:"Those of them that the host had done by itself while it was cut off."`
	Failed         uint64    `json:"failed" doc:"Failures that hosts told of."`
	Reasons        []Counted `json:"reasons" nullable:"false" doc:"Its failures by reason, the most frequent first: 16 of them, and (other). unavailable: the network or the authority. limited: the authority takes nothing new for a while. refused: it refuses what is asked for. order_gone: the order came to nothing. pending: it took too long. unknown_outcome: whether it was heard is not known. host: the host's own configuration or environment. re_enrol: the host has to be enrolled again. no_turn: the host's own limits left no time. deployment: what was issued was not put into service. not_in_service: what was in service is not any more. (unknown): not told, by agents of before."`
}
