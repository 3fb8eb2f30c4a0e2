package cli

import (
	"context"
	"fmt"

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

// ordersAttention is what there is to say of orders at authorities to somebody who asked
// about something else: nothing if it cannot be had.
func ordersAttention(ctx context.Context, c *client.Client) []string {
	var s resource.Status
	if c.Do(ctx, get, "/api/v1/status", nil, nil, &s) != nil {
		return nil
	}
	return ordersNeeds(&s.Orders)
}
