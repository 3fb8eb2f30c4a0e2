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
)

// maxTrendDays is how many days the coordinator tells at most.
const maxTrendDays = 400

func (p *program) reportTrendsCommand() *cobra.Command {
	days, by := 90, ""
	cmd := &cobra.Command{
		Use: "trends", Short: "Report what each day or week came to: hosts at risk and cut off, renewals, failures", Args: sharedcli.NoArgs,
		Long: `Reports how the fleet stood at the end of each day, and what came in on it: renewals, those
that hosts did while they were cut off, and failures, in the end by issuer and reason.

Above the table there is a mark for each day or week, scaled to the highest of them: from
"_" for none by . : - = + * to "#", and a blank where nothing is known. Of a week the
highest numbers of hosts count. Days and weeks are those of UTC, weeks begin on Monday.

The last line is what there is now, and came in today. docs/operator/reports.md says how
days are counted, and what it means that one is missing.`,
		Example: `  certctl report trends
  certctl report trends --days 14
  certctl report trends --days 365 --by week
  certctl report trends --days 400 --output csv > days.csv`,
		RunE: p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			if days < 1 || days > maxTrendDays {
				return fmt.Errorf("flag --days %d: expected 1 to %d", days, maxTrendDays)
			}
			report, err := c.ListDayReport(cmd.Context(), client.ListDayReportParams{Days: uint64(days)})
			if err != nil {
				return err
			}
			t := trends{days: report.Items, count: days, weekly: by == "week" || by == "" && days > 21}
			if p.output.Human() {
				if err := t.now(cmd.Context(), c); err != nil {
					return err
				}
			}
			return p.show(cmd, &listOf[resource.DayReport]{Items: report.Items}, t.write)
		}),
	}
	cmd.Flags().IntVar(&days, "days", days, "of how many days, today among them")
	choice(cmd, &by, "by", "a line for each; absent: day up to 21 days, else week", "day", "week")
	return cmd
}

// trends are days as they are shown.
type trends struct {
	days   []resource.DayReport
	count  int // days that were asked for
	weekly bool
	fleet  resource.FleetStanding // as it stands now
}

// now asks how the fleet stands now.
func (t *trends) now(ctx context.Context, c *client.Client) error {
	report, err := c.ListSyncReport(ctx, client.ListSyncReportParams{Limit: 1})
	if err != nil {
		return err
	}
	t.fleet = report.Fleet
	return nil
}

// write writes them for a person.
func (t *trends) write(out io.Writer, now time.Time) error {
	stretches := t.stretches(now.UTC())
	if err := t.marks(out, stretches); err != nil {
		return err
	}
	kind := "DAY"
	if t.weekly {
		kind = "WEEK OF"
	}
	var rows [][]string
	for i := range stretches {
		if s := &stretches[i]; s.known > 0 {
			rows = append(rows, s.cells())
		}
	}
	if err := table(out, []string{kind, "HOSTS", "CUT OFF", "AT RISK", "CERTIFICATES", "EXPIRED", "RENEWED", "OFFLINE", "FAILED", "NOTE"}, rows); err != nil {
		return err
	}
	return t.byIssuer(out)
}
