package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/wire"
)

// whichOrder says how an order is named on the command line.
const whichOrder = `ORDER is the order's id, as much of its beginning as no other order has, or AGENT/ID.`

func (p *program) ordersCommand() *cobra.Command {
	return group(&cobra.Command{Use: "orders", Aliases: []string{"order"}, Short: "Orders at authorities: list, show, validations, cancel, retry, resolve", Long: `An order is what the coordinator has asked an authority for, for one certificate of one
host. Some take days, and some need a person: these commands say what to do.`},
		p.listOrdersCommand(), p.showOrderCommand(), p.orderValidationsCommand(), p.cancelOrderCommand(), p.retryOrderCommand(), p.resolveOrderCommand())
}

func (p *program) listOrdersCommand() *cobra.Command {
	var (
		page   listFlags
		orders client.ListOrdersParams
		order  sorting
		ended  bool
	)
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List orders at authorities", Args: sharedcli.NoArgs,
		Long: `Lists orders at issuers that the coordinator talks to: those for which something is
still to be done at the authority; with --ended the others too. An order that NEEDS A
PERSON goes on when somebody has approved, proven or paid something. One of UNKNOWN
OUTCOME was sent, and nobody knows whether the authority has it: "certctl orders show"
says what to look up, and what to type then.

NEXT is when something is done for an order. It is "paused" with the time for which nothing
is asked of its issuer, if that is longer: "certctl issuers list" says why. A token with a
scope is not told.

--watch writes a line for every order that comes, changes or goes.`,
		Example: `  certctl orders list
  certctl orders list --stage unknown_outcome
  certctl orders list --issuer ov --ended
  certctl orders list --ended --sort requested-at --reverse
  certctl orders list --agent u53n5nbgbmcuo7ob --watch`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if orders.Sort, err = order.param(); err != nil {
				return err
			}
			orders.Open = orders.Stage == "" && !ended
			quiet := quietIssuers{}
			return printList(p, cmd, &page, quiet.before(p, cmd, pagesOf(orders)), listing[resource.Order]{
				header: []string{"ORDER", "ISSUER", "HOST", "CERTIFICATE", "STAGE", "SINCE", "NEXT", "AT AUTHORITY", "DETAIL"},
				cells:  func(o *resource.Order, now time.Time) []string { return orderCells(o, quiet[o.Issuer], now) },
				id:     func(o *resource.Order) string { return o.AgentID + "\x00" + o.ID },
			})
		},
	}
	page.bind(cmd)
	page.watch.bind(cmd, "there is no such order any more")
	choice(cmd, &orders.Stage, "stage", "only orders at this stage", texts(resource.OrderStages)...)
	flags := cmd.Flags()
	flags.StringVar(&orders.Issuer, "issuer", "", "only orders at the issuer with this name")
	flags.StringVar(&orders.Agent, "agent", "", "only orders of the agent with this id")
	flags.StringVar(&orders.Certificate, "certificate", "", "only orders for the certificate with this name in the agents' configuration")
	order.bind(cmd, "in which order: by the time at which they came in", "requested-at")
	flags.BoolVar(&ended, "ended", false, "those that have ended too")
	return cmd
}

// shortID is how much of an order's id tables show. All of it is 32 hex digits.
const shortID = 12

// quietIssuers are those of which nothing is asked for a while, and until when.
type quietIssuers map[string]time.Time

// before has them asked for before each list of orders that people look at.
func (q quietIssuers) before(p *program, cmd *cobra.Command, from source[resource.Order]) source[resource.Order] {
	return func(ctx context.Context, c *client.Client, limit int, use func([]resource.Order) error) (bool, error) {
		clear(q)
		if !p.output.Human() {
			return from(ctx, c, limit, use)
		}
		list, err := c.ListIssuers(ctx)
		if refused, ok := errors.AsType[*wire.Problem](err); ok && refused.Code == wire.CodeForbidden {
			return from(ctx, c, limit, use) // the token is for some hosts, and issuers are for all
		}
		if err != nil {
			// The list of orders is what was asked for, and says more if it fails too.
			fmt.Fprintf(cmd.ErrOrStderr(), "certctl: it is not known whether issuers are paused: %s\n", plain(err.Error()))
			return from(ctx, c, limit, use)
		}
		for _, one := range list.Items {
			until := one.PausedUntil
			if one.CircuitOpenUntil.After(until) {
				until = one.CircuitOpenUntil
			}
			q[one.Name] = until
		}
		return from(ctx, c, limit, use)
	}
}

