package renewal

import (
	"slices"
	"strings"
)

// Shortage is a limit of this host for want of which certificates would expire
// although their issuer could be reached.
type Shortage struct {
	Limit        string `json:"limit"` // its name in the configuration
	Now          int    `json:"now"`
	Certificates int    `json:"certificates"` // that expire for want of it
	First        Expiry `json:"first"`
}

// Raise is a limit and what it would have to be.
type Raise struct {
	Limit string `json:"limit"` // its name in the configuration
	From  int    `json:"from"`
	To    int    `json:"to"`
}

const hostConcurrency = "renewal.concurrency"

const (
	ordersSuffix      = ".limits.orders_per_hour"
	concurrencySuffix = ".limits.concurrency"
)

func ordersLimit(issuer string) string      { return "issuers." + issuer + ordersSuffix }
func concurrencyLimit(issuer string) string { return "issuers." + issuer + concurrencySuffix }

// What the configuration allows at most.
const (
	maxConcurrency   = 1000
	maxOrdersPerHour = 1_000_000
)

// of is what a limit is.
func (c *capacity) of(limit string) int {
	if limit == hostConcurrency {
		return c.concurrency
	}
	if name, ok := strings.CutSuffix(limit, ordersSuffix); ok {
		return c.limits[strings.TrimPrefix(name, "issuers.")].OrdersPerHour
	}
	return c.limits[strings.TrimPrefix(strings.TrimSuffix(limit, concurrencySuffix), "issuers.")].Concurrency
}

// double doubles a limit, and returns false if it is as high as can be configured.
func (c *capacity) double(limit string) bool {
	twice := func(n, most int) int { return min(max(2*n, 1), most) }
	before := c.of(limit)
	if limit == hostConcurrency {
		c.concurrency = twice(c.concurrency, maxConcurrency)
		return c.concurrency != before
	}
	if name, ok := strings.CutSuffix(limit, ordersSuffix); ok {
		name = strings.TrimPrefix(name, "issuers.")
		l := c.limits[name]
		l.OrdersPerHour = twice(l.OrdersPerHour, maxOrdersPerHour)
		c.limits[name] = l
	} else {
		name = strings.TrimPrefix(strings.TrimSuffix(limit, concurrencySuffix), "issuers.")
		l := c.limits[name]
		l.Concurrency = twice(l.Concurrency, maxConcurrency)
		c.limits[name] = l
	}
	return c.of(limit) != before
}

// shortages sums up what certificates expire for want of, the worst first.
func shortages(rehearsals []*rehearsal, c *capacity) []Shortage {
	var list []Shortage
	for _, r := range rehearsals {
		p := &r.prospect
		if p.Wants == "" {
			continue
		}
		at := slices.IndexFunc(list, func(s Shortage) bool { return s.Limit == p.Wants })
		if at < 0 {
			at = len(list)
			list = append(list, Shortage{Limit: p.Wants, Now: c.of(p.Wants), First: p.expiry()})
		}
		s := &list[at]
		s.Certificates++
		if p.ExpiredAt.Before(s.First.At) {
			s.First = p.expiry()
		}
	}
	slices.SortFunc(list, func(a, b Shortage) int {
		if n := b.Certificates - a.Certificates; n != 0 {
			return n
		}
		return strings.Compare(a.Limit, b.Limit)
	})
	return list
}

// raises finds limits with which nothing would expire for want of them, by holding
// the drill again with those doubled that something expires for want of. It is nil
// if no limit that can be configured is enough.
func raises(subjects []*Subject, scenario *Scenario, seen map[string]validity, found []Shortage) ([]Raise, error) {
	before := capacityOf(subjects)
	c := before.clone()
	changed := make(map[string]bool)
	for len(found) > 0 {
		for _, s := range found {
			if changed[s.Limit] = true; !c.double(s.Limit) {
				return nil, nil
			}
		}
		t, err := newTimeline(subjects, scenario, seen, c)
		if err != nil {
			return nil, err
		}
		t.impatient = true
		if err := t.run(); err != nil {
			return nil, err
		}
		found = shortages(t.all, c)
	}
	var list []Raise
	for limit := range changed {
		list = append(list, Raise{Limit: limit, From: before.of(limit), To: c.of(limit)})
	}
	slices.SortFunc(list, func(a, b Raise) int { return strings.Compare(a.Limit, b.Limit) })
	return list, nil
}

func (p *Prospect) expiry() Expiry {
	return Expiry{Certificate: p.Name, At: p.ExpiredAt, Why: p.Why}
}
