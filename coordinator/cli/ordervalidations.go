package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

func (p *program) orderValidationsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "validations ORDER", Short: "Ask the authority what is left to prove of an order's names", Args: sharedcli.ExactArgs(1),
		ValidArgsFunction: p.completeOrders(client.ListOrdersParams{Open: true}),
		Long: `Has the coordinator that leads ask the authority how far the proof of control of an
order's names is, and shows what is left to publish or to do. It changes nothing there,
and takes 20 seconds at most. Not every authority tells.

` + whichOrder,
		Example: `  certctl orders validations 3f9a1c0b7d2e`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			o, err := findOrder(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			v, err := c.ListOrderValidations(cmd.Context(), client.ListOrderValidationsParams{Agent: o.AgentID, ID: o.ID})
			if err != nil {
				return err
			}
			if v.Error != "" {
				text := fmt.Sprintf("the authority of %s does not tell: %s", o.Issuer, v.Error)
				if v.Mend != "" {
					text += "; " + v.Mend
				}
				return fmt.Errorf("%s", text)
			}
			return p.show(cmd, v, func(out io.Writer, now time.Time) error {
				var rows [][]string
				for _, one := range v.Items {
					done := "TO DO"
					if one.Done {
						done = "done"
					}
					detail := one.Todo
					if one.Problem != "" {
						detail = first(detail, "see the order at the authority") + " (" + one.Problem + ")"
					}
					rows = append(rows, []string{one.Name, done, one.Method, one.State, distance(one.Checked, now), distance(one.Next, now), distance(one.Expires, now), detail})
				}
				return table(out, []string{"NAME", "PROOF", "METHOD", "AT AUTHORITY", "CHECKED", "NEXT CHECK", "HOLDS", "TO DO"}, rows)
			})
		}),
	}
}
