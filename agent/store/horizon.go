package store

import (
	"time"

	"github.com/certctl/certctl/shared/wire"
)

// Horizon is the offline horizon of one certificate: the moment when an expired
// certificate would be served for it if the coordinator, every CA and the
// network were gone from now on. It is zero when nobody can say so, because
// nothing is in service, or at one of its deployments nothing is: that is not
// safe now.
//
// Each deployment counts with what it serves now, which may be an older pair
// than the current one, or with a newer pair that is on this host and will be
// put there: deploying needs no network. A pair that its deployment refused is
// not counted on.
//
// A certificate that is revoked ends when it was revoked, which is past.
func (c *Certificate) Horizon() time.Time {
	until, everywhere := c.Served()
	if !everywhere {
		return time.Time{}
	}
	return until
}

// serviceEnd is the first expiry of anything that is served for this
// certificate, for the horizon of the host: a place where nothing is served
// serves nothing expired, and counts with the current pair, which it is to get.
// It is zero if there is no certificate.
func (c *Certificate) serviceEnd() time.Time {
	until, _ := c.Served()
	return until
}

// Served returns the first expiry among what the deployments serve, or will
// serve without help from outside, and whether each of them serves something
// now. The expiry is zero if there is no certificate.
func (c *Certificate) Served() (until time.Time, everywhere bool) {
	everywhere = c.Current != nil || len(c.Deployments) > 0
	earlier := func(at time.Time) {
		if !at.IsZero() && (until.IsZero() || at.Before(until)) {
			until = at
		}
	}
	if len(c.Deployments) == 0 {
		// The pair stays in the state directory, and changes with the record.
		earlier(c.toCome(Deployment{}))
	}
	for _, d := range c.Deployments {
		at := c.servedThere(d)
		if at.IsZero() {
			everywhere = false
			if c.Current != nil {
				at = c.Current.End()
			}
		} else if next := c.toCome(d); next.After(at) {
			at = next
		}
		earlier(at)
	}
	return until, everywhere
}

// servedThere is the expiry of what a deployment serves; zero if it is nothing.
func (c *Certificate) servedThere(d Deployment) time.Time {
	if d.Fingerprint == "" || d.Outcome == wire.DeploymentBroken {
		return time.Time{}
	}
	end := d.NotAfter
	for _, g := range []*Generation{c.Current, c.Next, c.Previous} {
		if g != nil && g.Fingerprint == d.Fingerprint {
			end = g.End()
		}
	}
	if !d.RevokedAt.IsZero() && d.RevokedAt.Before(end) {
		return d.RevokedAt
	}
	return end
}

// toCome is the expiry of the newest pair that a deployment will be given
// without help from outside; zero if there is none, or the place refused what it
// was given last.
func (c *Certificate) toCome(d Deployment) time.Time {
	switch {
	case d.Outcome == wire.DeploymentFailed || d.Outcome == wire.DeploymentBroken:
		return time.Time{}
	case c.Phase == PhaseIssued && c.Next != nil:
		return c.Next.End()
	case c.Current != nil:
		return c.Current.End()
	}
	return time.Time{}
}
