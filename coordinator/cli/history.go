package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/settings"
)

func (p *program) historyCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "history", Short: "What happened, for as long as it is kept",
		Long: `The history is what agents reported, what became of orders, and the audit trail. It is
in the database, if one is configured, else in the journal, for as long as that keeps
it. The node that leads answers.`,
	}, p.listHistoryCommand(), p.historyStatusCommand(), p.pruneHistoryCommand())
}

func (p *program) listHistoryCommand() *cobra.Command {
	var page listFlags
	var scope, agent, object, actor, since, until string
	var kinds []string
	oldest := false
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List facts, newest first", Args: sharedcli.NoArgs,
		Long: `Lists what happened: what agents reported, what became of orders, and the audit trail.
It asks the database if there is one, which keeps it longer than the journal.`,
		Example: `  certctl history list --since 7d --kind certificate.failed
  certctl history list --agent u53n5nbgbmcuo7ob --since 2026-03-01 --until 2026-04-01 --all -o json
  certctl history list --scope audit --actor api_token:4f2m7q`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			order := ""
			if oldest {
				order = "oldest"
			}
			now := time.Now()
			from, err := instant("since", since, now)
			if err != nil {
				return err
			}
			to, err := instant("until", until, now)
			if err != nil {
				return err
			}
			return printList(p, cmd, &page, pagesOf(client.ListHistoryParams{
				Scope: scope, Agent: agent, Object: object, Actor: actor, Kind: kinds, Order: order, Since: from, Until: to,
			}), eventListing)
		},
	}
	page.bind(cmd)
	choice(cmd, &scope, "scope", "which facts", "all", "audit")
	cmd.Flags().StringVar(&since, "since", "", "only those of this time and later: a date, a time, or how long ago (2026-03-01, 2026-03-01T12:00:00Z, 12h, 30d)")
	cmd.Flags().StringVar(&until, "until", "", "only those of before this time, such as 2026-04-01 or 1d")
	cmd.Flags().StringVar(&agent, "agent", "", "only those about the agent with this id")
	cmd.Flags().StringVar(&object, "object", "", "only those about this object")
	cmd.Flags().StringVar(&actor, "actor", "", "only those that this actor did, such as api_token:4f2m7q")
	cmd.Flags().StringSliceVar(&kinds, "kind", nil, "only these kinds")
	cmd.Flags().BoolVar(&oldest, "oldest", false, "oldest first")
	return cmd
}

// instant reads a moment: a date, which begins in UTC, a time, or how long ago.
func instant(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	if ago, err := settings.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, fmt.Errorf("flag --%s %q: expected a date (2026-03-01), a time (2026-03-01T12:00:00Z), or how long ago (12h, 30d)", flag, text)
}

func (p *program) historyStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show where the history is, and how its export stands", Args: sharedcli.NoArgs,
		Example: `  certctl history status`,
		Long: `Shows whether the history is in the journal or in a database, whether that answers, and
how much waits to be exported.`,
		RunE: p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			s, err := c.ShowHistoryStatus(cmd.Context())
			if err != nil {
				return err
			}
			return p.show(cmd, s, func(out io.Writer, now time.Time) error {
				pairs := [][2]string{
					{"leader", s.Node},
					{"history", "in the " + s.Source},
					{"journal", fmt.Sprintf("%d facts and %d of the audit trail, %d of %d MiB", s.Journal.Facts, s.Journal.AuditFacts, s.Journal.Bytes>>20, s.Journal.MaxBytes>>20)},
				}
				if d := s.Database; d != nil {
					pairs = append(pairs, [2]string{"database", databaseLine(d)})
					if d.Error != "" {
						pairs = append(pairs, [2]string{"last error", d.Error + " (" + moment(d.ErrorAt, now) + ")"})
					}
					pairs = append(pairs, [2]string{"server", first(serverLine(d), "it has not answered yet")})
					if d.Warning != "" {
						pairs = append(pairs, [2]string{"warning", d.Warning})
					}
					pairs = append(pairs, [2]string{"exported", fmt.Sprintf("%d facts, up to log entry %d", d.Facts, d.Through)})
					if d.Missing > 0 {
						pairs = append(pairs, [2]string{"missing", fmt.Sprintf("the facts of %d log entries, which the leader has yet to get from other nodes", d.Missing)})
					}
					if d.DroppedBefore > 0 {
						pairs = append(pairs, [2]string{"dropped", fmt.Sprintf("routine facts up to log entry %d had gone in part before they could be exported", d.DroppedBefore)})
					}
				}
				return facts(out, pairs)
			})
		}),
	}
}

