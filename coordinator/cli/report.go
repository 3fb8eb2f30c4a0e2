package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

func (p *program) reportCommand() *cobra.Command {
	return group(&cobra.Command{Use: "report", Aliases: []string{"reports"}, Short: "How the fleet stands",
		Long: `Reports put together what single hosts and certificates do not show: how many are well,
which are at risk, what to do first, and how that was on the days before.`}, p.reportSyncCommand(), p.reportHostCommand(), p.reportTrendsCommand())
}

// hostRisks are the risks of hosts, the worst first, and what to do about each.
var hostRisks = []struct{ risk, mend string }{
	{"expired", `"certctl certificates list --agent AGENT" says which, and why`},
	{"unserved", `"certctl certificates list --agent AGENT" says where, and why`},
	{"expiring", `"certctl certificates list --agent AGENT" says what fails; get a host that is cut off back in touch`},
	{"cut_off", `"certctl-agent status" on the host says whether its agent runs and whom it reaches; for a host that is gone for good: "certctl agents retire AGENT"`},
	{"attention", `"certctl certificates list --agent AGENT" and "certctl agents show AGENT" say what to do`},
	{"warned", `"certctl agents show AGENT" says of what, and by how much its clock is wrong`},
	{"none", ""},
}

// defaultHosts is how many hosts the report lists unless it is told otherwise: with the
// sums above them, they fit a screen.
const defaultHosts = 25

// syncShown is the report as it is shown.
type syncShown struct {
	Fleet    resource.FleetStanding  `json:"fleet"`
	Activity *resource.FleetActivity `json:"activity,omitempty"`
	listOf[resource.HostStanding]
}

// syncFlags are those of the report.
type syncFlags struct {
	limit              int
	all, noHeaders     bool
	labels, risks      []string
	connection, binary string
	width              int // of the terminal; 0 is no terminal
}

func (p *program) reportSyncCommand() *cobra.Command {
	var flags syncFlags
	var watch watching
	cmd := &cobra.Command{
		Use: "sync", Short: "Report how the fleet stands, and the hosts at risk, the worst first", Args: sharedcli.NoArgs,
		Long: `Reports how the fleet stands in sums, and below them the hosts at risk, the worst first:

  expired    serves what has expired or was revoked
  unserved   a certificate is not in service where it should be
  expiring   safe for less than a week, and cut off, or a renewal fails
  cut_off    not heard of for several syncs; it goes on by itself
  attention  something needs a person
  warned     warns of something about itself, or its clock is wrong

--all lists every host, also those that are well. --label narrows the sums too; the other
filters narrow the list alone. docs/operator/reports.md says what each field means.

As CSV there is a line for each host and no sums.`,
		Example: `  certctl report sync
  certctl report sync --label env=prod --watch
  certctl report sync --risk expired,unserved,expiring --limit 100
  certctl report sync --all --output csv > fleet.csv`,
		RunE: p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			if flags.limit < 1 {
				return fmt.Errorf("flag --limit %d: expected 1 or more, or --all", flags.limit)
			}
			flags.width = terminalWidth(cmd.OutOrStdout())
			if watch.on {
				return watchOne(p, cmd, &watch, watched[syncShown]{
					read:  flags.read,
					human: func(out io.Writer, v *syncShown, now time.Time) error { return flags.write(out, v, now) },
					line:  func(v *syncShown) string { return fleetLine(&v.Fleet) },
					standing: func(v *syncShown) any {
						if p.output.Human() {
							return fleetLine(&v.Fleet)
						}
						return v
					},
				})
			}
			if p.output == sharedcli.OutputCSV {
				return flags.csv(p, cmd, c)
			}
			v, err := flags.read(cmd.Context(), c)
			if err != nil {
				return err
			}
			return p.show(cmd, v, func(out io.Writer, now time.Time) error { return flags.write(out, v, now) })
		}),
	}
	flags.bind(cmd)
	watch.bind(cmd, "")
	return cmd
}

func (f *syncFlags) bind(cmd *cobra.Command) {
	risks := make([]string, 0, len(hostRisks))
	for _, r := range hostRisks {
		risks = append(risks, r.risk)
	}
	flags := cmd.Flags()
	flags.IntVar(&f.limit, "limit", defaultHosts, "list at most this many hosts")
	flags.BoolVar(&f.all, "all", false, "list every host, also those that are well")
	flags.BoolVar(&f.noHeaders, "no-headers", false, "leave out the first line of CSV, which names the columns")
	flags.StringArrayVar(&f.labels, "label", nil, "only hosts with label=value, in the sums too; may be repeated")
	choices(cmd, &f.risks, "risk", "list only hosts with these risks", risks...)
	choice(cmd, &f.connection, "connection", "list only hosts that are", "connected", "cut_off")
	flags.StringVar(&f.binary, "agent-version", "", "list only hosts with this version of the agent")
	cmd.MarkFlagsMutuallyExclusive("limit", "all")
}

// filtered reports whether the list leaves out hosts at risk.
func (f *syncFlags) filtered() bool { return len(f.risks) > 0 || f.connection != "" || f.binary != "" }

func (f *syncFlags) params() client.ListSyncReportParams {
	params := client.ListSyncReportParams{Label: f.labels, Risk: f.risks, Connection: f.connection, Version: f.binary}
	if !f.all && len(f.risks) == 0 {
		for _, r := range hostRisks {
			if r.risk != "none" {
				params.Risk = append(params.Risk, r.risk)
			}
		}
	}
	return params
}

