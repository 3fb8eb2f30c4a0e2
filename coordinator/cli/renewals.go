package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/settings"
)

func (p *program) renewCommand() *cobra.Command {
	var (
		all, dry bool
		wish     renewalsWish
	)
	cmd := &cobra.Command{
		Use: "renew AGENT NAME | renew --all --selector SELECTOR --over TIME", Short: "Renew one certificate now, or many, spread over a time",
		Long: `Asks hosts to replace certificates in service, each with a new key, before they are
due. Without --all it is one certificate, at the host's next sync.

With --all it is every certificate in service on the hosts that the selector matches;
--issuer, --name-pattern and --expires-within choose among them. Each has a place of
its own within --over, so that authorities and services see an even load. Hosts that
are away are asked when they come back, up to 30 days later. The renewals are in the
background: "certctl renewals show" tells how far they are, "certctl renewals cancel"
stops them.`,
		Example: `  certctl renew u53n5nbgbmcuo7ob www
  certctl renew --all --selector env=prod --over 6h --dry-run
  certctl renew --all --selector '*' --issuer letsencrypt --over 1d --reason "CA incident 2026-11"`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return errors.New("give AGENT and NAME, or --all with --selector, not both")
			case !all && len(args) != 2:
				return errors.New("give AGENT and NAME for one certificate, or --all with --selector for many")
			}
			return nil
		},
		ValidArgsFunction: p.completeCertificates,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			if !all {
				for _, flag := range []string{"selector", "issuer", "name-pattern", "over", "expires-within", "reason", "dry-run"} {
					if cmd.Flags().Changed(flag) {
						return fmt.Errorf("flag --%s is for many certificates: add --all, or leave it out", flag)
					}
				}
				agent, err := agentID(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				return p.renewOne(cmd, c, agent, args[1])
			}
			request, err := wish.request()
			if err != nil {
				return err
			}
			r, err := c.CreateRenewals(cmd.Context(), client.CreateRenewalsParams{DryRun: dry}, *request)
			if err != nil {
				return err
			}
			return p.showRenewals(cmd, r)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVar(&all, "all", false, "all certificates that the other flags choose")
	flags.StringVar(&wish.selector, "selector", "", "which hosts, by their labels, such as env=prod,role in (web,api); * is every host")
	flags.StringVar(&wish.issuer, "issuer", "", "only certificates of the issuer with this name")
	flags.StringVar(&wish.names, "name-pattern", "", "only certificates that hold a name of this pattern, such as **.shop.example.com")
	flags.StringVar(&wish.soon, "expires-within", "", "only certificates that expire within this time, such as 30d")
	flags.StringVar(&wish.over, "over", "", "the time over which they are spread, such as 6h; 0s is at once")
	flags.StringVar(&wish.reason, "reason", "", "why, for the audit trail")
	flags.BoolVar(&dry, "dry-run", false, "count what would be renewed on which host, and begin nothing")
	return cmd
}

// What the API takes at most.
const (
	maxOver          = 30 * 24 * time.Hour
	maxExpiresWithin = 3650 * 24 * time.Hour
)

// renewalsWish is what the flags of a mass renewal say.
type renewalsWish struct{ selector, issuer, names, over, soon, reason string }

func (w *renewalsWish) request() (*resource.CreateRenewals, error) {
	switch {
	case w.selector == "":
		return nil, errors.New("flag --selector is missing: say which hosts, such as env=prod; * is every host")
	case w.over == "":
		return nil, errors.New("flag --over is missing: say over which time to spread the renewals, such as 6h; 0s is at once")
	}
	request := &resource.CreateRenewals{Selector: w.selector, Issuer: w.issuer, NamePattern: w.names, Reason: w.reason}
	window, err := settings.ParseDuration(w.over)
	switch {
	case err != nil:
	case window < 0 || window%time.Second != 0:
		err = errors.New("expected whole seconds, 0s or more")
	case window > maxOver:
		err = errors.New("expected at most 30d")
	}
	if err != nil {
		return nil, fmt.Errorf("flag --over %q: %w", w.over, err)
	}
	request.OverSeconds = int64(window / time.Second)
	if w.soon != "" {
		within, err := settings.ParseDuration(w.soon)
		switch {
		case err != nil:
		case within < time.Second:
			err = errors.New("expected one second or more")
		case within > maxExpiresWithin:
			err = errors.New("expected at most 3650d")
		}
		if err != nil {
			return nil, fmt.Errorf("flag --expires-within %q: %w", w.soon, err)
		}
		request.ExpiringWithinSeconds = int64(within / time.Second)
	}
	return request, nil
}

