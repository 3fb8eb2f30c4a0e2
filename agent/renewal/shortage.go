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

// issuerOf is the issuer that a limit is of, "" for one of the host, and whether it
// is that of orders.
func issuerOf(limit string) (issuer string, orders bool) {
	rest, ok := strings.CutPrefix(limit, "issuers.")
	if !ok {
		return "", false
	}
	if name, ok := strings.CutSuffix(rest, ordersSuffix); ok {
		return name, true
	}
	return strings.TrimSuffix(rest, concurrencySuffix), false
}

// of is what a limit is.
func (c *capacity) of(limit string) int {
	switch issuer, orders := issuerOf(limit); {
	case issuer == "":
		return c.concurrency
	case orders:
		return c.limits[issuer].OrdersPerHour
	default:
		return c.limits[issuer].Concurrency
	}
}

func (c *capacity) set(limit string, to int) {
	issuer, orders := issuerOf(limit)
	l := c.limits[issuer]
	switch {
	case issuer == "":
		c.concurrency = to
		return
	case orders:
		l.OrdersPerHour = to
	default:
		l.Concurrency = to
	}
	c.limits[issuer] = l
}

// double doubles a limit, and returns false if it is as high as can be configured.
func (c *capacity) double(limit string) bool {
	most := maxConcurrency
	if _, orders := issuerOf(limit); orders {
		most = maxOrdersPerHour
	}
	before := c.of(limit)
	c.set(limit, min(2*before, most))
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
// the drill again with those doubled that something expires for want of. A limit of
// which nothing that can be configured is enough is left as it is; remaining is how
// many certificates still expire for want of one, with all others raised.
func raises(subjects []*Subject, scenario *Scenario, seen map[string]validity, found []Shortage) (list []Raise, remaining int, _ error) {
	before := capacityOf(subjects)
	c := before.clone()
	changed, beyond := make(map[string]bool), make(map[string]bool)
	again := func(patient bool) ([]Shortage, error) {
		t, err := newTimeline(subjects, scenario, seen, c)
		if err != nil {
			return nil, err
		}
		t.stopAt = func(limit string) bool { return !patient && !beyond[limit] }
		err = t.run()
		return shortages(t.all, c), err
	}
	for {
		found = slices.DeleteFunc(found, func(s Shortage) bool { return beyond[s.Limit] })
		if len(found) == 0 {
			break
		}
		for _, s := range found {
			if changed[s.Limit] = true; !c.double(s.Limit) {
				delete(changed, s.Limit)
				beyond[s.Limit] = true
				c.set(s.Limit, before.of(s.Limit))
			}
		}
		var err error
		if found, err = again(false); err != nil {
			return nil, 0, err
		}
	}
	if len(beyond) > 0 {
		left, err := again(true)
		if err != nil {
			return nil, 0, err
		}
		for _, s := range left {
			remaining += s.Certificates
		}
	}
	for limit := range changed {
		list = append(list, Raise{Limit: limit, From: before.of(limit), To: c.of(limit)})
	}
	slices.SortFunc(list, func(a, b Raise) int { return strings.Compare(a.Limit, b.Limit) })
	return list, remaining, nil
}

func (p *Prospect) expiry() Expiry {
	return Expiry{Certificate: p.Name, At: p.ExpiredAt, Why: p.Why}
}
