package agentapi

import (
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/wire"
)

// pendingPause is the longest pause of an agent that waits for an order.
const pendingPause = 5 * time.Second

// Period is how often an agent with nothing new syncs at present: the interval
// that is set, or longer if the fleet is too large for the rate that is set.
func (s *Service) Period() time.Duration {
	return period(s.interval, s.rate, s.node.State().View().Rows(fleet.TableAgents))
}

func period(interval time.Duration, rate, agents int) time.Duration {
	needed := time.Duration(agents) * time.Second / time.Duration(rate)
	return min(max(interval, needed), wire.MaxPause)
}

// pause is how long an agent is to wait from now on: until its own place in the
// period, which follows from its id, so that a fleet that came back all at once
// is spread after one round and stays so. It is between a half and one and a
// half of the period.
func pause(agentID string, now time.Time, period time.Duration) time.Duration {
	place := jitter.Spread(agentID, period)
	at := time.Duration(now.UnixNano() % int64(period))
	wait := (place - at + period) % period
	if wait < period/2 {
		wait += period
	}
	return min(max(wait, wire.MinPause), wire.MaxPause)
}