// orderCells is a line of the table; nothing is asked of the order's issuer before quiet.
func orderCells(o *resource.Order, quiet, now time.Time) []string {
	number, next := "", distance(o.NextAt, now)
	switch {
	case o.NextAt.IsZero():
	case quiet.After(now) && quiet.After(o.NextAt):
		next = "paused, " + distance(quiet, now)
	case !o.NextAt.After(now):
		next = "now"
	}
	if o.Handle != nil {
		number = first(o.Handle.Order, o.Handle.Certificate, o.Handle.Request)
	}
	return []string{
		o.ID[:min(len(o.ID), shortID)], o.Issuer, first(o.Hostname, o.AgentID), o.Certificate, stageText(o), distance(stageSince(o), now), next, number, orderDetail(o),
	}
}

// stageText is where an order stands, aloud if somebody has to do something.
func stageText(o *resource.Order) string {
	text := stageName(o.Stage)
	if o.Cancel != nil && o.Open {
		text += ", to be taken back"
	}
	return text
}

func stageName(stage resource.OrderStage) string {
	switch stage {
	case resource.OrderNeedsPerson:
		return "NEEDS A PERSON"
	case resource.OrderUnknown:
		return "UNKNOWN OUTCOME"
	}
	return string(stage)
}

// stageSince is since when an order is where it stands, as far as that is known.
func stageSince(o *resource.Order) time.Time {
	switch o.Stage {
	case resource.OrderPlacing:
		return o.PlacingAt
	case resource.OrderPending:
		return o.SubmittedAt
	case resource.OrderNeedsPerson:
		return o.NeedsPersonSince
	case resource.OrderUnknown:
		return o.UnknownSince
	case resource.OrderIssued:
		return o.IssuedAt
	case resource.OrderCollected, resource.OrderDelivered, resource.OrderRejected, resource.OrderCancelled:
		return o.EndedAt
	}
	return o.RequestedAt
}

// orderDetail is the most telling of what is known of an order, in a line.
func orderDetail(o *resource.Order) string {
	switch {
	case o.Refusal != nil:
		return o.Refusal.Detail
	case o.Stage == resource.OrderUnknown && o.Needs():
		return "to do: look it up at the authority, see \"certctl orders show\""
	case o.Mend != "" && o.Stage != resource.OrderUnknown:
		return "to do: " + o.Mend
	case o.LastError != "":
		return o.LastError
	}
	return first(o.Detail, o.AuthorityState)
}

// findOrder finds the order that a text on the command line names.
func findOrder(ctx context.Context, c *client.Client, text string) (*resource.Order, error) {
	if agent, id, ok := strings.Cut(text, "/"); ok {
		return c.ShowOrder(ctx, client.ShowOrderParams{Agent: agent, ID: id})
	}
	if text == "" {
		return nil, errors.New("the order's id is empty; " + whichOrder)
	}
	// Ids are of one length, so that a whole one has no others behind it.
	found, more, err := client.Collect(ctx, c, client.ListOrdersParams{ID: text}, maxAmbiguous)
	if err != nil {
		return nil, err
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("there is no order whose id begins with %s; \"certctl orders list --ended\" lists them all", text)
	case 1:
		return &found[0], nil
	}
	var names []string
	for i := range found {
		names = append(names, found[i].AgentID+"/"+found[i].ID)
	}
	if more {
		names = append(names, "...")
	}
	return nil, fmt.Errorf("several orders have an id that begins with %s: %s; give more of it, or AGENT/ID", text, strings.Join(names, ", "))
}

// maxAmbiguous is how many orders are named that a text may mean.
const maxAmbiguous = 5

// orderName is how an order is named in a command to be typed: by its id alone, which
// is unlike any other one's.
func orderName(o *resource.Order) string { return o.ID }
