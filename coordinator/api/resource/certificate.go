package resource

import "time"

// Health is the worst that is known about a certificate.
type Health string

// Healths, from good to bad. See the API's page for how one is chosen.
const (
	HealthOK       Health = "ok"       // in service, its renewal is to come
	HealthRenewing Health = "renewing" // in service, being renewed without trouble
	HealthUnknown  Health = "unknown"  // was well when the agent was last heard of; the agent is cut off
	HealthAtRisk   Health = "at_risk"  // in service, but as it was configured before, or it will expire unless somebody acts or a retry succeeds
	HealthUnserved Health = "unserved" // not obtained, or not in service somewhere it should be
	HealthRevoked  Health = "revoked"  // whoever checks refuses it; being replaced
	HealthExpired  Health = "expired"
)

// Healths lists all, from good to bad.
var Healths = []Health{HealthOK, HealthRenewing, HealthUnknown, HealthAtRisk, HealthUnserved, HealthRevoked, HealthExpired}

// Well reports whether nobody has to look.
func (h Health) Well() bool { return h == HealthOK || h == HealthRenewing }

// HealthCounts counts certificates by health.
type HealthCounts struct {
	OK       int `json:"ok"`
	Renewing int `json:"renewing"`
	Unknown  int `json:"unknown"`
	AtRisk   int `json:"at_risk"`
	Unserved int `json:"unserved"`
	Revoked  int `json:"revoked"`
	Expired  int `json:"expired"`
}

// Add counts one certificate.
func (c *HealthCounts) Add(h Health) {
	switch h {
	case HealthOK:
		c.OK++
	case HealthRenewing:
		c.Renewing++
	case HealthAtRisk:
		c.AtRisk++
	case HealthUnserved:
		c.Unserved++
	case HealthRevoked:
		c.Revoked++
	case HealthExpired:
		c.Expired++
	default: // what is not understood is not well
		c.Unknown++
	}
}

// Worst is the worst health that was counted, and ok if none was.
func (c HealthCounts) Worst() Health {
	worst := HealthOK
	for health, n := range map[Health]int{HealthRenewing: c.Renewing, HealthUnknown: c.Unknown, HealthAtRisk: c.AtRisk, HealthUnserved: c.Unserved, HealthRevoked: c.Revoked, HealthExpired: c.Expired} {
		if n > 0 && health.rank() > worst.rank() {
			worst = health
		}
	}
	return worst
}

// Total counts all.
func (c HealthCounts) Total() int {
	return c.OK + c.Renewing + c.Unknown + c.AtRisk + c.Unserved + c.Revoked + c.Expired
}

func (h Health) rank() int {
	for i, other := range Healths {
		if h == other {
			return i
		}
	}
	return -1
}

// Certificate is one managed certificate on one host, as its agent reported it.
type Certificate struct {
	AgentID  string `json:"agent_id"`
	Hostname string `json:"hostname" doc:"Of the agent."`
	Name     string `json:"name" doc:"Its name in the agent's configuration, unique for the agent."`

	Health       Health `json:"health" enum:"ok,renewing,unknown,at_risk,unserved,revoked,expired" doc:"The worst that is known at the time of the answer. It never says that all is well about a certificate that has expired, is revoked or is not in service; unknown is a certificate that was well when its agent, which is cut off, was last heard of."`
	HealthReason string `json:"health_reason" doc:"The health in words."`
	State        string `json:"state" doc:"Where the agent stood with it: pending, renewing, valid or failed. Expiry is no state; see health."`

	Names               []string `json:"names" nullable:"false" doc:"DNS names and IP addresses in the certificate in service; those that are configured while there is none."`
	FormerConfiguration bool     `json:"former_configuration" doc:"Whether the certificate in service is of an earlier configuration of its host, with other names, another key or issuer, and is to be replaced. Its health is at_risk or worse until then. Agents of earlier versions do not say."`

	Issuer       string    `json:"issuer" doc:"Name of the issuer in the agent's configuration."`
	IssuerKind   string    `json:"issuer_kind"`
	IssuerDN     string    `json:"issuer_dn,omitempty"`
	Serial       string    `json:"serial,omitempty"`
	Fingerprint  string    `json:"fingerprint,omitempty"`
	KeyAlgorithm string    `json:"key_algorithm,omitempty"`
	NotBefore    time.Time `json:"not_before,omitzero"`
	NotAfter     time.Time `json:"not_after,omitzero"`
	RenewAt      time.Time `json:"renew_at,omitzero" doc:"When the agent means to renew it."`
	SafeUntil    time.Time `json:"safe_until,omitzero" doc:"Offline horizon: the first expiry of what its deployments serve, or will serve without help from outside. Absent when it is not in service at one of them, which is not safe now."`
	RevokedAt    time.Time `json:"revoked_at,omitzero" doc:"When the certificate in service was revoked; absent while nothing is known of a revocation."`
	Revocation   string    `json:"revocation_reason,omitempty" doc:"Why it was revoked, by the names of RFC 5280, section 5.3.1."`
	Renewals     uint64    `json:"renewals" doc:"Certificates put into service so far."`

	Deployments []Deployment `json:"deployments" nullable:"false"`

	Attempt        int       `json:"attempt" doc:"Failed attempts of the renewal under way."`
	NextAttempt    time.Time `json:"next_attempt,omitzero"`
	LastError      string    `json:"last_error,omitempty"`
	LastErrorAt    time.Time `json:"last_error_at,omitzero"`
	NeedsAttention string    `json:"needs_attention,omitempty" doc:"Why a person has to act; absent when none has to."`

	AgentLastSeen time.Time `json:"agent_last_seen,omitzero" doc:"Last sign of life of the agent: how old the report may be. In lists only where the agent is cut off: else it is of the last few syncs."`
}

// Deployment is the outcome of the last deployment to one target.
type Deployment struct {
	ID          string    `json:"id"`
	State       string    `json:"state" doc:"pending, verified, unverified, failed or broken."`
	Fingerprint string    `json:"fingerprint,omitempty" doc:"Of the certificate that is in service there."`
	At          time.Time `json:"at,omitzero"`
	Detail      string    `json:"detail,omitempty"`
}
