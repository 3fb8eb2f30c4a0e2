package cli

import (
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

func (p *program) agentsCommand() *cobra.Command {
	return group(&cobra.Command{Use: "agents", Aliases: []string{"agent"}, Short: "Hosts: list, show, commands, retire", Long: `Agents are the hosts that enrolled, each with the identity that it got then. These
commands show how they stand and what they were asked for, and end one for good.`},
		p.listAgentsCommand(), p.showAgentCommand(), p.agentCommandsCommand(), p.retireAgentCommand())
}

func (p *program) listAgentsCommand() *cobra.Command {
	var page listFlags
	var state, connection, part, safe string
	var order sorting
	var labels []string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List agents", Args: sharedcli.NoArgs,
		Long: `Lists agents. "Safe until" is the moment when a host would serve its first expired
certificate if the coordinator, every CA and the network were gone from its last
report on; a host of which certificates are not safe now has none. Where two hosts use
one identity, as after a clone, that stands in place of the connection. "Attention"
counts certificates for which a person has to act and what the host warns of, and says
how far its clock is wrong. "certctl agents show" says more, and what to do.`,
		Example: `  certctl agents list
  certctl agents list --connection cut_off --label env=prod
  certctl agents list --safe-within 7d
  certctl agents list --sort safe-until --limit 10`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sort, err := order.param()
			if err != nil {
				return err
			}
			agents := client.ListAgentsParams{State: state, Connection: connection, Q: part, Sort: sort, Label: labels}
			if safe != "" {
				within, err := settings.ParseDuration(safe)
				if err != nil {
					return fmt.Errorf("flag --safe-within %q: %w", safe, err)
				}
				agents.SafeBefore = time.Now().Add(within).Truncate(time.Second)
			}
			return printList(p, cmd, &page, pagesOf(agents), agentListing)
		},
	}
	page.bind(cmd)
	page.watch.bind(cmd, "")
	choice(cmd, &state, "state", "only agents in this state", "active", "retired")
	order.bind(cmd, "in which order; safe-until lists the hosts that serve something or should: those that are not safe now, then the earliest horizon", "id", "hostname", "safe-until")
	choice(cmd, &connection, "connection", "only agents that are", "connected", "cut_off")
	cmd.Flags().StringVar(&part, "query", "", "only agents with this in host name or id")
	cmd.Flags().StringVar(&safe, "safe-within", "", "only agents whose host is safe for less than this, such as 7d")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "only agents with label=value; may be repeated")
	return cmd
}

var agentListing = listing[resource.Agent]{
	header: []string{"ID", "HOST", "CONNECTION", "SAFE UNTIL", "ATTENTION", "CERTS", "VERSION", "LABELS"},
	cells: func(a *resource.Agent, now time.Time) []string {
		return []string{
			a.ID, a.Hostname, strings.Replace(connectionText(*a, now), ", last seen ", " ", 1), first(notSafe(a.NotSafe), expiry(a.SafeUntil, now)),
			attentionOf(a), strconv.Itoa(a.Certificates), a.Version, labelText(a.Labels),
		}
	},
	id: func(a *resource.Agent) string { return a.ID },
}

func connectionText(a resource.Agent, now time.Time) string {
	switch {
	case a.State == "retired":
		return "retired " + distance(a.RetiredAt, now)
	case a.IdentityShared:
		return "TWO HOSTS USE THIS IDENTITY"
	case a.Connected:
		return "connected"
	}
	return "cut off, last seen " + distance(a.LastSeen, now)
}

// sharedMend is what is to be done about an identity that two hosts use.
const sharedMend = `two hosts use this identity; run "certctl-agent enroll --replace" with a new token on the copy, or, if the identity was stolen, retire the agent and enrol its host anew`

// badSkew is from when on a host's clock is spoken of.
const badSkew = time.Minute

func skewText(seconds int64) string {
	// What an agent reports may be anything.
	skew := time.Duration(min(max(seconds, -1<<32), 1<<32)) * time.Second
	switch {
	case skew > badSkew:
		return span(skew) + " ahead"
	case skew < -badSkew:
		return span(-skew) + " behind"
	}
	return ""
}

