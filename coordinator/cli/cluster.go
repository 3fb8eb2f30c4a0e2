package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

func (p *program) clusterCommand() *cobra.Command {
	return group(&cobra.Command{Use: "cluster", Short: "The coordinator's nodes: members, health, joining, leaving, diagnosis", Long: `A cluster is one, three or five coordinators that know the same. These commands show
how its nodes stand, let nodes in and take them out, and help when something is wrong.`},
		p.membersCommand(), p.healthCommand(), p.transferCommand(), p.removeCommand(), p.joinTokenCommand(), p.rotateClusterCACommand(), p.diagnoseCommand())
}

func (p *program) membersCommand() *cobra.Command {
	var watch watching
	cmd := &cobra.Command{
		Use: "members", Aliases: []string{"list", "ls"}, Short: "List the nodes of the cluster and how they stand", Args: sharedcli.NoArgs,
		Long: `Lists the members of the cluster, as the node that is asked sees them: it asks each of
the others, which takes some seconds when one does not answer. It works without a
leader.

--watch goes on until it is interrupted, and lists them again whenever something has
changed: a node that joins, its vote, the leader, how they stand.`,
		Example: `  certctl cluster members
  certctl cluster members --watch --interval 10s
  certctl cluster members --output json | jq -r '.items[] | select(.leader).url'`,
		RunE: watch.or(func(cmd *cobra.Command, _ []string) error { return p.watchMembers(cmd, &watch) }, p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			m, err := c.ListMembers(cmd.Context())
			if err != nil {
				return err
			}
			return p.showMembers(cmd, m)
		})),
	}
	watch.bind(cmd, "")
	return cmd
}

// watchMembers lists the members whenever something has changed that somebody may
// wait for.
func (p *program) watchMembers(cmd *cobra.Command, flags *watching) error {
	return watchOne(p, cmd, flags, watched[resource.Members]{
		read: func(ctx context.Context, c *client.Client) (*resource.Members, error) {
			return c.ListMembers(ctx)
		},
		human:    p.writeMembers,
		standing: func(m *resource.Members) any { return withoutFigures(m.Items) },
	})
}

// withoutFigures is the members without what changes all the time.
func withoutFigures(members []resource.Member) []resource.Member {
	standing := append([]resource.Member{}, members...)
	for i := range standing {
		one := &standing[i]
		one.LeaderHeardSeconds, one.AppliedIndex, one.AppliedLag, one.ClockAheadSeconds, one.Reason = 0, 0, 0, 0, ""
		one.HistoryMissing = min(one.HistoryMissing, 1)
	}
	return standing
}

func (p *program) showMembers(cmd *cobra.Command, m *resource.Members) error {
	return p.show(cmd, m, func(out io.Writer, now time.Time) error { return p.writeMembers(out, m, now) })
}

func (p *program) writeMembers(out io.Writer, m *resource.Members, now time.Time) error {
	var rows [][]string
	for i := range m.Items {
		one := &m.Items[i]
		row := []string{one.ID, role(one), memberHealth(one), one.Address, one.Version, "", "", "", expiry(one.CertificateNotAfter, now), one.URL}
		if one.Health != resource.MemberUnreachable {
			row[5], row[6] = strconv.FormatUint(one.AppliedIndex, 10), strconv.FormatUint(one.AppliedLag, 10)
			if !one.Leader {
				row[7] = fmt.Sprintf("%.1f s ago", one.LeaderHeardSeconds)
			}
		}
		rows = append(rows, row)
	}
	if err := table(out, []string{"NODE", "ROLE", "HEALTH", "ADDRESS", "VERSION", "APPLIED", "BEHIND", "LEADER HEARD", "CERTIFICATE", "URL"}, rows); err != nil {
		return err
	}
	for i := range m.Items {
		one := &m.Items[i]
		if one.Reason != "" {
			fmt.Fprintf(out, "\n%s: %s\n", plain(one.ID), plain(one.Reason))
		}
		if one.HistoryMissing > 0 {
			fmt.Fprintf(out, "\n%s: its history lacks the facts of %s, which it gets from the others\n", plain(one.ID),
				counted(int(one.HistoryMissing), "log entry", "log entries")) //nolint:gosec // far below
		}
	}
	_, err := fmt.Fprintf(out, "\nas seen from %s; configuration %d\n", plain(p.answeredBy(m.AnsweredBy)), m.ConfigurationIndex)
	return err
}

func role(m *resource.Member) string {
	switch {
	case m.Leader:
		return "leader"
	case m.Voter:
		return "voter"
	}
	return "no vote yet"
}

// memberHealth says aloud what is not well.
func memberHealth(m *resource.Member) string {
	switch m.Health {
	case resource.MemberHealthy:
		return "healthy"
	case resource.MemberBehind:
		return "BEHIND"
	case resource.MemberCutOff:
		return "CUT OFF"
	case resource.MemberLeaderless:
		return "NO LEADER"
	case resource.MemberFailing:
		return "FAILING"
	case resource.MemberUnreachable:
		return "UNREACHABLE"
	}
	return string(m.Health)
}

