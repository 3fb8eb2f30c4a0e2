package metrics

import (
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
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

// orders tells of the orders at authorities: of each issuer that has some every stage,
// so that a series which comes down to nothing does not end.
func (c collector) orders(send send, n *census) {
	issuers := map[string]bool{}
	for group := range n.brokered {
		issuers[group.issuer] = true
	}
	for issuer := range issuers {
		for _, stage := range fleet.Stages() {
			if stage != fleet.StageDelivered {
				send(orders, float64(n.brokered[orderGroup{issuer, stage}]), issuer, string(stage))
			}
		}
	}
	for group, since := range n.waiting {
		send(ordersOldest, seconds(since), group.issuer, string(group.stage))
	}
}
