package daemon

import (
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/issuers"
	"github.com/certctl/certctl/coordinator/orders"
)

// openOrders makes what takes orders through authorities while the node leads, and
// what tells operators of it.
func (d *Daemon) openOrders() (err error) {
	d.engine, err = orders.New(orders.Config{
		Node: d.node, NodeID: d.NodeID(), Issuers: d.issuers.Orders(), Log: d.log.With("part", "orders"),
	})
	if err != nil {
		return err
	}
	d.engine.Lead(d.node)
	d.accounts, err = issuers.NewService(issuers.Config{
		Registry: d.issuers, Engine: d.engine, Leads: d.node.IsLeader, Open: d.openOrdersByIssuer, Log: d.log.With("part", "issuers"),
	})
	return err
}

// openOrdersByIssuer counts the orders that wait for something at their authorities.
func (d *Daemon) openOrdersByIssuer() map[string]int {
	counts := map[string]int{}
	for _, c := range d.node.State().View().OrderCounts() {
		switch c.Stage {
		case fleet.StageCollected, fleet.StageDelivered, fleet.StageRejected, fleet.StageCancelled:
		default:
			counts[c.Issuer] += c.Count
		}
	}
	return counts
}