// errUnhealthy is that the cluster has problems, which are told.
var errUnhealthy = errors.New("the cluster is not well")

func (p *program) healthCommand() *cobra.Command {
	var watch watching
	cmd := &cobra.Command{
		Use: "health", Short: "Say whether the cluster is well, and what to do if it is not", Args: sharedcli.NoArgs,
		Long: `Judges the cluster as the node that is asked sees it, and says of each problem what to
do about it. It works without a leader.

--watch goes on until the cluster is well, and writes a line whenever something has
changed: wait with it between the nodes of an upgrade.

Exit status: 0 the cluster is well, 1 it is not, 2 no node can be reached.`,
		Example: `  certctl cluster health
  certctl cluster health --watch
  certctl cluster health --output json | jq -r '.problems[].mend'`,
		RunE: watch.or(func(cmd *cobra.Command, _ []string) error { return p.watchHealth(cmd, &watch) }, p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			h, err := c.ShowClusterHealth(cmd.Context())
			if err != nil {
				return err
			}
			if err := p.showHealth(cmd, h); err != nil {
				return err
			}
			return unhealthy(h)
		})),
	}
	watch.bind(cmd, "the cluster is well")
	return cmd
}

func unhealthy(h *resource.ClusterHealth) error {
	if h.Healthy {
		return nil
	}
	problems := 0
	for _, problem := range h.Problems {
		if problem.Severity != resource.SeverityNote {
			problems++
		}
	}
	return fmt.Errorf("%w: %s", errUnhealthy, counted(problems, "problem", "problems"))
}

func (p *program) showHealth(cmd *cobra.Command, h *resource.ClusterHealth) error {
	return p.show(cmd, h, func(out io.Writer, now time.Time) error { return p.writeHealth(out, h, now) })
}

func (p *program) writeHealth(out io.Writer, h *resource.ClusterHealth, _ time.Time) error {
	word := "healthy"
	if !h.Healthy {
		word = "NOT HEALTHY"
	}
	pairs := [][2]string{
		{"cluster", word}, {"leader", first(h.Leader, "NONE IS KNOWN")}, {"voters", votersText(h)}, {"seen from", p.answeredBy(h.AnsweredBy)},
	}
	if r := h.CARotation; r != nil {
		pairs = append(pairs, [2]string{"CA rotation", rotationText(r)})
	}
	if err := facts(out, pairs); err != nil {
		return err
	}
	for _, problem := range h.Problems {
		word := string(problem.Severity)
		if problem.Severity == resource.SeverityCritical {
			word = "CRITICAL"
		}
		if _, err := fmt.Fprintf(out, "\n%s  %s\n  %s\n", word, plain(problem.Text), plain(problem.Mend)); err != nil {
			return err
		}
	}
	return nil
}

func votersText(h *resource.ClusterHealth) string {
	text := fmt.Sprintf("%d, of which %s; %s needed", h.Voters, counted(h.VotersWorking, "works", "work"), counted(h.Quorum, "is", "are"))
	switch {
	case h.VotersWorking < h.Quorum && slices.ContainsFunc(h.Problems, func(p resource.ClusterProblem) bool { return p.Code == "no_quorum" }):
		return text + ": NOTHING CAN BE STORED"
	case h.VotersWorking < h.Quorum:
		return text + ": CHANGES MAY SOON HAVE TO WAIT"
	case h.FailureTolerance == 0:
		return text + ": none more may fail"
	}
	return text + fmt.Sprintf(": %d more may fail", h.FailureTolerance)
}

func rotationText(r *resource.CARotation) string {
	text := map[string]string{
		"activate": "the new root is published and signs next", "retire": "the new root signs, and the old one goes next",
	}[r.NextStep]
	for i, w := range r.Waiting {
		joint := "; it waits for "
		if i > 0 {
			joint = ", "
		}
		text += joint + w.Node + " (" + w.Why + ")"
	}
	return text
}

// watchHealth writes how the cluster is until it is well.
func (p *program) watchHealth(cmd *cobra.Command, flags *watching) error {
	return watchOne(p, cmd, flags, watched[resource.ClusterHealth]{
		read: func(ctx context.Context, c *client.Client) (*resource.ClusterHealth, error) {
			return c.ShowClusterHealth(ctx)
		},
		human: p.writeHealth,
		line: func(h *resource.ClusterHealth) string {
			var told []string
			if h.Healthy {
				told = append(told, "the cluster is well")
			}
			for _, problem := range h.Problems {
				told = append(told, problem.Text)
			}
			return strings.Join(told, "; ")
		},
		standing: func(h *resource.ClusterHealth) any { return kinds(h.Problems) },
		over:     func(h *resource.ClusterHealth) bool { return h.Healthy },
	})
}

// kinds are the problems without their figures, which change all the time.
func kinds(problems []resource.ClusterProblem) []string {
	list := []string{}
	for _, problem := range problems {
		list = append(list, problem.Code+" "+problem.Node)
	}
	return list
}
