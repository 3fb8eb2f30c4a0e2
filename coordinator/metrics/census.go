package metrics

import (
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// A census that takes longer than cheap is kept for atLeast, and for
	// costShare times of what it took.
	cheap     = 10 * time.Millisecond
	atLeast   = time.Minute
	costShare = 100
)

// horizonDays are those that hosts are counted for.
var horizonDays = []int{1, 7, 14, 30}

// certificateStates and orderStates are in the order of the output.
var (
	certificateStates = []wire.State{wire.StatePending, wire.StateRenewing, wire.StateValid, wire.StateFailed}
	orderStates       = []fleet.OrderState{fleet.OrderRequested, fleet.OrderIssued, fleet.OrderRejected, fleet.OrderCollected}
)

// census is a count of the fleet.
type census struct {
	at                         time.Time
	connected, cutOff, retired int
	unsafe                     []int // by horizonDays
	notSafe, unserving         int
	notSafeCertificates        int
	atRisk, warned             int
	certificates               map[wire.State]int
	attention, expired         int
	orders                     map[fleet.OrderState]int // at the built-in CA
	brokered                   map[orderGroup]int
	waiting                    map[orderGroup]time.Time
}

// counting keeps the last census.
type counting struct {
	mu       sync.Mutex // held while counting: those who ask meanwhile share the result
	last     *census
	keep     time.Duration // how long last is good, by the monotonic clock
	finished time.Time
}

// get is a census that is recent enough: one that took so long is good as long as
// keep says.
func (c *counting) get(count func() *census, keep func(took time.Duration) time.Duration) *census {
	c.mu.Lock()
	defer c.mu.Unlock()
	began := time.Now()
	if c.last != nil && began.Sub(c.finished) < c.keep {
		return c.last
	}
	c.last = count()
	c.finished = time.Now()
	c.keep = keep(c.finished.Sub(began))
	return c.last
}

// keepFor is how long a census is good that took so long, unless somebody says
// otherwise.
func keepFor(took time.Duration) time.Duration {
	if took <= cheap {
		return 0
	}
	return max(atLeast, costShare*took)
}

// count looks at every agent, certificate and order.
func (e *Exporter) count() *census {
	view, now := e.cfg.Node.State().View(), e.cfg.Now()
	c := &census{
		at: now, unsafe: make([]int, len(horizonDays)),
		certificates: make(map[wire.State]int), orders: make(map[fleet.OrderState]int),
	}
	active := make(map[string]bool, view.Rows(fleet.TableAgents))
	idle := make(map[string]bool) // active, and nothing to serve is known of them
	for agent := range view.AllAgents() {
		if agent.State != fleet.AgentActive {
			c.retired++
			continue
		}
		active[agent.ID] = true
		if e.cfg.CutOff(e.lastSeen(view, agent), now) {
			c.cutOff++
		} else {
			c.connected++
		}
		if len(agent.Host.Warnings) > 0 {
			c.warned++
		}
		c.horizon(&agent.Host, now)
		if agent.Host.SafeUntil == nil {
			idle[agent.ID] = true
		}
	}
	risky := ""
	for row := range view.AllCertificates() {
		if !active[row.Agent] {
			continue
		}
		c.certificates[row.Columns.State]++
		if row.Columns.Fingerprint != "" {
			delete(idle, row.Agent)
		}
		expired := !row.Columns.NotAfter.IsZero() && !now.Before(row.Columns.NotAfter)
		if expired {
			c.expired++
		}
		if row.Columns.Attention {
			c.attention++
		}
		if (expired || row.Columns.Attention) && row.Agent != risky {
			risky = row.Agent // rows come by agent
			c.atRisk++
		}
	}
	c.unserving = len(idle)
	for order := range view.AllOrders() {
		if !order.Brokered() {
			c.orders[order.State]++
		}
	}
	c.brokeredOrders(view)
	return c
}

func (c *census) horizon(host *wire.HostReport, now time.Time) {
	if host.NotSafe > 0 {
		c.notSafe++
		c.notSafeCertificates += host.NotSafe
	}
	for i, days := range horizonDays {
		end := now.Add(time.Duration(days) * 24 * time.Hour)
		if host.NotSafe > 0 || host.SafeUntil != nil && host.SafeUntil.Before(end) {
			c.unsafe[i]++
		}
	}
}

// lastSeen is the last sign of life of an agent: its enrolment is one.
func (e *Exporter) lastSeen(view *fleet.View, agent *fleet.Agent) time.Time {
	seen := agent.EnrolledAt
	if at := view.LastSeen(agent.ID); at.After(seen) {
		seen = at
	}
	if at, ok := e.cfg.Presence.LastSeen(agent.ID); ok && at.After(seen) {
		seen = at
	}
	return seen
}
