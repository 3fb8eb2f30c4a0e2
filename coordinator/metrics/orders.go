package metrics

import (
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
)

// orderGroup is orders at one issuer that are at one stage.
type orderGroup struct {
	issuer string
	stage  fleet.Stage
}

// brokeredOrders counts the orders at authorities, and finds those that have waited
// longest for a person.
func (c *census) brokeredOrders(view *fleet.View) {
	c.brokered, c.waiting = map[orderGroup]int{}, map[orderGroup]time.Time{}
	for _, count := range view.OrderCounts() {
		c.brokered[orderGroup{count.Issuer, count.Stage}] = count.Count
	}
	for _, order := range view.OpenOrders("", 0) {
		var since time.Time
		switch order.Stage() {
		case fleet.StageNeedsPerson:
			since = order.Brokering.NeedsPersonSince
		case fleet.StageUnknown:
			since = order.Brokering.UnknownSince
		default:
			continue
		}
		group := orderGroup{order.Issuer, order.Stage()}
		if oldest, ok := c.waiting[group]; !ok || since.Before(oldest) {
			c.waiting[group] = since
		}
	}
}

// authorities tells of the orders at authorities, and of the accounts there. Of each
// issuer that is in the settings or has orders there is every stage, so that a series
// which comes down to nothing does not end.
func (c collector) authorities(send send, n *census) {
	issuers := map[string]bool{}
	for group := range n.brokered {
		issuers[group.issuer] = true
	}
	if c.cfg.Orders != nil {
		for _, s := range c.cfg.Orders.Status() {
			issuers[s.Name] = true
			c.account(send, &s)
		}
		for _, count := range c.cfg.Orders.Counts() {
			send(issuerCalls, float64(count.Count), count.Issuer, string(count.Call), count.Outcome)
		}
	}
	for issuer := range issuers {
		for _, stage := range fleet.Stages() {
			if stage != fleet.StageDelivered {
				send(ordersAt, float64(n.brokered[orderGroup{issuer, stage}]), issuer, string(stage))
			}
		}
	}
	for group, since := range n.waiting {
		send(ordersOldest, seconds(since), group.issuer, string(group.stage))
	}
}

// account tells how the account at one authority stands.
func (c collector) account(send send, s *orders.IssuerStatus) {
	if !s.LastAnswerAt.IsZero() {
		send(issuerAnswered, seconds(s.LastAnswerAt), s.Name)
	}
	if !s.Leading {
		return
	}
	now := c.cfg.Now()
	send(issuerPaused, truth(s.PausedUntil.After(now)), s.Name)
	send(issuerFailing, truth(s.CircuitUntil.After(now)), s.Name)
	send(issuerDue, float64(s.Orders), s.Name)
	send(issuerKnown, truth(s.Configured), s.Name)
}