func (p *program) showAgentCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show AGENT", Short: "Show one agent", Args: sharedcli.ExactArgs(1), ValidArgsFunction: p.completeAgents(),
		Long: `Shows all that is known of one host: whether it is connected, how long it is safe alone,
its identity and labels, what it may order, and what it warns of. AGENT is its id, or the
name of the host, if one active host has that name.`,
		Example: `  certctl agents show u53n5nbgbmcuo7ob
  certctl agents show web1.example.com`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			agent, err := agentID(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			a, err := c.ShowAgent(cmd.Context(), client.ShowAgentParams{ID: agent})
			if err != nil {
				return err
			}
			return p.show(cmd, a, func(out io.Writer, now time.Time) error {
				pairs := [][2]string{
					{"agent", a.ID}, {"host", a.Hostname}, {"platform", a.OS + "/" + a.Arch}, {"version", a.Version},
					{"state", a.State}, {"connection", connectionText(a.Agent, now)}, {"last seen", moment(a.LastSeen, now)},
					{"safe until", first(hostNotSafe(&a.Agent, now), horizon(a.SafeUntil, now), "it serves no certificate")},
					{"certificates", healthText(a.CertificateHealth) + attentionText(a.NeedingAttention)},
					{"enrolled", moment(a.EnrolledAt, now) + ", with token " + a.EnrollmentTokenID},
					{"may order", first(strings.Join(a.NamePatterns, ", "), "nothing")}, {"labels", labelText(a.Labels)},
					{"identity", "serial " + a.Identity.Serial + ", expires " + moment(a.Identity.NotAfter, now)},
				}
				if a.IdentityShared {
					pairs = append(pairs, [2]string{"ATTENTION", sharedMend})
				}
				if text := skewText(a.ClockSkewSeconds); text != "" {
					pairs = append(pairs, [2]string{"clock", text + "; set it, and see to its time service"})
				}
				if a.EventsDropped > 0 {
					pairs = append(pairs, [2]string{"facts lost", fmt.Sprintf("%d were merged or dropped by a full outbox", a.EventsDropped)})
				}
				for _, warning := range a.Warnings {
					pairs = append(pairs, [2]string{"WARNING", warning})
				}
				return facts(out, pairs)
			})
		}),
	}
}

// hostNotSafe says what is not safe now on a host, and where to look.
func hostNotSafe(a *resource.Agent, now time.Time) string {
	if a.NotSafe == 0 {
		return ""
	}
	text := notSafe(a.NotSafe) + ": expired, revoked or not in service everywhere, as last reported"
	if !a.SafeUntil.IsZero() {
		text += "; an expired or revoked one is served since " + moment(a.SafeUntil, now)
	}
	return text + `; "certctl certificates list --agent ` + a.ID + `" says which`
}

// attentionOf is what a person has to look at on a host, in a few words.
func attentionOf(a *resource.Agent) string {
	var parts []string
	if n := a.NeedingAttention; n > 0 {
		parts = append(parts, counted(n, "cert", "certs"))
	}
	if n := len(a.Warnings); n > 0 {
		parts = append(parts, counted(n, "warning", "warnings"))
	}
	if text := skewText(a.ClockSkewSeconds); text != "" {
		parts = append(parts, "clock "+text)
	}
	return strings.Join(parts, ", ")
}