func serverLine(d *resource.HistoryDatabase) string {
	if d.ServerVersion == "" {
		return ""
	}
	return fmt.Sprintf("PostgreSQL %s, %d connections of %d, of which it grants %d", d.ServerVersion, d.Connections, d.MaxConnections, d.Granted)
}

// databaseLine says in one line how the export stands.
func databaseLine(d *resource.HistoryDatabase) string {
	waiting := "nothing waits"
	if d.Waiting > 0 {
		more := ""
		if d.WaitingMore {
			more = "more than "
		}
		waiting = fmt.Sprintf("%s%s, the oldest for %s", more, counted(d.Waiting, "fact waits", "facts wait"), span(time.Duration(d.LagSeconds*float64(time.Second))))
	}
	switch {
	case d.Refused:
		return "REFUSED; " + waiting
	case !d.Usable && d.Error == "":
		return "connecting; " + waiting
	case !d.Usable:
		return "AWAY; " + waiting
	}
	return "usable; " + waiting
}

// databaseText is the line of "certctl status": the leader knows it, and the status is
// shown without it too.
func databaseText(ctx context.Context, c *client.Client) string {
	s, err := c.ShowHistoryStatus(ctx)
	if err != nil {
		return "no leader says how it stands"
	}
	if s.Database == nil {
		return "the leader has none configured, unlike the node that answered"
	}
	line := databaseLine(s.Database)
	if s.Database.Error != "" || s.Database.Warning != "" {
		line += "; see \"certctl history status\""
	}
	return line
}

func (p *program) pruneHistoryCommand() *cobra.Command {
	var before string
	var yes, dry bool
	cmd := &cobra.Command{
		Use: "prune --before TIME", Short: "Drop old months of routine facts from the database", Args: sharedcli.NoArgs,
		Long: `Drops the months of routine facts that ended before a time from the database. It says
first what would go, and asks. A month goes whole or stays. The audit trail stays.`,
		Example: `  certctl history prune --before 2025-01-01 --dry-run
  certctl history prune --before 400d`,
		RunE: p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			at, err := instant("before", before, time.Now())
			if err != nil {
				return err
			}
			wanted := resource.PruneHistory{Before: at, DryRun: true}
			plan, err := c.PruneHistory(cmd.Context(), wanted)
			if err != nil {
				return err
			}
			if dry || len(plan.Months) == 0 {
				return p.show(cmd, plan, func(out io.Writer, _ time.Time) error { return prunedTable(out, plan, "would go") })
			}
			if !yes {
				if err := prunedTable(cmd.ErrOrStderr(), plan, "would go"); err != nil {
					return err
				}
			}
			if err := confirm(cmd, yes); err != nil {
				return err
			}
			wanted.DryRun = false
			done, err := c.PruneHistory(cmd.Context(), wanted)
			if err != nil {
				return err
			}
			return p.show(cmd, done, func(out io.Writer, _ time.Time) error { return prunedTable(out, done, "gone") })
		}),
	}
	cmd.Flags().StringVar(&before, "before", "", "months that ended before this: a date, a time, or how long ago (2025-01-01, 400d)")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would go")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	_ = cmd.MarkFlagRequired("before")
	return cmd
}

func prunedTable(out io.Writer, plan *resource.PrunedHistory, verb string) error {
	if len(plan.Months) == 0 {
		_, err := fmt.Fprintln(out, "no month of routine facts is that old")
		return err
	}
	var rows [][]string
	for _, m := range plan.Months {
		rows = append(rows, []string{m.Month, fmt.Sprint(m.Facts), megabytes(m.Bytes)})
	}
	if err := table(out, []string{"MONTH", "ROUTINE FACTS", "SIZE"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s: %s of routine facts, %s, %s. The audit trail stays.\n", verb, counted(len(plan.Months), "month", "months"),
		counted(int(plan.Facts), "fact", "facts"), megabytes(plan.Bytes))
	return err
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
