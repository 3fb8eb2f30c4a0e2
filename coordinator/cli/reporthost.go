package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

func (p *program) reportHostCommand() *cobra.Command {
	return &cobra.Command{
		Use: "host AGENT", Short: "Report how one host stands, and what it did lately", Args: sharedcli.ExactArgs(1), ValidArgsFunction: p.completeAgents(),
		Long: `Reports how one host stands, as "certctl report sync" does of all, with its last sync while
it is connected too, and what it renewed in the last seven days, also while it was cut
off. "certctl agents show" has more of the agent itself. AGENT is the host's id or name.`,
		Example: `  certctl report host u53n5nbgbmcuo7ob
  certctl report host web1.example.com`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			agent, err := agentID(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			h, err := c.ShowHostReport(cmd.Context(), client.ShowHostReportParams{ID: agent})
			if err != nil {
				return err
			}
			return p.show(cmd, h, func(out io.Writer, now time.Time) error { return facts(out, hostFacts(h, now)) })
		}),
	}
}

func hostFacts(h *resource.HostReport, now time.Time) [][2]string {
	d := &h.Deployments
	pairs := [][2]string{
		{"host", fmt.Sprintf("%s (%s), %s/%s, agent %s", h.Hostname, h.AgentID, h.OS, h.Arch, h.Version)},
		{"labels", labelText(h.Labels)},
		{"risk", strings.TrimSuffix(riskText(h.Risk)+": "+h.Reason, ": ")},
		{"to do", first(h.Mend, "nothing")},
		{"last sync", lastSync(h, now)},
		{"safe until", first(notSafe(h.NotSafe), horizon(h.SafeUntil, now), "it serves no certificate")},
		{"certificates", healthText(h.Health) + attentionText(h.NeedingAttention)},
		{"next expiry", first(moment(h.NextExpiry, now), "none")},
		{"deployments", deploymentsText(d)},
		{"last 7 days", activityText(&h.Activity)},
	}
	if text := skewText(h.ClockSkewSeconds); text != "" {
		pairs = append(pairs, [2]string{"clock", text + "; set it, and see to its time service"})
	}
	if h.FactsDropped > 0 {
		pairs = append(pairs, [2]string{"facts lost", fmt.Sprintf("%d were merged or dropped by a full outbox", h.FactsDropped)})
	}
	for _, warning := range h.Warnings {
		pairs = append(pairs, [2]string{"WARNING", warning})
	}
	return pairs
}

// lastSync is when the host was heard of, and how late it is.
func lastSync(h *resource.HostReport, now time.Time) string {
	text := moment(h.LastSync, now)
	switch late := span(time.Duration(h.LagSeconds) * time.Second); {
	case !h.Connected:
		return text + ", CUT OFF: the next one is due for " + late
	case h.LagSeconds > 0:
		return text + ", the next one is due for " + late
	}
	return text
}

func activityText(a *resource.HostActivity) string {
	text := first(listed(countOf(a.Renewed, "renewed"), countOf(a.Failed, "failed")), "nothing was renewed, and nothing failed")
	if a.RenewedOffline > 0 {
		text += fmt.Sprintf("; %d of those renewed while it was cut off", a.RenewedOffline)
	}
	if a.Partial {
		text += "; at least: the journal has more than was looked through"
	}
	return text
}

func countOf(n uint64, what string) count { return count{int(min(n, 1<<31-1)), what} }