// read reads the sums, and as many hosts as are wanted.
func (f *syncFlags) read(ctx context.Context, c *client.Client) (*syncShown, error) {
	v := &syncShown{}
	v.Items = []resource.HostStanding{}
	params := f.params()
	for {
		params.Limit = client.PageSize
		if !f.all {
			params.Limit = min(client.PageSize, f.limit-len(v.Items))
		}
		page, err := c.ListSyncReport(ctx, params)
		if err != nil {
			return nil, err
		}
		if params.Cursor == "" {
			v.Fleet, v.Activity = page.Fleet, page.Activity
		}
		v.Items = append(v.Items, page.Items...)
		switch {
		case page.NextCursor == "":
			return v, nil
		case !f.all && len(v.Items) >= f.limit:
			v.More = true
			return v, nil
		case page.NextCursor == params.Cursor:
			return nil, fmt.Errorf("the report does not end; use a certctl of the coordinator's version")
		}
		params.Cursor = page.NextCursor
	}
}

// maxTable bounds the CSV of all hosts, some millions of them.
const maxTable = 4 << 30

// csv writes the hosts as they come: all of them from one answer.
func (f *syncFlags) csv(p *program, cmd *cobra.Command, c *client.Client) error {
	if f.all && !f.noHeaders {
		return c.ListSyncReportCSV(cmd.Context(), f.params(), cmd.OutOrStdout(), maxTable)
	}
	return printList(p, cmd, &listFlags{limit: f.limit, all: f.all, noHeaders: f.noHeaders}, pagesOf(f.params()), listing[resource.HostStanding]{})
}

// write writes the report for a person.
func (f *syncFlags) write(out io.Writer, v *syncShown, now time.Time) error {
	fleet := &v.Fleet
	if fleet.Hosts == 0 {
		text := `no hosts: "certctl token create" makes a token with which a host enrols, by "certctl-agent enroll"`
		if len(f.labels) > 0 {
			text = `no host has these labels: "certctl agents list" shows which there are`
		}
		_, err := fmt.Fprintln(out, text)
		return err
	}
	pairs := fleetFacts(fleet, now)
	if a := v.Activity; a != nil {
		pairs = append(pairs, [2]string{"renewals", fmt.Sprintf("today %s; yesterday %s; in 7 days %s", renewalsText(&a.Today), renewalsText(&a.Yesterday), renewalsText(&a.Week))})
		if why := failuresText(&a.Week); why != "" {
			pairs = append(pairs, [2]string{"failures", why + ", in 7 days"})
		}
	}
	if err := facts(out, pairs); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "\n%s\n", expiringChart(fleet)); err != nil {
		return err
	}
	if len(v.Items) == 0 {
		text := "no host is at risk; --all lists every host"
		if f.filtered() || f.all {
			text = "no host is like that"
		}
		_, err := fmt.Fprintln(out, text)
		return err
	}
	if err := f.hosts(out, v.Items, now); err != nil {
		return err
	}
	return f.after(out, v)
}

// hosts writes a line for each host, and more where a terminal has no room for it.
func (f *syncFlags) hosts(out io.Writer, items []resource.HostStanding, now time.Time) error {
	var rows [][]string
	for i := range items {
		h := &items[i]
		rows = append(rows, wrapLast([]string{riskText(h.Risk), h.Hostname, h.AgentID, hostText(h, now)}, f.room(items))...)
	}
	return table(out, []string{"RISK", "HOST", "AGENT", "WHAT"}, rows)
}

// leastRoom is what a column of text gets however narrow the terminal is.
const leastRoom = 24

// room is how many letters there are for what is the matter with hosts; 0 is any number.
func (f *syncFlags) room(items []resource.HostStanding) int {
	if f.width == 0 {
		return 0
	}
	host, agent := len("HOST"), len("AGENT")
	for i := range items {
		host, agent = max(host, utf8.RuneCountInString(items[i].Hostname)), max(agent, utf8.RuneCountInString(items[i].AgentID))
	}
	return max(f.width-len("attention")-host-agent-6, leastRoom)
}

// after writes what there is to say below the hosts.
func (f *syncFlags) after(out io.Writer, v *syncShown) error {
	var text strings.Builder
	switch {
	case v.More && f.filtered():
		text.WriteString("these are the first; --limit shows more of them\n")
	case v.More:
		fmt.Fprintf(&text, "and %s more at risk; --limit shows more of them\n", counted(v.Fleet.AtRisk-len(v.Items), "host", "hosts"))
	}
	has := func(risk string) bool {
		return slices.ContainsFunc(v.Items, func(h resource.HostStanding) bool { return h.Risk == risk })
	}
	if slices.ContainsFunc(v.Items, func(h resource.HostStanding) bool { return h.Risk != "none" }) {
		text.WriteString("\nwhat to do, with the id of a host for AGENT\n")
	}
	for _, r := range hostRisks {
		if has(r.risk) && r.mend != "" {
			fmt.Fprintf(&text, "  %-9s  %s\n", riskWord(r.risk), strings.Join(wrapped(r.mend, mendWidth), "\n             "))
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// mendWidth lets what is to be done fit eighty columns.
const mendWidth = 66

func riskWord(risk string) string { return strings.ReplaceAll(risk, "_", " ") }

// riskText is a risk for a person: loud where something is out of order now.
func riskText(risk string) string {
	switch risk {
	case "expired", "unserved":
		return strings.ToUpper(risk)
	case "none":
		return "well"
	}
	return riskWord(risk)
}