func (p *program) renewOne(cmd *cobra.Command, c *client.Client, agent, name string) error {
	asked, err := c.RenewCertificate(cmd.Context(), client.RenewCertificateParams{Agent: agent, Name: name})
	if err != nil {
		return err
	}
	return p.show(cmd, asked, func(out io.Writer, _ time.Time) error {
		_, err := fmt.Fprintf(out, "agent %s is asked to renew %s (serial %s) when it syncs next; \"certctl agents commands %s\" shows what became of it\n",
			plain(asked.AgentID), plain(asked.Certificate), plain(asked.Serial), plain(asked.AgentID))
		return err
	})
}

func (p *program) renewalsCommand() *cobra.Command {
	return group(&cobra.Command{Use: "renewals", Aliases: []string{"renewal"}, Short: "Mass renewals: list, show, cancel", Long: `A mass renewal has many certificates renewed, spread over a time. "certctl renew --all"
begins one; these commands show how far it is and stop it.`},
		p.listRenewalsCommand(), p.showRenewalsCommand(), p.cancelRenewalsCommand())
}

func (p *program) listRenewalsCommand() *cobra.Command {
	var page listFlags
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List mass renewals, newest first", Args: sharedcli.NoArgs,
		Long: `Lists mass renewals, those that have ended too as long as they are kept, with how many
certificates each has replaced and how many remain.`,
		Example: `  certctl renewals list`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printList(p, cmd, &page, onePageOf(func(ctx context.Context, c *client.Client) (*resource.Page[resource.Renewals], error) {
				return c.ListRenewals(ctx)
			}), renewalsListing)
		},
	}
	page.bindWhole(cmd)
	page.watch.bind(cmd, "")
	return cmd
}

var renewalsListing = listing[resource.Renewals]{
	header: []string{"ID", "STATE", "REPLACED", "REMAINING", "FAILED", "ENDS", "SELECTOR", "ISSUER", "REASON"},
	cells: func(r *resource.Renewals, now time.Time) []string {
		return []string{
			r.ID, r.State, fmt.Sprintf("%d of %d", r.Replaced, r.Targets), strconv.Itoa(r.Remaining), strconv.Itoa(r.Failed),
			distance(r.EndsAt, now), r.Selector, r.Issuer, r.Reason,
		}
	},
	id: func(r *resource.Renewals) string { return r.ID },
}

func (p *program) showRenewalsCommand() *cobra.Command {
	var watch watching
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show how far a mass renewal is", Args: sharedcli.ExactArgs(1), ValidArgsFunction: p.completeRenewals(),
		Long: `Shows how far a mass renewal is, what failed, and which hosts have something left.

--watch goes on until nothing is left to wait for, and writes a line whenever
something has changed. It fails if not every certificate was replaced.`,
		Example: `  certctl renewals show 7f3kq2v5n4x6c8ya
  certctl renewals show 7f3kq2v5n4x6c8ya --watch`,
		RunE: watch.or(func(cmd *cobra.Command, args []string) error { return p.watchRenewals(cmd, args[0], &watch) }, p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			r, err := c.ShowRenewals(cmd.Context(), client.ShowRenewalsParams{ID: args[0]})
			if err != nil {
				return err
			}
			return p.showRenewals(cmd, r)
		})),
	}
	watch.bind(cmd, "nothing is left to wait for")
	return cmd
}

func (p *program) cancelRenewalsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cancel ID", Short: "Stop a mass renewal", Args: sharedcli.ExactArgs(1), ValidArgsFunction: p.completeRenewals(),
		Long: `Stops a mass renewal: no host is asked for more. Hosts that were told already, a few
minutes ahead of their turn, may still renew. What was renewed stays renewed.`,
		Example: `  certctl renewals cancel 7f3kq2v5n4x6c8ya`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			r, err := c.CancelRenewals(cmd.Context(), client.CancelRenewalsParams{ID: args[0]})
			if err != nil {
				return err
			}
			return p.showRenewals(cmd, r)
		}),
	}
}

// progressText is how far a mass renewal is, in a line.
func progressText(r *resource.Renewals) string {
	text := fmt.Sprintf("%d of %d replaced, %d remaining", r.Replaced, r.Targets, r.Remaining)
	var parts []string
	if r.Overdue > 0 {
		parts = append(parts, fmt.Sprintf("%d overdue", r.Overdue))
	}
	if r.CutOff > 0 {
		parts = append(parts, fmt.Sprintf("%d on hosts that are cut off", r.CutOff))
	}
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	if r.Failed > 0 {
		text += fmt.Sprintf(", %d FAILED", r.Failed)
	}
	return text
}

