package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

// maxNote is how long a note may be.
const maxNote = 500

func checkNote(note string) error {
	if len(note) > maxNote {
		return fmt.Errorf("flag --note: %d bytes; expected at most %d", len(note), maxNote)
	}
	return nil
}

// describeOrder names an order in a sentence.
func describeOrder(o *resource.Order) string {
	return fmt.Sprintf("The order %s at %s, for the certificate %s of %s (%s)", o.ID, o.Issuer, o.Certificate, first(o.Hostname, "a host that is gone"), o.AgentID)
}

// agree says what will happen, and asks whether to go on.
func agree(cmd *cobra.Command, yes bool, statement string) error {
	if !yes {
		fmt.Fprintln(cmd.ErrOrStderr(), plainLines(statement))
	}
	return confirm(cmd, yes)
}

func (p *program) cancelOrderCommand() *cobra.Command {
	var note string
	var yes bool
	cmd := &cobra.Command{
		Use: "cancel ORDER", Short: "Take an order back", Args: sharedcli.ExactArgs(1), ValidArgsFunction: p.completeOrders(client.ListOrdersParams{Open: true}),
		Long: `Takes an order back. One that was not sent yet is cancelled at once. For any other the
authority is asked; until the stage is "cancelled" it may still issue, and charge.
Where an authority takes no orders back by itself, a person has to do it there.

` + whichOrder,
		Example: `  certctl orders cancel 3f9a1c0b7d2e --note "the host is being taken down"
  certctl orders cancel 3f9a1c0b7d2e --yes`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			if err := checkNote(note); err != nil {
				return err
			}
			o, err := findOrder(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if !o.Open {
				return fmt.Errorf("%s has ended: it is %s", lowerFirst(describeOrder(o)), stageName(o.Stage))
			}
			if err := agree(cmd, yes, cancelStatement(o)); err != nil {
				return err
			}
			if o, err = c.CancelOrder(cmd.Context(), client.CancelOrderParams{Agent: o.AgentID, ID: o.ID}, &resource.CancelOrder{Note: note}); err != nil {
				return err
			}
			return p.show(cmd, o, func(out io.Writer, _ time.Time) error {
				text := "is to be taken back, and is at the stage " + stageName(o.Stage) + " until then"
				if o.Stage == resource.OrderCancelled {
					text = "is cancelled"
				}
				_, err := fmt.Fprintf(out, "%s %s; \"certctl orders show %s\" shows what became of it\n", plain(describeOrder(o)), text, orderName(o))
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&note, "note", "", "why, for the audit trail and the authority")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it without asking")
	return cmd
}

// cancelStatement says in plain words what taking an order back does.
func cancelStatement(o *resource.Order) string {
	what := describeOrder(o)
	switch o.Stage {
	case resource.OrderRequested:
		return what + ", was not sent yet: it will be cancelled at once.\nIts host does not ask again by itself for a long time."
	case resource.OrderUnknown:
		return what + ", may be at the authority, and may not. It will be looked for, and taken back if it is found.\nIt cannot be brought back then."
	case resource.OrderIssued:
		return what + ", is issued by now: the authority is asked to take it back, and may charge for it all the same.\nIt cannot be brought back then."
	}
	return what + ", will be taken back at the authority, if that takes orders back; until then it may still be issued, and charged.\nIt cannot be brought back then."
}

func lowerFirst(text string) string { return strings.ToLower(text[:1]) + text[1:] }

func (p *program) retryOrderCommand() *cobra.Command {
	return &cobra.Command{
		Use: "retry ORDER", Short: "Have an open order looked after now", Args: sharedcli.ExactArgs(1), ValidArgsFunction: p.completeOrders(client.ListOrdersParams{Open: true}),
		Long: `Has the authority asked about an order at once, and often again for a while, as after
you have approved it there. One of unknown outcome is searched for again. Nothing is
ordered a second time.

` + whichOrder,
		Example: `  certctl orders retry 3f9a1c0b7d2e`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			o, err := findOrder(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if o, err = c.RetryOrder(cmd.Context(), client.RetryOrderParams{Agent: o.AgentID, ID: o.ID}); err != nil {
				return err
			}
			return p.show(cmd, o, func(out io.Writer, _ time.Time) error {
				_, err := fmt.Fprintf(out, "%s is looked after now; \"certctl orders show %s\" shows what became of it\n", plain(describeOrder(o)), orderName(o))
				return err
			})
		}),
	}
}

func (p *program) resolveOrderCommand() *cobra.Command {
	var (
		adopt, note        string
		again, giveUp, yes bool
	)
	cmd := &cobra.Command{
		Use: "resolve ORDER --adopt NUMBER | --place-again | --give-up", Short: "Say what became of an order of unknown outcome", Args: sharedcli.ExactArgs(1),
		ValidArgsFunction: p.completeOrders(client.ListOrdersParams{Stage: string(resource.OrderUnknown)}),
		Long: `Says what became of an order that was sent and of which nobody knows whether the
authority has it. "certctl orders show" says what to look up there first.

--adopt NUMBER   the authority has it, under this number: it goes on from there
--place-again    the authority does not have it: it is sent again. If the authority has
                 it all the same, there will be two orders, and two to pay
--give-up        the certificate is not wanted any more: nothing is done at the
                 authority, and an order that is there has to be cancelled there

--note says how you know; it is kept in the audit trail.

` + whichOrder,
		Example: `  certctl orders resolve 3f9a1c0b7d2e --adopt 104711 --note "seen in the console, same key"
  certctl orders resolve 3f9a1c0b7d2e --place-again --note "not in the console after two hours" --yes
  certctl orders resolve 3f9a1c0b7d2e --give-up --note "the host is gone" --yes`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			wish := resource.ResolveOrder{Note: strings.TrimSpace(note)}
			switch {
			case cmd.Flags().Changed("adopt"):
				if adopt = strings.TrimSpace(adopt); adopt == "" {
					return errors.New("flag --adopt is empty: give the authority's number of the order")
				}
				wish.Action, wish.Handle = resource.OrderAdopt, &resource.OrderHandle{Order: adopt}
			case again:
				wish.Action = resource.OrderPlaceAgain
			case giveUp:
				wish.Action = resource.OrderGiveUp
			default:
				return errors.New("say what became of the order: --adopt NUMBER, --place-again or --give-up")
			}
			if wish.Note == "" {
				return errors.New("flag --note is missing: say how you know what became of the order, for the audit trail")
			}
			if err := checkNote(wish.Note); err != nil {
				return err
			}
			o, err := findOrder(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if o.Stage != resource.OrderUnknown {
				return fmt.Errorf("%s is %s: there is no doubt to resolve", lowerFirst(describeOrder(o)), stageName(o.Stage))
			}
			if wish.Handle != nil {
				wish.Handle = candidate(o, adopt)
			} else if err := agree(cmd, yes, resolveStatement(o, wish.Action)); err != nil {
				return err
			}
			if o, err = c.ResolveOrder(cmd.Context(), client.ResolveOrderParams{Agent: o.AgentID, ID: o.ID}, wish); err != nil {
				return err
			}
			return p.show(cmd, o, func(out io.Writer, _ time.Time) error {
				_, err := fmt.Fprintf(out, "%s is at the stage %s now; \"certctl orders show %s\" shows what becomes of it\n", plain(describeOrder(o)), stageName(o.Stage), orderName(o))
				return err
			})
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&adopt, "adopt", "", "the authority has it, under this number")
	flags.BoolVar(&again, "place-again", false, "the authority does not have it: send it again")
	flags.BoolVar(&giveUp, "give-up", false, "it is not wanted any more")
	cmd.MarkFlagsMutuallyExclusive("adopt", "place-again", "give-up")
	flags.StringVar(&note, "note", "", "how you know, for the audit trail")
	flags.BoolVar(&yes, "yes", false, "do it without asking")
	return cmd
}

// candidate is the whole of what a search has found under a number, where it has.
func candidate(o *resource.Order, number string) *resource.OrderHandle {
	for i := range o.Candidates {
		if h := &o.Candidates[i]; number == first(h.Order, h.Certificate, h.Request) {
			return h
		}
	}
	return &resource.OrderHandle{Order: number}
}

func resolveStatement(o *resource.Order, action resource.OrderAction) string {
	if action == resource.OrderPlaceAgain {
		return describeOrder(o) + ", will be sent again.\nIf the authority has it all the same, there will be two orders, and two to pay: look there first, by\n" +
			"  reference " + o.Reference + "\n  names     " + strings.Join(o.Names, ", ")
	}
	return describeOrder(o) + ", will be given up: nothing is done at the authority.\nIf it is there, it may be issued and charged: cancel it there."
}