func (p *program) retireAgentCommand() *cobra.Command {
	var reason string
	var dry, yes bool
	cmd := &cobra.Command{
		Use: "retire AGENT", Short: "End an agent for good", Args: sharedcli.ExactArgs(1), ValidArgsFunction: p.completeAgents(),
		Long: `Ends an agent: its identity is refused from now on and cannot renew itself. Every
certificate that the built-in CA has issued to it is revoked, for good; --dry-run
says how many these are. Its host goes on with issuers of its own. To have it back,
enrol it anew. AGENT is its id, or the name of the host, if one active host has it.`,
		Example: `  certctl agents retire u53n5nbgbmcuo7ob --dry-run
  certctl agents retire u53n5nbgbmcuo7ob --reason "host was taken down" --yes`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			agent, err := agentID(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			a, err := c.RetireAgent(cmd.Context(), client.RetireAgentParams{ID: agent, DryRun: dry || !yes}, &resource.RetireAgent{Reason: reason})
			if err != nil {
				return err
			}
			if dry {
				return p.show(cmd, a, func(out io.Writer, _ time.Time) error {
					_, err := fmt.Fprintf(out, "agent %s on %s would be retired; %s\ndry run: nothing was changed\n", a.ID, plain(a.Hostname), retiredText(a))
					return err
				})
			}
			if !yes {
				return fmt.Errorf("agent %s on %s would be retired; %s; this cannot be taken back; say --yes if you mean it", a.ID, plain(a.Hostname), retiredText(a))
			}
			return p.show(cmd, a, func(out io.Writer, _ time.Time) error {
				_, err := fmt.Fprintf(out, "agent %s on %s is retired; %s\n", a.ID, plain(a.Hostname), retiredText(a))
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit trail")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say how many certificates would be revoked, and change nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

// retiredText says what becomes of the certificates of an agent that is retired.
func retiredText(a *resource.RetiredAgent) string {
	text := fmt.Sprintf("certificates of the built-in CA that are revoked with it: %d", a.Revoked)
	if a.NotRevoked > 0 {
		text += fmt.Sprintf("; NOT revoked, because the revocation list is full, and good until they expire: %d", a.NotRevoked)
	}
	return text
}

func (p *program) certificatesCommand() *cobra.Command {
	return group(&cobra.Command{Use: "certificates", Aliases: []string{"certificate", "certs"}, Short: "Managed certificates: list, show", Long: `Managed certificates are those that agents report: what each host has in service, or
should have. Hosts renew them by themselves; "certctl renew" and "certctl revoke" act.`},
		p.listCertificatesCommand(), p.showCertificateCommand())
}

func (p *program) listCertificatesCommand() *cobra.Command {
	var (
		page         listFlags
		certificates client.ListCertificatesParams
		due          string
		order        sorting
	)
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List managed certificates", Args: sharedcli.NoArgs,
		Long: `Lists what hosts have in service, or should have, as they reported last. HEALTH says in
capitals what needs somebody: EXPIRED, REVOKED, UNSERVED, or AT RISK of expiring.`,
		Example: `  certctl certificates list
  certctl certificates list --health expired,unserved,at_risk
  certctl certificates list --expires-within 14d --label env=prod
  certctl certificates list --sort not-after --issuer letsencrypt
  certctl certificates list --name www.example.com --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if certificates.Sort, err = order.param(); err != nil {
				return err
			}
			if due != "" {
				within, err := settings.ParseDuration(due)
				if err != nil {
					return fmt.Errorf("flag --expires-within %q: %w", due, err)
				}
				certificates.ExpiresBefore = time.Now().Add(within).Truncate(time.Second)
			}
			return printList(p, cmd, &page, pagesOf(certificates), certificateListing)
		},
	}
	page.bind(cmd)
	page.watch.bind(cmd, "")
	flags := cmd.Flags()
	flags.StringVar(&certificates.Agent, "agent", "", "only those of the agent with this id")
	flags.StringArrayVar(&certificates.Label, "label", nil, "only those of agents with label=value; may be repeated")
	flags.StringVar(&certificates.Name, "name", "", "only those that hold this DNS name or IP address")
	flags.StringVar(&certificates.Q, "query", "", "only those with this in a name")
	flags.StringVar(&certificates.Issuer, "issuer", "", "only those of the issuer with this name")
	flags.StringVar(&certificates.Serial, "serial", "", "only the one with this serial number")
	flags.StringVar(&certificates.Fingerprint, "fingerprint", "", "only the one with this SHA-256 fingerprint")
	flags.StringVar(&due, "expires-within", "", "only those that expire within this time, such as 14d, soonest first")
	order.bind(cmd, "in which order; not-after is by expiry, and leaves out what is not obtained yet", "id", "not-after")
	choice(cmd, &certificates.State, "state", "only those in this state", "pending", "renewing", "valid", "failed")
	choices(cmd, &certificates.Health, "health", "only these", healthNames()...)
	return cmd
}

var certificateListing = listing[resource.Certificate]{
	header: []string{"HOST", "CERTIFICATE", "HEALTH", "EXPIRES", "RENEWS", "ISSUER", "SERIAL", "NAMES"},
	cells: func(c *resource.Certificate, now time.Time) []string {
		return []string{
			c.Hostname, c.Name, healthCell(c), expiry(c.NotAfter, now), distance(c.RenewAt, now), c.Issuer, c.Serial, strings.Join(c.Names, ","),
		}
	},
	id: func(c *resource.Certificate) string { return c.AgentID + "\x00" + c.Name },
}

func healthNames() []string {
	var names []string
	for _, h := range resource.Healths {
		names = append(names, string(h))
	}
	return names
}

// loud writes what nobody should overlook in capitals.
func loud(h resource.Health) string {
	switch h {
	case resource.HealthExpired, resource.HealthRevoked, resource.HealthUnserved, resource.HealthAtRisk:
		return strings.ToUpper(strings.ReplaceAll(string(h), "_", " "))
	}
	return string(h)
}

// healthCell is a certificate's health in a few words.
func healthCell(c *resource.Certificate) string {
	if c.FormerConfiguration {
		return loud(c.Health) + ", as configured before"
	}
	return loud(c.Health)
}

func healthText(c resource.HealthCounts) string {
	if c.Total() == 0 {
		return "none"
	}
	var parts []string
	for _, part := range []struct {
		n      int
		health resource.Health
	}{
		{c.Expired, resource.HealthExpired}, {c.Revoked, resource.HealthRevoked}, {c.Unserved, resource.HealthUnserved}, {c.AtRisk, resource.HealthAtRisk},
		{c.Unknown, resource.HealthUnknown}, {c.Renewing, resource.HealthRenewing}, {c.OK, resource.HealthOK},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, loud(part.health)))
		}
	}
	return fmt.Sprintf("%d: %s", c.Total(), strings.Join(parts, ", "))
}

func (p *program) showCertificateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show AGENT NAME", Short: "Show one certificate of one agent", Args: sharedcli.ExactArgs(2), ValidArgsFunction: p.completeCertificates,
		Long: `Shows one certificate: its health and why, what is in service where, when it is renewed,
and what went wrong last. AGENT is the host's id or name, NAME the certificate's name in
the configuration of the host.`,
		Example: `  certctl certificates show u53n5nbgbmcuo7ob www
  certctl certificates show web1.example.com www`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			agent, err := agentID(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			one, err := c.ShowCertificate(cmd.Context(), client.ShowCertificateParams{Agent: agent, Name: args[1]})
			if err != nil {
				return err
			}
			return p.show(cmd, one, func(out io.Writer, now time.Time) error { return certificateFacts(out, one, now) })
		}),
	}
}

func certificateFacts(out io.Writer, c *resource.Certificate, now time.Time) error {
	pairs := [][2]string{
		{"certificate", c.Name}, {"host", c.Hostname + " (" + c.AgentID + ")"}, {"health", loud(c.Health) + ": " + c.HealthReason},
		{"names", strings.Join(c.Names, ", ")}, {"issuer", c.Issuer + " (" + c.IssuerKind + ")"}, {"issued by", c.IssuerDN},
		{"serial", c.Serial}, {"fingerprint", c.Fingerprint}, {"key", c.KeyAlgorithm},
		{"valid from", moment(c.NotBefore, now)}, {"valid until", moment(c.NotAfter, now)}, {"safe until", first(horizon(c.SafeUntil, now), "NOT SAFE: it is not in service everywhere")}, {"renews", moment(c.RenewAt, now)},
		{"renewals", strconv.FormatUint(c.Renewals, 10)}, {"last report", moment(c.AgentLastSeen, now)},
	}
	if c.FormerConfiguration {
		pairs = append(pairs, [2]string{"configuration", "FORMER: the names, key or issuer of what is in service are not those that are configured now"})
	}
	if !c.RevokedAt.IsZero() {
		pairs = append(pairs, [2]string{"REVOKED", moment(c.RevokedAt, now) + ", " + c.Revocation})
	}
	for _, d := range c.Deployments {
		text := d.State
		if !d.At.IsZero() {
			text += ", " + distance(d.At, now)
		}
		if d.Detail != "" {
			text += ": " + d.Detail
		}
		pairs = append(pairs, [2]string{"deployment " + plain(d.ID), text})
	}
	if c.LastError != "" {
		pairs = append(pairs, [2]string{"last error", c.LastError + " (" + distance(c.LastErrorAt, now) + ")"}, [2]string{"next attempt", moment(c.NextAttempt, now)})
	}
	if c.NeedsAttention != "" {
		pairs = append(pairs, [2]string{"ATTENTION", c.NeedsAttention})
	}
	return facts(out, pairs)
}
