package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/assignmentfile"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/settings"
)

func (p *program) assignmentsCommand() *cobra.Command {
	return group(&cobra.Command{Use: "assignments", Aliases: []string{"assignment"}, Short: "Certificates that are defined for many hosts: apply, list, show, hosts, export, delete", Long: `An assignment defines a certificate for all hosts whose labels a selector matches. It is
kept in files, and made so with "apply".`},
		p.applyAssignmentsCommand(), p.listAssignmentsCommand(), p.showAssignmentCommand(), p.assignmentHostsCommand(),
		p.exportAssignmentsCommand(), p.deleteAssignmentCommand())
}

// essence is what a list shows of a definition.
type essence struct {
	Names  []string `json:"names"`
	Issuer string   `json:"issuer"`
}

func essenceOf(definition json.RawMessage) essence {
	var e essence
	_ = json.Unmarshal(definition, &e) // a later version's has what it has
	e.Issuer = first(e.Issuer, "coordinator")
	return e
}

func (p *program) listAssignmentsCommand() *cobra.Command {
	var page listFlags
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List assignments, and on how many hosts they are in force", Args: sharedcli.NoArgs,
		Long: `Lists the assignments, with how many hosts each matches, and at how many of them it is in
force, waits, or is refused. "certctl assignments hosts" names them.`,
		Example: `  certctl assignments list`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printList(p, cmd, &page, pagesOf(client.ListAssignmentsParams{Hosts: true}), assignmentListing)
		},
	}
	page.bind(cmd)
	return cmd
}

var assignmentListing = listing[resource.ListedAssignment]{
	header: []string{"ASSIGNMENT", "SELECTOR", "NAMES", "ISSUER", "REVISION", "HOSTS", "CHANGED", "BY"},
	cells: func(a *resource.ListedAssignment, now time.Time) []string {
		e, hosts := essenceOf(a.Certificate), "" // from a coordinator that does not count them
		if a.Hosts != nil {
			hosts = standingText(a.Hosts)
		}
		return []string{a.Name, a.Selector, strings.Join(e.Names, ","), e.Issuer, strconv.FormatUint(a.Revision, 10), hosts, distance(a.UpdatedAt, now), a.UpdatedBy}
	},
}

func (p *program) showAssignmentCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show one assignment, and how many hosts have it", Args: sharedcli.ExactArgs(1), ValidArgsFunction: p.completeAssignments(),
		Long:    `Shows the definition of one assignment, who changed it last, and how many hosts have it.`,
		Example: `  certctl assignments show www`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			a, err := c.ShowAssignment(cmd.Context(), client.ShowAssignmentParams{Name: args[0]})
			if err != nil {
				return err
			}
			return p.show(cmd, a, func(out io.Writer, now time.Time) error {
				if err := facts(out, [][2]string{
					{"assignment", a.Name}, {"selector", a.Selector}, {"hosts", standingText(&a.Hosts.AssignmentCounts)}, {"revision", strconv.FormatUint(a.Revision, 10)},
					{"created", moment(a.CreatedAt, now) + ", by " + a.CreatedBy}, {"changed", moment(a.UpdatedAt, now) + ", by " + a.UpdatedBy},
				}); err != nil {
					return err
				}
				text, err := settings.YAML(a.Certificate)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(out, "certificate:\n%s", indented(string(text)))
				return err
			})
		}),
	}
}

// indented puts two spaces before each line.
func indented(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString("  " + line)
	}
	return out.String()
}

func standingText(s *resource.AssignmentCounts) string {
	parts := []string{fmt.Sprintf("%d match", s.Matched)}
	for _, part := range []struct {
		n    int
		text string
	}{
		{s.Active, "active"}, {s.Waiting, "waiting"}, {s.Shadowed, "shadowed by a certificate of their own"}, {s.Refused, "REFUSED by the host"}, {s.NotAllowed, "NOT ALLOWED"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.text))
		}
	}
	return strings.Join(parts, ", ")
}

