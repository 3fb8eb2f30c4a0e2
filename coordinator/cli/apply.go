package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/assignmentfile"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/wire"
)

// shownRefusals is how many hosts that refuse an assignment a plan names.
const shownRefusals = 3

func (p *program) applyAssignmentsCommand() *cobra.Command {
	var files []string
	var dry, strict bool
	cmd := &cobra.Command{
		Use: "apply -f FILE|-|DIRECTORY", Short: "Create or change assignments from files", Args: sharedcli.NoArgs,
		Long: `Makes assignments be as files say. A file is YAML of one or more documents; a
directory stands for its .yaml, .yml and .json files.

  name: www
  selector: env=prod,role in (web,api)
  certificate:
    names: ["${hostname}", "www.${label.site}.example.com"]
    deployments:
      - files: {fullchain: /etc/nginx/tls/www.pem, key: /etc/nginx/tls/www.key}
        check: [nginx, -t]
        reload: [systemctl, reload, nginx]

The certificate has the keys of an entry of the agent configuration's certificates.
Every file is checked, and every change is tried at the coordinator, before the first
one is made. What is as wanted already is left alone. An assignment that somebody
else changes meanwhile is not overwritten. Assignments that no file has stay.

--dry-run shows which hosts would get which certificate, have it changed or lose it, are not
allowed it by their enrolment, or have refused it so far. The hosts' own rules are
not known to the coordinator: what a host that has not had it makes of it,
"certctl assignments hosts NAME" shows afterwards. With --fail-on-refused nothing is
changed, and the exit status is 3, if a host is not allowed it or has refused it so far.`,
		Example: `  certctl assignments apply -f www.yaml --dry-run
  certctl assignments apply -f assignments/
  certctl assignments apply -f assignments/ --dry-run --fail-on-refused
  certctl assignments export | sed s/letsencrypt/zerossl/ | certctl assignments apply -f -`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			given, err := assignmentfile.Read(cmd.InOrStdin(), files)
			if err != nil {
				return err
			}
			c, err := p.target.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			plan, err := planAssignments(cmd.Context(), c, given)
			if err != nil {
				return err
			}
			refused := refusals(plan)
			if dry || strict && refused != nil {
				if err := p.showApplied(cmd, &applied{DryRun: true, Assignments: plan}); err != nil || !strict {
					return err
				}
				return refused
			}
			return p.apply(cmd, c, given, plan)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&files, "file", "f", nil, "file or directory to read; - is standard input; may be repeated")
	flags.BoolVar(&dry, "dry-run", false, "show what would change on which host, and change nothing")
	flags.BoolVar(&strict, "fail-on-refused", false, "change nothing, and exit with status 3, if a host is not allowed it or has refused it so far")
	_ = cmd.MarkFlagRequired("file")
	return cmd
}

// errHostsRefuse is that a plan is not for all of its hosts.
var errHostsRefuse = errors.New("nothing was changed")

// refusals are the hosts of a plan that are known not to take what it says.
func refusals(plan []resource.AssignmentResult) error {
	hosts := 0
	for i := range plan {
		hosts += plan[i].Hosts.NotAllowed + plan[i].Hosts.Refused
	}
	if hosts == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s not allowed it, or refused it so far", errHostsRefuse, counted(hosts, "host is", "hosts are"))
}

// applied is what "apply" prints as JSON.
type applied struct {
	DryRun      bool                        `json:"dry_run"`
	Assignments []resource.AssignmentResult `json:"assignments"`
}

// Rows implements sheet.Rower.
func (a *applied) Rows() any { return a.Assignments }

