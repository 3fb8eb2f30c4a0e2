package report

import (
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
)

// Tables are what a report is made from, besides signs of life.
var Tables = []fleet.Table{fleet.TableAgents, fleet.TableCertificates, fleet.TableRevocations}

// Question says what is wanted to be known, of which hosts.
type Question struct {
	// View is used by several goroutines, and so may be no watched one if there are
	// many hosts.
	View *fleet.View
	// Clock shows the time, and notes when the report would be another.
	Clock *health.Clock
	// Pause is how long hosts are told to wait between syncs, at present.
	Pause time.Duration
	// Seen is the last sign of life of an agent, given the one that is replicated; nil
	// is for that.
	Seen func(agent *fleet.Agent, replicated time.Time) time.Time
	// Of says which hosts the report is of; nil: of all.
	Of func(*fleet.Agent) bool

	// Listed says which of them are listed; nil: all.
	Listed func(*Host) bool
	// After is the cursor of the page before; "" begins. Limit is the number of hosts on
	// a page; 0 is for all of them, and none are listed if it is less.
	After string
	Limit int
}

// Answer is a report.
type Answer struct {
	Fleet *Fleet
	Hosts []*Host // those at risk first
	Next  string  // After of the next page; "" if this is the last
}

// Report answers a question. The error is ErrCursor.
func (c *Counter) Report(q *Question) (*Answer, error) {
	list := worst{room: q.Limit}
	if q.After != "" {
		after, err := parseCursor(q.After)
		if err != nil {
			return nil, err
		}
		list.after = &after
	}
	now := q.Clock.Now
	counts := c.of(q.View, now)
	q.Clock.Note(counts.until)
	answer := &Answer{Fleet: newFleet(now)}
	var host Host
	for _, one := range counts.hosts {
		if q.Of != nil && !q.Of(one.agent) {
			continue
		}
		seen := one.seen
		if q.Seen != nil {
			seen = q.Seen(one.agent, seen)
		}
		host = one.host(seen, q.Pause, q.Clock)
		answer.Fleet.add(&host)
		if q.Limit >= 0 && (q.Listed == nil || q.Listed(&host)) {
			list.add(&host)
		}
	}
	answer.Fleet.finish(now)
	answer.Hosts, answer.Next = list.page()
	return answer, nil
}

// Of is one host by itself, which was last heard of at a time.
func Of(view *fleet.View, agent *fleet.Agent, seen time.Time, pause time.Duration, at *health.Clock) *Host {
	one := &counted{agent: agent, from: at.Now}
	one.count(view)
	host := one.host(seen, pause, at)
	return &host
}

// host judges a host that was counted.
func (c *counted) host(seen time.Time, pause time.Duration, at *health.Clock) Host {
	h := Host{
		Agent: c.agent, Seen: seen, Due: seen.Add(pause), CutOff: health.CutOff(pause, seen, at.Now),
		Certificates: &c.certificates, Issuers: c.issuers,
	}
	h.judge(at)
	return h
}
