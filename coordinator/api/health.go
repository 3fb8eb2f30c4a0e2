package api

import (
	"fmt"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/shared/wire"
)

// judge is the worst that is known about a certificate at a time, and why, for
// a person.
//
// What was bad when the agent was last heard of counts as bad until the agent
// says otherwise: a host that is cut off may have renewed meanwhile, but nobody
// here knows. What was well then is unknown now. So nothing that has expired or
// is not in service is ever called well.
func judge(c *wire.Summary, agent contact, now *health.Clock) (resource.Health, string) {
	known, reason := health.LastKnown(c, now)
	if !agent.cutOff {
		return known, reason
	}
	since := fmt.Sprintf("its agent is cut off since %s", agent.seen.UTC().Format(time.RFC3339))
	if known.Well() {
		return resource.HealthUnknown, since + "; then it was " + reason
	}
	return known, reason + "; " + since + " and may know better"
}