// planAssignments asks what each change would come to. One that would be refused
// stops all.
func planAssignments(ctx context.Context, c *client.Client, given []*assignmentfile.Given) ([]resource.AssignmentResult, error) {
	plan := make([]resource.AssignmentResult, len(given))
	var problems []error
	for i, g := range given {
		planned, err := c.PutAssignment(ctx, client.PutAssignmentParams{Name: g.Name, DryRun: true}, g.PutAssignment)
		if problem, refused := errors.AsType[*wire.Problem](err); refused && problem.Field != "" {
			err = fmt.Errorf("%s: %w", g.Position(problem.Field), err)
			problems = append(problems, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		plan[i] = *planned
	}
	return plan, errors.Join(problems...)
}

// apply makes the changes of a plan that are any.
func (p *program) apply(cmd *cobra.Command, c *client.Client, given []*assignmentfile.Given, plan []resource.AssignmentResult) error {
	out := cmd.OutOrStdout()
	human := p.output.Human()
	if human {
		for i := range plan {
			if err := writePlan(out, &plan[i]); err != nil {
				return err
			}
		}
	}
	done := &applied{Assignments: []resource.AssignmentResult{}}
	for i, g := range given {
		result := plan[i]
		result.DryRun = false
		if result.Change != "unchanged" {
			wish := g.PutAssignment
			// The change was shown for this revision; on another it may do
			// something else.
			before := result.Assignment.Revision - 1
			wish.Revision = &before
			made, err := c.PutAssignment(cmd.Context(), client.PutAssignmentParams{Name: g.Name}, wish)
			if err != nil {
				return fmt.Errorf("%s: the assignment %q: %w; %d of %d are as wanted: apply again to go on", g.Position("name"), g.Name, err, i, len(given))
			}
			result = *made
			if human {
				fmt.Fprintf(out, "%s: %s, revision %d\n", plain(g.Name), result.Change, result.Assignment.Revision)
			}
		}
		done.Assignments = append(done.Assignments, result)
	}
	if human {
		return nil
	}
	return p.output.Write(out, done, nil)
}

// writePlan says in a line what a change does, and names hosts that refuse it.
func writePlan(out io.Writer, r *resource.AssignmentResult) error {
	if _, err := fmt.Fprintln(out, plain(planText(r))); err != nil {
		return err
	}
	shown := 0
	for _, host := range r.Hosts.Items {
		if host.Change != "not_allowed" && host.Refused == "" {
			continue
		}
		if shown++; shown > shownRefusals {
			_, err := fmt.Fprintf(out, "  and %d more; --dry-run names them\n", r.Hosts.NotAllowed+r.Hosts.Refused-shownRefusals)
			return err
		}
		if host.Refused != "" {
			fmt.Fprintf(out, "  REFUSED so far by %s (%s): %s\n", plain(host.Hostname), plain(host.AgentID), plain(host.Refused))
			continue
		}
		fmt.Fprintf(out, "  REFUSED for %s (%s): %s\n", plain(host.Hostname), plain(host.AgentID), plain(host.Detail))
	}
	return nil
}

// planText is a change and what it does to hosts.
func planText(r *resource.AssignmentResult) string {
	var hosts []string
	for _, part := range []struct {
		n         int
		does, all string
	}{
		{r.Hosts.Added, "gets it", "get it"}, {r.Hosts.Changed, "changes it", "change it"}, {r.Hosts.Removed, "loses it", "lose it"},
		{r.Hosts.NotAllowed, "is REFUSED it", "are REFUSED it"}, {r.Hosts.Unchanged, "keeps it as it is", "keep it as it is"},
	} {
		if part.n > 0 {
			hosts = append(hosts, counted(part.n, part.does, part.all))
		}
	}
	does := map[string]string{"created": "is new", "changed": "changes", "unchanged": "is unchanged", "deleted": "is deleted"}[r.Change]
	switch {
	case len(hosts) == 0 && r.Change == "deleted": // some may match that it was never sent to
		return fmt.Sprintf("%s %s; no host has it", r.Assignment.Name, does)
	case len(hosts) == 0:
		return fmt.Sprintf("%s %s; no host matches", r.Assignment.Name, does)
	}
	text := fmt.Sprintf("%s %s; hosts: %s", r.Assignment.Name, does, strings.Join(hosts, ", "))
	if r.Hosts.Refused > 0 {
		text += fmt.Sprintf("; %d of them REFUSED it so far, by their own rules", r.Hosts.Refused)
	}
	return text
}

// changeWords are how a table says what happens to a host.
var changeWords = map[string]string{"added": "gets it", "changed": "changes it", "removed": "loses it", "not_allowed": "REFUSED", "unchanged": "keeps it"}

// showApplied writes a dry run.
func (p *program) showApplied(cmd *cobra.Command, done *applied) error {
	return p.show(cmd, done, func(out io.Writer, _ time.Time) error {
		var rows [][]string
		for _, r := range done.Assignments {
			for _, host := range r.Hosts.Items {
				detail := host.Detail
				if host.Refused != "" {
					detail += " (REFUSED so far by the host's own rules: " + host.Refused + ")"
				}
				if host.Shadowed {
					detail += " (shadowed: the host's own configuration has a certificate of this name, which wins)"
				}
				rows = append(rows, []string{r.Assignment.Name, host.Hostname, host.AgentID, changeWords[host.Change], detail})
			}
		}
		if len(rows) > 0 {
			if err := table(out, []string{"ASSIGNMENT", "HOST", "AGENT", "CHANGE", "DETAIL"}, rows); err != nil {
				return err
			}
			fmt.Fprintln(out)
		}
		asked := false
		for i := range done.Assignments {
			r := &done.Assignments[i]
			asked = asked || r.Hosts.Added+r.Hosts.Changed > 0
			text := planText(r)
			if r.Hosts.Omitted > 0 {
				text += fmt.Sprintf(" (%s not listed)", counted(r.Hosts.Omitted, "host is", "hosts are"))
			}
			fmt.Fprintln(out, plain(text))
		}
		if asked {
			fmt.Fprintln(out, "whether they take it, the hosts decide by their own rules, which are not known here; \"certctl assignments hosts NAME\" shows it afterwards")
		}
		_, err := fmt.Fprintln(out, "dry run: nothing was changed")
		return err
	})
}
