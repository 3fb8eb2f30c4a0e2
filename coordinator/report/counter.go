package report

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
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
	if !c.kept.fit(view, now) {
		c.kept = c.count(view, now, inParallel)
	}
	return c.kept
}

// Prepare counts what a report of a view at a time needs, on one processor, for who has
// time and is not to be noticed. When ctx is done it ends with ctx's error, and nothing
// of it is kept.
func (c *Counter) Prepare(ctx context.Context, view *fleet.View, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.count(view, now, func(n int, do func(int)) {
		for i := 0; i < n && ctx.Err() == nil; i++ {
			do(i)
		}
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	c.kept = next
	return nil
}

// fit reports whether the counts are those of a view at a time. The index alone does not
// say so: another state may have come to it by another way.
func (k *counts) fit(view *fleet.View, now time.Time) bool {
	if len(k.hosts) == 0 || k.index != view.Index() || now.Before(k.from) || !k.until.IsZero() && !now.Before(k.until) {
		return false
	}
	first := k.hosts[0].agent
	agent, _ := view.Agent(first.ID)
	return agent == first
}

// count goes through the hosts, and through the certificates of those whose counts
// are not kept; each says how it does something for every number below another. c.mu is held.
func (c *Counter) count(view *fleet.View, now time.Time, each func(n int, do func(int))) counts {
	next := counts{index: view.Index(), from: now, until: WeekOf(now).Add(week), hosts: make([]*counted, 0, len(c.kept.hosts))}
	marks := revocations(view)
	before := c.kept.hosts
	var stale []int // hosts that are to be counted
	view.EachSeen(func(agent *fleet.Agent, seen time.Time) {
		for len(before) > 0 && before[0].agent.ID < agent.ID {
			before = before[1:]
		}
		mark := marks[agent.ID]
		switch {
		case len(before) == 0 || before[0].agent.ID != agent.ID || !before[0].fits(agent, mark, now):
			stale = append(stale, len(next.hosts))
			next.hosts = append(next.hosts, &counted{agent: agent, seen: seen, revoked: mark, from: now})
		case before[0].seen.Equal(seen):
			next.hosts = append(next.hosts, before[0])
		default:
			again := *before[0]
			again.seen = seen
			next.hosts = append(next.hosts, &again)
		}
	})
	each(len(stale), func(i int) { next.hosts[stale[i]].count(view) })
	for _, host := range next.hosts {
		next.until = earlier(next.until, host.until)
	}
	return next
}

// worthSharing is from how many hosts on several processors count them.
const worthSharing = 64

// inParallel does something for each number below n, on all processors if they are many.
func inParallel(n int, do func(int)) {
	if n < worthSharing {
		for i := range n {
			do(i)
		}
		return
	}
	var taken atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := int(taken.Add(1)) - 1; i < n; i = int(taken.Add(1)) - 1 {
				do(i)
			}
		})
	}
	workers.Wait()
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

// count goes through the host's certificates.
func (c *counted) count(view *fleet.View) {
	at := health.At(c.from)
	at.Note(WeekOf(c.from).Add(week))
	for _, row := range view.CertificatesOf(c.agent.ID) {
		summary := health.Standing(view, row)
		c.issuer(row.Columns.Issuer, c.certificates.add(row, &summary, at))
	}
	c.until = at.Until
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
