package report

import (
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/shared/wire"
)

// Weeks is how many weeks expiries are counted by: this one, and those after it.
const Weeks = 13

const day, week = 24 * time.Hour, 7 * 24 * time.Hour

// WeekOf is when the week of a moment began: on Monday, by UTC.
func WeekOf(at time.Time) time.Time {
	at = at.UTC()
	today := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
	return today.AddDate(0, 0, -(int(today.Weekday())+6)%7)
}

// Certificates counts certificates of one host, or of several.
type Certificates struct {
	States           States
	Health           resource.HealthCounts
	NeedingAttention int // a person has to act
	Deployments      Deployments
	Expiring         Expiring
	// NextExpiry is when the first one expires that has not; zero: none does.
	NextExpiry time.Time
	// EndedAt is when the first one expired, or was revoked, of those that are in
	// service all the same; zero: none has.
	EndedAt time.Time
}

// States counts certificates by what their agents are about with them.
type States struct {
	Pending, Renewing, Valid, Failed int
	Other                            int // which this version does not know
}

// Total is all of them.
func (s *States) Total() int { return s.Pending + s.Renewing + s.Valid + s.Failed + s.Other }

// Deployments counts deployments by how the last one to each target ended.
type Deployments struct {
	Verified   int // the target serves, or reads, what was deployed
	Unverified int // deployed; there is nothing to verify it with
	Pending    int // not done yet
	Failed     int // not done, or taken back
	Broken     int // failed, and what was there before could not be put back
}

// Expiring counts certificates in service that have not expired by the week in which they do.
type Expiring struct {
	Weeks [Weeks]int // this one and those after it
	Later int
}

// add counts one certificate.
func (c *Certificates) add(row *fleet.Certificate, summary *wire.Summary, at *health.Clock) resource.Health {
	judged, _ := health.LastKnown(summary, at)
	c.Health.Add(judged)
	c.States.add(summary.State)
	if row.Columns.Attention {
		c.NeedingAttention++
	}
	for _, d := range summary.Deployments {
		c.Deployments.add(d.State)
	}
	switch judged {
	case resource.HealthExpired, resource.HealthRevoked:
		c.EndedAt = earlier(c.EndedAt, endOf(summary, at.Now))
	}
	if summary.Fingerprint != "" && at.Now.Before(summary.NotAfter) {
		at.Note(summary.NotAfter)
		c.NextExpiry = earlier(c.NextExpiry, summary.NotAfter)
		c.Expiring.add(summary.NotAfter, WeekOf(at.Now))
	}
	return judged
}

// endOf is since when a certificate is good for nothing.
func endOf(c *wire.Summary, now time.Time) time.Time {
	var end time.Time
	for _, moment := range []time.Time{c.NotAfter, c.RevokedAt, c.SafeUntil} {
		if !moment.IsZero() && !now.Before(moment) {
			end = earlier(end, moment)
		}
	}
	return end
}

// earlier is the first of two moments; zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (s *States) add(state wire.State) {
	switch state {
	case wire.StatePending:
		s.Pending++
	case wire.StateRenewing:
		s.Renewing++
	case wire.StateValid:
		s.Valid++
	case wire.StateFailed:
		s.Failed++
	default:
		s.Other++
	}
}

func (d *Deployments) add(state wire.DeploymentState) {
	switch state {
	case wire.DeploymentVerified:
		d.Verified++
	case wire.DeploymentUnverified:
		d.Unverified++
	case wire.DeploymentFailed:
		d.Failed++
	case wire.DeploymentBroken:
		d.Broken++
	default: // what is not understood is not done
		d.Pending++
	}
}

func (e *Expiring) add(at, monday time.Time) {
	if i := int(at.Sub(monday) / week); i < Weeks {
		e.Weeks[i]++
		return
	}
	e.Later++
}

// Add counts what another has counted.
func (c *Certificates) Add(o *Certificates) {
	c.States.Pending += o.States.Pending
	c.States.Renewing += o.States.Renewing
	c.States.Valid += o.States.Valid
	c.States.Failed += o.States.Failed
	c.States.Other += o.States.Other
	c.Health.OK += o.Health.OK
	c.Health.Renewing += o.Health.Renewing
	c.Health.Unknown += o.Health.Unknown
	c.Health.AtRisk += o.Health.AtRisk
	c.Health.Unserved += o.Health.Unserved
	c.Health.Revoked += o.Health.Revoked
	c.Health.Expired += o.Health.Expired
	c.NeedingAttention += o.NeedingAttention
	c.Deployments.Verified += o.Deployments.Verified
	c.Deployments.Unverified += o.Deployments.Unverified
	c.Deployments.Pending += o.Deployments.Pending
	c.Deployments.Failed += o.Deployments.Failed
	c.Deployments.Broken += o.Deployments.Broken
	for i, n := range o.Expiring.Weeks {
		c.Expiring.Weeks[i] += n
	}
	c.Expiring.Later += o.Expiring.Later
	c.NextExpiry = earlier(c.NextExpiry, o.NextExpiry)
	c.EndedAt = earlier(c.EndedAt, o.EndedAt)
}

// unheard is what is known of certificates of a host that is cut off: what was well
// may not be any more.
func unheard(c resource.HealthCounts) resource.HealthCounts {
	c.Unknown += c.OK + c.Renewing
	c.OK, c.Renewing = 0, 0
	return c
}