func (p *program) showRenewals(cmd *cobra.Command, r *resource.Renewals) error {
	return p.show(cmd, r, func(out io.Writer, now time.Time) error { return writeRenewals(out, r, now) })
}

func writeRenewals(out io.Writer, r *resource.Renewals, now time.Time) error {
	over := span(time.Duration(r.OverSeconds) * time.Second)
	if r.ID == "" {
		if err := facts(out, [][2]string{
			{"hosts", r.Selector}, {"issuer", first(r.Issuer, "any")}, {"names", first(r.NamePattern, "any")}, {"certificates", strconv.Itoa(r.Targets)},
			{"on hosts that are cut off", strconv.Itoa(r.CutOff)}, {"spread over", over},
		}); err != nil {
			return err
		}
		if err := renewalsHosts(out, r); err != nil {
			return err
		}
		_, err := fmt.Fprintln(out, "\ndry run: nothing was begun")
		return err
	}
	pairs := [][2]string{
		{"mass renewal", r.ID}, {"state", r.State}, {"progress", progressText(r)}, {"hosts", r.Selector}, {"issuer", first(r.Issuer, "any")}, {"names", first(r.NamePattern, "any")},
		{"begun", moment(r.CreatedAt, now) + ", by " + r.CreatedBy}, {"last turn", moment(r.EndsAt, now)}, {"reason", r.Reason},
	}
	if !r.CancelledAt.IsZero() {
		pairs = append(pairs, [2]string{"cancelled", moment(r.CancelledAt, now) + ", by " + r.CancelledBy})
	}
	if err := facts(out, pairs); err != nil {
		return err
	}
	if len(r.Failures) > 0 {
		var rows [][]string
		for _, c := range r.Failures {
			rows = append(rows, []string{c.AgentID, c.Certificate, c.State, distance(c.DoneAt, now), c.Detail})
		}
		fmt.Fprintln(out)
		if err := table(out, []string{"AGENT", "CERTIFICATE", "OUTCOME", "WHEN", "DETAIL"}, rows); err != nil {
			return err
		}
	}
	if err := renewalsHosts(out, r); err != nil || r.State != "running" {
		return err
	}
	_, err := fmt.Fprintf(out, "\n\"certctl renewals show %s --watch\" follows it, \"certctl renewals cancel %s\" stops it\n", plain(r.ID), plain(r.ID))
	return err
}

func renewalsHosts(out io.Writer, r *resource.Renewals) error {
	if len(r.Hosts) == 0 {
		return nil
	}
	var rows [][]string
	for _, host := range r.Hosts {
		connection := "connected"
		if host.CutOff {
			connection = "cut off"
		}
		rows = append(rows, []string{host.Hostname, host.AgentID, connection, strconv.Itoa(host.Remaining), strconv.Itoa(host.Overdue), strconv.Itoa(host.Failed)})
	}
	fmt.Fprintln(out)
	if err := table(out, []string{"HOST", "AGENT", "CONNECTION", "REMAINING", "OVERDUE", "FAILED"}, rows); err != nil {
		return err
	}
	if r.HostsOmitted > 0 {
		fmt.Fprintf(out, "and %d hosts more\n", r.HostsOmitted)
	}
	return nil
}

// watchRenewals writes how far a mass renewal is until nothing is left to wait
// for.
func (p *program) watchRenewals(cmd *cobra.Command, id string, flags *watching) error {
	var last resource.Renewals
	err := watchOne(p, cmd, flags, watched[resource.Renewals]{
		read: func(ctx context.Context, c *client.Client) (*resource.Renewals, error) {
			return c.ShowRenewals(ctx, client.ShowRenewalsParams{ID: id})
		},
		human: writeRenewals,
		line:  func(r *resource.Renewals) string { return r.State + ": " + progressText(r) },
		over: func(r *resource.Renewals) bool {
			last = *r
			return r.State != "running" || r.Remaining == 0
		},
	})
	if err != nil {
		return err
	}
	if left := last.Remaining + last.Failed; left > 0 {
		return fmt.Errorf("the mass renewal %s is %s, and %s not replaced by it; \"certctl renewals show %s\" names them", id, last.State, counted(left, "certificate was", "certificates were"), id)
	}
	return nil
}
