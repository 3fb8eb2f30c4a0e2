package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

func (p *program) auditCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "audit", Short: "Who did what, and whether the record of it is whole",
		Long: `The audit trail has the acts of people and the changes of identity and policy. Its
facts are numbered and never dropped, and each has a hash over itself and all before it.`,
	}, p.listAuditCommand(), p.showAuditCommand(), p.auditHeadCommand(), p.verifyAuditCommand())
}

func (p *program) listAuditCommand() *cobra.Command {
	var page listFlags
	var scope, agent, object, actor, since, until string
	var kinds []string
	var from uint64
	oldest := false
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List facts of the journal, newest first", Args: sharedcli.NoArgs,
		Long: `Lists the audit trail: acts of people, and changes of identity and policy. With
--scope all also what agents report and what became of orders.`,
		Example: `  certctl audit list --since 24h
  certctl audit list --actor api_token:4f2m7q --since 2026-03-01 --until 2026-04-01
  certctl audit list --scope all --agent u53n5nbgbmcuo7ob --limit 20
  certctl audit list --kind agent.enrolled,agent.retired --output json
  certctl audit list --all --oldest --output json > trail.json`,
		RunE: p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			order := ""
			if oldest {
				order = "oldest"
			}
			now := time.Now()
			begin, err := instant("since", since, now)
			if err != nil {
				return err
			}
			end, err := instant("until", until, now)
			if err != nil {
				return err
			}
			wanted := client.ListAuditParams{Scope: scope, Agent: agent, Object: object, Actor: actor, Kind: kinds, Since: begin, Until: end, From: from, Order: order}
			if err := printList(p, cmd, &page, pagesOf(wanted), auditListing); err != nil {
				return err
			}
			newest, err := c.ListAudit(cmd.Context(), client.ListAuditParams{Limit: 1})
			if err != nil {
				return err
			}
			if newest.Missing > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "certctl: the node that was asked lacks the facts of %d log entries, of before it joined or while it was away, "+
					"and gets them from the others; \"certctl cluster health\" says how that stands\n", newest.Missing)
			}
			return nil
		}),
	}
	page.bind(cmd)
	choice(cmd, &scope, "scope", "which facts", "audit", "all")
	cmd.Flags().StringVar(&since, "since", "", "only those of this time and later: a date, a time, or how long ago (2026-03-01, 2026-03-01T12:00:00Z, 12h, 30d)")
	cmd.Flags().StringVar(&until, "until", "", "only those of before this time, such as 2026-04-01 or 1d")
	cmd.Flags().StringVar(&agent, "agent", "", "only those about the agent with this id")
	cmd.Flags().StringVar(&object, "object", "", "only those about this object")
	cmd.Flags().StringVar(&actor, "actor", "", "only those that this actor did, such as api_token:4f2m7q")
	cmd.Flags().StringSliceVar(&kinds, "kind", nil, "only these kinds")
	cmd.Flags().Uint64Var(&from, "from", 0, "only those of the audit trail from this number on")
	cmd.Flags().BoolVar(&oldest, "oldest", false, "oldest first")
	return cmd
}

func (p *program) showAuditCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show NUMBER", Short: "Show one fact of the audit trail", Args: sharedcli.ExactArgs(1), ValidArgsFunction: firstArgument(p.offers(auditNumbers)),
		Long: `Shows one fact of the audit trail whole: who did what to which object and when, what it
was before and after, and the hash that chains it to the fact before.`,
		Example: `  certctl audit show 1234`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			number, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil || number == 0 {
				return fmt.Errorf("NUMBER %q: expected a number of the audit trail, as \"certctl audit list\" shows it", args[0])
			}
			page, err := c.ListAudit(cmd.Context(), client.ListAuditParams{From: number, Order: "oldest", Limit: 1})
			if err != nil {
				return err
			}
			if len(page.Items) == 0 || page.Items[0].Audit != number {
				if page.Missing > 0 {
					return fmt.Errorf("the node that was asked does not have number %d, and lacks the facts of %d log entries; ask another one with --server", number, page.Missing)
				}
				return fmt.Errorf("there is no number %d in the audit trail; \"certctl audit head\" shows the newest", number)
			}
			e := &page.Items[0]
			return p.show(cmd, e, func(out io.Writer, now time.Time) error {
				pairs := [][2]string{
					{"number", strconv.FormatUint(e.Audit, 10)}, {"time", moment(e.Time, now)}, {"action", e.Kind}, {"actor", e.Actor}, {"object", e.Object},
					{"agent", e.AgentID}, {"detail", string(e.Detail)}, {"before", string(e.Before)}, {"after", string(e.After)},
					{"log entry", fmt.Sprintf("%d.%d", e.Index, e.Ordinal)}, {"hash", first(e.Hash, "none: it is of before the chain was begun")},
				}
				return facts(out, pairs)
			})
		}),
	}
}

func (p *program) auditHeadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "head", Short: "Show the newest number and hash of the audit trail, to be kept elsewhere", Args: sharedcli.NoArgs,
		Long: `Shows the newest number of the audit trail and its hash. Kept elsewhere (in a ticket, a
repository, on paper), they prove later that the trail up to there is still the same:
whoever can write to all nodes can write another trail, but not one with that hash.`,
		Example: `  certctl audit head
  certctl audit head --output json | jq -r '"\(.number):\(.hash)"'`,
		RunE: p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			head, err := c.ShowAuditHead(cmd.Context())
			if err != nil {
				return err
			}
			return p.show(cmd, head, func(out io.Writer, now time.Time) error {
				if head.Hash == "" {
					return facts(out, [][2]string{{"number", strconv.FormatUint(head.Number, 10)}, {"hash", "none: " + errNotChained.Error()}})
				}
				return facts(out, [][2]string{
					{"anchor", fmt.Sprintf("%d:%s", head.Number, head.Hash)}, {"time", moment(head.Time, now)}, {"log entry", strconv.FormatUint(head.Index, 10)},
					{"chained", fmt.Sprintf("from number %d on", head.ChainedFrom)}, {"node", head.Node},
				})
			})
		}),
	}
}

var errNotChained = errors.New("the chain of the audit trail is not begun, since a member of the cluster is of an earlier version; \"certctl cluster members\" shows their versions")

// auditListing is eventListing with the numbers that "certctl audit show" takes.
var auditListing = listing[resource.Event]{
	header: append([]string{"NUMBER"}, eventListing.header...),
	cells: func(e *resource.Event, now time.Time) []string {
		number := ""
		if e.Audit > 0 {
			number = strconv.FormatUint(e.Audit, 10)
		}
		return append([]string{number}, eventListing.cells(e, now)...)
	},
}

// eventListing is how facts are listed.
var eventListing = listing[resource.Event]{
	header: []string{"TIME", "KIND", "ACTOR", "OBJECT", "AGENT", "DETAIL"},
	cells: func(e *resource.Event, _ time.Time) []string {
		return []string{e.Time.Local().Format(time.DateTime), e.Kind, e.Actor, e.Object, e.AgentID, string(e.Detail)}
	},
}