func (p *program) assignmentHostsCommand() *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use: "hosts NAME", Short: "Show where an assignment stands on its hosts", Args: sharedcli.ExactArgs(1), ValidArgsFunction: p.completeAssignments(),
		Long: `Shows where an assignment stands on each host that it matches; those that need
somebody come first.

  active       the host manages the certificate
  waiting      the host has not said yet what it made of this revision
  shadowed     the host's own configuration has a certificate of this name, which wins
  refused      the host does not take it; the detail says why
  not_allowed  it is not sent to the host; the detail says why`,
		Example: `  certctl assignments hosts www
  certctl assignments hosts www --state refused`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			a, err := c.ShowAssignment(cmd.Context(), client.ShowAssignmentParams{Name: args[0]})
			if err != nil {
				return err
			}
			if a.Hosts.Omitted > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "certctl: %s left out, which stand no worse than these\n", counted(a.Hosts.Omitted, "more host is", "more hosts are"))
			}
			hosts := []resource.AssignmentHost{}
			for _, host := range a.Hosts.Items {
				if state == "" || host.State == state {
					hosts = append(hosts, host)
				}
			}
			a.Hosts.Items = hosts
			return p.show(cmd, a.Hosts, func(out io.Writer, now time.Time) error {
				var rows [][]string
				for _, host := range hosts {
					rows = append(rows, []string{host.Hostname, host.AgentID, standingWord(host.State), distance(host.At, now), host.Detail})
				}
				return table(out, []string{"HOST", "AGENT", "STATE", "SAID", "DETAIL"}, rows)
			})
		}),
	}
	choice(cmd, &state, "state", "only hosts in this state", "active", "waiting", "shadowed", "refused", "not_allowed")
	return cmd
}

// standingWord writes what needs somebody in capitals.
func standingWord(state string) string {
	if state == "refused" || state == "not_allowed" {
		return strings.ToUpper(strings.ReplaceAll(state, "_", " "))
	}
	return state
}

func (p *program) exportAssignmentsCommand() *cobra.Command {
	var revisions bool
	cmd := &cobra.Command{
		Use: "export [NAME...]", Short: "Write assignments as YAML that apply takes back", ValidArgsFunction: p.completeManyAssignments,
		Long: `Writes assignments, all of them if none is named, as YAML that "certctl assignments
apply" takes back. With --revisions each has the revision that it is: applied later,
it is refused if somebody has changed it in the meantime.`,
		Example: `  certctl assignments export > assignments.yaml
  certctl assignments export www --revisions > www.yaml`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			all, err := assignments(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			if p.output == sharedcli.OutputYAML { // it is YAML, and apply takes no other
				return writeAssignments(cmd.OutOrStdout(), all, revisions)
			}
			return p.show(cmd, listOf[resource.Assignment]{Items: all}, func(out io.Writer, _ time.Time) error {
				return writeAssignments(out, all, revisions)
			})
		}),
	}
	cmd.Flags().BoolVar(&revisions, "revisions", false, "with the revision of each")
	return cmd
}

func writeAssignments(out io.Writer, all []resource.Assignment, revisions bool) error {
	for i := range all {
		text, err := assignmentfile.Write(&all[i], revisions)
		if err != nil {
			return err
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// assignments are those with the names, or all.
func assignments(ctx context.Context, c *client.Client, names []string) ([]resource.Assignment, error) {
	var all []resource.Assignment
	if len(names) == 0 {
		for one, err := range c.AllAssignments(ctx, client.ListAssignmentsParams{}) {
			if err != nil {
				return nil, err
			}
			all = append(all, one.Assignment)
		}
		return all, nil
	}
	for _, name := range names {
		one, err := c.ShowAssignment(ctx, client.ShowAssignmentParams{Name: name})
		if err != nil {
			return nil, err
		}
		all = append(all, one.Assignment)
	}
	return all, nil
}

func (p *program) deleteAssignmentCommand() *cobra.Command {
	var dry, yes bool
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete an assignment", Args: sharedcli.ExactArgs(1), ValidArgsFunction: p.completeAssignments(),
		Long: `Deletes an assignment, after showing which hosts lose it. At their next sync they
stop managing the certificate; its files stay where they are, and expire there.`,
		Example: `  certctl assignments delete www --dry-run
  certctl assignments delete www --yes`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			planned, err := c.DeleteAssignment(cmd.Context(), client.DeleteAssignmentParams{Name: args[0], DryRun: true})
			if err != nil {
				return err
			}
			if dry {
				return p.showApplied(cmd, &applied{DryRun: true, Assignments: []resource.AssignmentResult{*planned}})
			}
			if !yes {
				fmt.Fprintln(cmd.ErrOrStderr(), plain(planText(planned)))
			}
			if err := confirm(cmd, yes); err != nil {
				return err
			}
			// What was shown is what is deleted.
			gone, err := c.DeleteAssignment(cmd.Context(), client.DeleteAssignmentParams{Name: args[0], Revision: planned.Assignment.Revision})
			if err != nil {
				return err
			}
			return p.show(cmd, gone, func(out io.Writer, _ time.Time) error {
				_, err := fmt.Fprintln(out, plain(planText(gone)))
				return err
			})
		}),
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "show which hosts lose it, and delete nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it without asking")
	return cmd
}
