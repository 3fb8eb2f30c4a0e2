package report

import (
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
)

// A Counter counts the certificates of hosts, and keeps the counts of each host for as
// long as they stay: the first report of a fleet looks at every certificate, and those
// after it at what has changed. The zero value is ready, for any number of goroutines.
type Counter struct {
	mu   sync.Mutex // held while counting: those who ask meanwhile share the result
	kept counts
}

// counts are those of all active hosts by id. They do not change.
type counts struct {
	index       uint64 // of the view that was counted
	from, until time.Time
	revocations uint64 // version of the table
	revoked     map[string]revoked
	hosts       []*counted
}

// counted is what follows from the record of a host and its certificates alone.
type counted struct {
	agent        *fleet.Agent
	seen         time.Time // as it is replicated
	revoked      revoked
	from, until  time.Time // zero until: no time makes it another
	certificates Certificates
	issuers      []Issued
}

// revoked names the certificates of a host that the built-in CA has revoked: the
// newest of them, and their number.
type revoked struct {
	count int
	index uint64
}

// fits reports whether the counts are still those of a host. Whatever changes a
// certificate of an agent changes the agent's record.
func (c *counted) fits(agent *fleet.Agent, r revoked, now time.Time) bool {
	return c.agent == agent && c.revoked == r && !now.Before(c.from) && (c.until.IsZero() || now.Before(c.until))
}

// of counts the hosts of a view at a time.
func (c *Counter) of(view *fleet.View, now time.Time) counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	index := view.Index()
	if k := &c.kept; k.index == index && !k.from.IsZero() && !now.Before(k.from) && (k.until.IsZero() || now.Before(k.until)) {
		return *k
	}
	next := c.count(view, now)
	if index >= c.kept.index {
		c.kept = next
	}
	return next
}

// count goes through the hosts, and through the certificates of those whose counts
// are not kept. c.mu is held.
func (c *Counter) count(view *fleet.View, now time.Time) counts {
	next := counts{
		index: view.Index(), from: now, until: WeekOf(now).Add(week), revocations: view.Version(fleet.TableRevocations),
		hosts: make([]*counted, 0, len(c.kept.hosts)),
	}
	if next.revoked = c.kept.revoked; next.revocations != c.kept.revocations || next.revoked == nil {
		next.revoked = revocations(view)
	}
	before := c.kept.hosts
	view.EachSeen(func(agent *fleet.Agent, seen time.Time) {
		for len(before) > 0 && before[0].agent.ID < agent.ID {
			before = before[1:]
		}
		mark := next.revoked[agent.ID]
		var host *counted
		switch {
		case len(before) == 0 || before[0].agent.ID != agent.ID || !before[0].fits(agent, mark, now):
			host = countHost(view, agent, mark, now)
			host.seen = seen
		case before[0].seen.Equal(seen):
			host = before[0]
		default:
			again := *before[0]
			again.seen = seen
			host = &again
		}
		next.until = earlier(next.until, host.until)
		next.hosts = append(next.hosts, host)
	})
	return next
}

func revocations(view *fleet.View) map[string]revoked {
	marks := map[string]revoked{}
	for _, r := range view.Revocations() {
		mark := marks[r.Agent]
		mark.count++
		mark.index = max(mark.index, r.Index)
		marks[r.Agent] = mark
	}
	return marks
}

func countHost(view *fleet.View, agent *fleet.Agent, mark revoked, now time.Time) *counted {
	host := &counted{agent: agent, revoked: mark, from: now}
	at := health.At(now)
	at.Note(WeekOf(now).Add(week))
	for _, row := range view.CertificatesOf(agent.ID) {
		summary := health.Known(view, row)
		host.issuer(row.Columns.Issuer, host.certificates.add(row, &summary, at))
	}
	host.until = at.Until
	return host
}

func (c *counted) issuer(name string, judged resource.Health) {
	var at *Issued
	for i := range c.issuers {
		if c.issuers[i].Issuer == name {
			at = &c.issuers[i]
		}
	}
	if at == nil {
		c.issuers = append(c.issuers, Issued{Issuer: name})
		at = &c.issuers[len(c.issuers)-1]
	}
	at.Total++
	switch judged {
	case resource.HealthOK, resource.HealthRenewing, resource.HealthUnknown:
	default:
		at.Troubled++
	}
}
