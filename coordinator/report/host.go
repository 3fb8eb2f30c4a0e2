package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
)

// Risk is the worst that is known of a host.
type Risk string

// Risks, the worst first: this is the order of the report.
const (
	// RiskExpired hosts serve what has expired or was revoked, as they reported last, or
	// as follows from that by the clock.
	RiskExpired Risk = "expired"
	// RiskUnserved hosts have a certificate that is not in service where it should be.
	RiskUnserved Risk = "unserved"
	// RiskExpiring hosts will serve an expired certificate within a week if nothing
	// changes, and something has to: they are cut off, or a renewal fails.
	RiskExpiring Risk = "expiring"
	// RiskCutOff hosts have not been heard of. They go on by themselves, and nobody sees it.
	RiskCutOff Risk = "cut_off"
	// RiskAttention hosts have something that a person has to act upon: certificates, or
	// their identity, which another host uses too.
	RiskAttention Risk = "attention"
	// RiskWarned hosts warn of something about themselves, or their clock is wrong.
	RiskWarned Risk = "warned"
	RiskNone   Risk = "none"
)

// Risks lists all, the worst first.
var Risks = []Risk{RiskExpired, RiskUnserved, RiskExpiring, RiskCutOff, RiskAttention, RiskWarned, RiskNone}

// near is how soon the horizon of a host is that is not to be relied on.
const near = week

// WrongClock is from when on a clock that is ahead or behind is spoken of.
const WrongClock = time.Minute

// Host is how one active host stands. It is shared, and must not be changed.
type Host struct {
	Agent *fleet.Agent
	// Seen is its last sign of life as far as it is known, Due when the next one should
	// have come, and CutOff whether so many are missing that it is out of reach.
	Seen, Due time.Time
	CutOff    bool

	Certificates *Certificates // as last reported
	Issuers      []Issued

	Risk Risk
	// RiskAt orders hosts of one risk, the earliest first: since when something expired
	// is served, when that will be, or since when the host is cut off. Zero comes last.
	RiskAt time.Time
	// Shared says that two hosts use this one's identity.
	Shared bool
}

// Issued is how many certificates of an issuer there are, and how many of them are in
// trouble: expired, revoked, not in service, or not renewed when they should be.
type Issued struct {
	Issuer   string // its name in the configuration of agents
	Total    int
	Troubled int
}

// ClockWrong reports whether the host's clock is so wrong that it has to be set.
func (h *Host) ClockWrong() bool {
	skew := h.Agent.Host.ClockSkewSeconds
	return skew > int64(WrongClock/time.Second) || skew < -int64(WrongClock/time.Second)
}

// judge finds the host's risk.
func (h *Host) judge(at *health.Clock) {
	host, certs := &h.Agent.Host, h.Certificates
	until := time.Time{}
	if host.SafeUntil != nil {
		until = *host.SafeUntil
	}
	h.Shared = !h.Agent.SharedAt.IsZero() && !at.Reached(h.Agent.SharedUntil())
	over := !until.IsZero() && at.Reached(until)
	needy := certs.Health.AtRisk > 0 || certs.NeedingAttention > 0
	h.RiskAt = until
	switch {
	case over || certs.Health.Expired+certs.Health.Revoked > 0:
		h.Risk, h.RiskAt = RiskExpired, certs.EndedAt
		if over {
			h.RiskAt = earlier(until, certs.EndedAt)
		}
	case host.NotSafe > 0 || certs.Health.Unserved > 0:
		h.Risk = RiskUnserved
	case (h.CutOff || needy) && !until.IsZero() && at.Reached(until.Add(-near)):
		h.Risk = RiskExpiring
	case h.CutOff:
		h.Risk, h.RiskAt = RiskCutOff, h.Seen
	case needy || h.Shared:
		h.Risk = RiskAttention
	case len(host.Warnings) > 0 || h.ClockWrong():
		h.Risk = RiskWarned
	default:
		h.Risk = RiskNone
	}
}

// Reason says what is the matter with the host, the worst first; "" if nothing is.
// Moments are not in it.
func (h *Host) Reason() string {
	host, c := &h.Agent.Host, &h.Certificates.Health
	var parts []string
	say := func(n int, one, several string) {
		switch {
		case n == 1:
			parts = append(parts, "1 "+one)
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", n, several))
		}
	}
	say(c.Expired, "certificate expired", "certificates expired")
	say(c.Revoked, "certificate revoked", "certificates revoked")
	if h.Risk == RiskExpired && c.Expired+c.Revoked == 0 {
		parts = append(parts, "the horizon has passed")
	}
	say(max(c.Unserved, host.NotSafe-c.Expired-c.Revoked), "not in service", "not in service")
	if h.CutOff {
		parts = append(parts, "cut off")
	}
	say(c.AtRisk, "at risk", "at risk")
	say(h.Certificates.NeedingAttention, "needs a person", "need a person")
	if h.Shared {
		parts = append(parts, "another host uses its identity")
	}
	say(len(host.Warnings), "warning", "warnings")
	if h.ClockWrong() {
		parts = append(parts, "its clock is wrong")
	}
	return strings.Join(parts, ", ")
}

// Mend says what to do about the host's risk; "" if nothing is to be done.
func (h *Host) Mend() string {
	certificates := `"certctl certificates list --agent ` + h.Agent.ID + `" says which, and why`
	switch h.Risk {
	case RiskExpired, RiskUnserved, RiskExpiring:
		if h.CutOff {
			return "get the host back in touch: see on it to its agent and network with \"certctl-agent status\"; " + certificates
		}
		return certificates
	case RiskCutOff:
		return `see on the host whether its agent runs, with "certctl-agent status"; if the host is gone for good, "certctl agents retire ` + h.Agent.ID + `"`
	case RiskAttention:
		if h.Shared {
			return `enrol the copy anew with "certctl-agent enroll --replace"; if the identity was stolen, retire the agent and enrol its host anew`
		}
		return certificates
	case RiskWarned:
		if len(h.Agent.Host.Warnings) == 0 {
			return "set the host's clock, and see to its time service"
		}
		return `"certctl agents show ` + h.Agent.ID + `" has what it warns of`
	}
	return ""
}

// Known is what is known of the host's certificates now: of those that were well when a
// host that is cut off was last heard of, nobody knows.
func (h *Host) Known() Certificates {
	known := *h.Certificates
	if h.CutOff {
		known.Health = unheard(known.Health)
	}
	return known
}
