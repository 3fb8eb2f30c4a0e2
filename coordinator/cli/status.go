package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

func (p *program) statusCommand() *cobra.Command {
	var watch watching
	cmd := &cobra.Command{
		Use: "status", Short: "Show the coordinator and its fleet at a glance", Args: sharedcli.NoArgs,
		Long: `Shows the node that answers, how many hosts are connected and how their certificates are,
how long all of them are safe if nothing could be renewed, and what needs a person.`,
		Example: `  certctl status
  certctl status --watch
  certctl status --output json | jq .certificates`,
		RunE: watch.or(func(cmd *cobra.Command, _ []string) error {
			view := statusView{p: p}
			return watchOne(p, cmd, &watch, watched[resource.Status]{read: view.read, human: view.human, standing: withoutClocks})
		}, p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			view := statusView{p: p}
			s, err := view.read(cmd.Context(), c)
			if err != nil {
				return err
			}
			return p.show(cmd, s, func(out io.Writer, now time.Time) error { return view.human(out, s, now) })
		})),
	}
	watch.bind(cmd, "")
	return cmd
}

// withoutClocks is a status without what changes all the time.
func withoutClocks(s *resource.Status) any {
	standing := *s
	standing.Time, standing.AsOf, standing.Node.AppliedIndex = time.Time{}, time.Time{}, 0
	standing.Journal.Facts, standing.Journal.AuditFacts, standing.Journal.Bytes = 0, 0, 0
	return standing
}

// statusView is what a person is shown of a status beside it.
type statusView struct {
	p                  *program
	answered, database string
	attention          []string
}

// read asks for a status, and for a person what else there is to say.
func (v *statusView) read(ctx context.Context, c *client.Client) (*resource.Status, error) {
	s, err := c.ShowStatus(ctx)
	if err != nil {
		return nil, err
	}
	v.answered = v.p.answeredBy(s.Node.ID)
	if !v.p.output.Human() {
		return s, nil
	}
	v.attention, v.database = ordersAttention(ctx, c, &s.Orders), ""
	if s.Database {
		v.database = databaseText(ctx, c)
	}
	return s, nil
}

func (v *statusView) human(out io.Writer, s *resource.Status, now time.Time) error {
	node := "not ready"
	if s.Node.Ready {
		node = "ready"
	}
	if s.Node.Leading {
		node += ", leading"
	} else if s.Node.Leader != "" {
		node += ", led by " + s.Node.Leader
	}
	journal := fmt.Sprintf("%d facts and %d of the audit trail, %d of %d MiB", s.Journal.Facts, s.Journal.AuditFacts, s.Journal.Bytes>>20, s.Journal.MaxBytes>>20)
	if s.Journal.NearlyFull {
		journal += ", NEARLY FULL"
	}
	if s.Journal.Dropped > 0 {
		journal += fmt.Sprintf(", %d dropped for want of room", s.Journal.Dropped)
	}
	agents := fmt.Sprintf("%d: %d connected, %d cut off; %d retired", s.Agents.Active, s.Agents.Connected, s.Agents.CutOff, s.Agents.Retired)
	if s.Agents.Warned > 0 {
		agents += fmt.Sprintf("; %d WITH WARNINGS, see \"certctl agents list\"", s.Agents.Warned)
	}
	pairs := [][2]string{
		{"coordinator", s.Version + ", " + node},
		{"answered by", v.answered},
		{"agents", agents},
		{"certificates", healthText(s.Certificates) + attentionText(s.NeedingAttention)},
		{"safe until", first(fleetNotSafe(s), horizon(s.SafeUntil, now), "no certificate is in service")},
		{"orders", fmt.Sprintf("%d open", s.OrdersPending)},
	}
	if s.Journal.MaxBytes > 0 { // a token with a scope is not told of the journal
		pairs = append(pairs, [2]string{"journal", journal})
	}
	for _, line := range v.attention {
		pairs = append(pairs, [2]string{"ORDERS", line})
	}
	if v.database != "" {
		pairs = append(pairs, [2]string{"database", v.database})
	}
	for i, host := range s.Earliest {
		name := "first host"
		if i > 0 {
			name = "then"
		}
		pairs = append(pairs, [2]string{name, fmt.Sprintf("%s (%s): %s", host.Hostname, host.AgentID, first(notSafe(host.NotSafe), horizon(host.SafeUntil, now)))})
	}
	return facts(out, pairs)
}

// answeredBy is the node that has answered, and where it was asked.
func (p *program) answeredBy(node string) string {
	if p.target.connected == nil {
		return node
	}
	return strings.TrimSpace(fmt.Sprintf("%s (%s)", node, p.target.connected.Answered()))
}

// fleetNotSafe says of how many hosts certificates are not safe now.
func fleetNotSafe(s *resource.Status) string {
	if s.NotSafe == 0 {
		return ""
	}
	return fmt.Sprintf("%s: %s on %s, as last reported", notSafe(s.NotSafe),
		counted(s.NotSafe, "certificate", "certificates"), counted(s.Agents.NotSafe, "host", "hosts"))
}

// attentionText adds how many of some certificates ask for a person.
func attentionText(n int) string {
	if n == 0 {
		return ""
	}
	return "; " + counted(n, "NEEDS", "NEED") + " ATTENTION"
}

func (p *program) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Show whose token this is", Args: sharedcli.NoArgs,
		Example: `  certctl whoami`,
		Long:    `Shows the name and the role of the API token in use, and until when it is good.`,
		RunE: p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			who, err := c.Whoami(cmd.Context())
			if err != nil {
				return err
			}
			return p.show(cmd, who, func(out io.Writer, now time.Time) error {
				return facts(out, [][2]string{{"name", who.Name}, {"role", who.Role}, {"token", who.TokenID}, {"hosts", scopeText(who.Scope)}, {"good until", first(moment(who.ExpiresAt, now), "it is revoked")}})
			})
		}),
	}
}
