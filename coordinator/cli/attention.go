package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
)

// ordersNeeds says which orders at authorities go on only when somebody has done
// something.
func ordersNeeds(o *resource.OrderCounts) []string {
	var lines []string
	if n := o.NeedsPerson; n > 0 {
		lines = append(lines, fmt.Sprintf("%s A PERSON: \"certctl orders list --stage needs_person\" says which, \"certctl orders show\" what to do", counted(n, "NEEDS", "NEED")))
	}
	if n := o.UnknownOutcome; n > 0 {
		lines = append(lines, fmt.Sprintf("%d OF UNKNOWN OUTCOME: \"certctl orders list --stage unknown_outcome\" says which, \"certctl orders show\" what to look up", n))
	}
	return lines
}

// issuersNeed says which issuers are not asked at the moment, and have orders.
func issuersNeed(list []resource.Issuer, now time.Time) []string {
	var lines []string
	for i := range list {
		one := &list[i]
		if one.State == resource.IssuerReady || one.Orders == 0 {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s waiting for issuer %s: %s", counted(one.Orders, "order", "orders"), one.Name, issuerText(one, now)))
	}
	return lines
}

// ordersAttention is what there is to say of orders at authorities to somebody who asked
// about something else: nothing of what cannot be had. counts is nil if they are to be
// asked for.
func ordersAttention(ctx context.Context, c *client.Client, counts *resource.OrderCounts) []string {
	if counts == nil {
		s, err := c.ShowStatus(ctx)
		if err != nil {
			return nil
		}
		counts = &s.Orders
	}
	lines := ordersNeeds(counts)
	if counts.Open == 0 {
		return lines
	}
	// The node that leads knows; without one nothing is asked of any issuer.
	ctx, cancel := context.WithTimeout(ctx, attentionTime)
	defer cancel()
	if issuers, err := c.ListIssuers(ctx); err == nil {
		lines = append(lines, issuersNeed(issuers.Items, time.Now())...)
	}
	return lines
}

// attentionTime is how long a person waits for what was not asked for.
const attentionTime = 5 * time.Second
