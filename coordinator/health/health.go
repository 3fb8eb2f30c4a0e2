// Package health judges how certificates and hosts stand: by what agents last
// reported, and by the clock.
package health

import (
	"fmt"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/wire"
)

// lateLife is the last part of a lifetime in which a certificate that should
// have been renewed is at risk, whatever its agent says.
const lateLife = 10 // a tenth

// LastKnown judges a certificate by its agent's report and the clock: the worst
// that is known, and why, for a person. Nothing that has expired or is not in
// service is called well. Whether the agent is still in touch is for the caller to
// say.
func LastKnown(c *wire.Summary, now *Clock) (resource.Health, string) {
	switch {
	case c.Fingerprint == "" && c.State == wire.StateRenewing:
		return resource.HealthUnserved, because("no certificate yet; the first one is being obtained", c)
	case c.Fingerprint == "":
		return resource.HealthUnserved, because("no certificate yet", c)
	case c.NotAfter.IsZero():
		return resource.HealthUnserved, "its agent does not say when it expires"
	case now.Reached(c.NotAfter):
		return resource.HealthExpired, because("expired at "+c.NotAfter.UTC().Format(time.RFC3339), c)
	}
	if !c.RevokedAt.IsZero() {
		return resource.HealthRevoked, because("revoked at "+c.RevokedAt.UTC().Format(time.RFC3339), c)
	}
	if !c.SafeUntil.IsZero() && now.Reached(c.SafeUntil) {
		return resource.HealthExpired, because("an older certificate is served that expired at "+c.SafeUntil.UTC().Format(time.RFC3339), c)
	}
	if where := unserved(c); len(where) > 0 {
		return resource.HealthUnserved, because("not in service at "+strings.Join(where, ", "), c)
	}
	late := c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / lateLife)
	switch {
	case !now.Reached(c.NotBefore):
		return resource.HealthAtRisk, "not valid before " + c.NotBefore.UTC().Format(time.RFC3339) + "; compare the clocks of host, CA and coordinator"
	case now.Passed(late) && now.Passed(c.RenewAt):
		return resource.HealthAtRisk, because("about to expire and not renewed", c)
	case c.NeedsAttention != "":
		return resource.HealthAtRisk, because(inPlace(c)+"; somebody has to act", c)
	case c.State == wire.StateFailed || c.Attempt > 0:
		return resource.HealthAtRisk, because(inPlace(c)+"; its renewal fails and is tried again", c)
	case c.Former:
		return resource.HealthAtRisk, inPlace(c) + "; to be replaced"
	case c.State == wire.StateRenewing:
		return resource.HealthRenewing, because(inService(c)+"; being renewed", c)
	case c.State == wire.StateValid:
		return resource.HealthOK, inService(c)
	}
	// A state that this version does not know, or none that has a certificate.
	return resource.HealthUnknown, fmt.Sprintf("its agent reports the state %q", c.State)
}

// inPlace says what is in service where nobody may take it for well.
func inPlace(c *wire.Summary) string {
	if c.Former {
		return "in service as it was configured before"
	}
	return "in service"
}

// inService says what is known of a certificate that nothing is wrong with. One
// without deployments is put to use by nobody whom its agent could ask.
func inService(c *wire.Summary) string {
	if len(c.Deployments) == 0 {
		return "kept valid on the host; it has no deployments to verify"
	}
	return "in service"
}

// omittedDeployments is the id of the entry by which an agent stands in for the
// deployments that had no room in its report. Its state is the worst of theirs;
// a fingerprint it has none.
const omittedDeployments = "..."

// unserved lists the deployments where the certificate should be in service
// and is not. While a renewal is under way, or has failed and left what was
// there, a deployment may lag behind.
func unserved(c *wire.Summary) []string {
	var where []string
	for _, d := range c.Deployments {
		underWay := c.State == wire.StateRenewing || c.State == wire.StateFailed
		switch {
		case d.State == wire.DeploymentBroken:
			where = append(where, d.ID+" (the previous certificate could not be put back)")
		case d.ID == omittedDeployments && (d.State == wire.DeploymentVerified || d.State == wire.DeploymentUnverified):
			// They all ended well.
		case d.Fingerprint == "":
			where = append(where, d.ID)
		case d.Fingerprint != c.Fingerprint && !underWay:
			where = append(where, d.ID+" (another certificate is)")
		}
	}
	return where
}

// because adds what the agent knows about the reason.
func because(text string, c *wire.Summary) string {
	switch {
	case c.NeedsAttention != "":
		return text + ": " + c.NeedsAttention
	case c.LastError != "" && (c.Attempt > 0 || c.State == wire.StateFailed):
		return text + ": " + c.LastError
	case c.Waiting != "":
		return text + ": " + c.Waiting
	}
	return text
}
