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
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

func (p *program) revokeCommand() *cobra.Command {
	var serial, reason string
	var dry, yes bool
	cmd := &cobra.Command{
		Use: "revoke AGENT NAME | revoke --serial SERIAL", Short: "Revoke a certificate, and have it replaced",
		Long: `Revokes a certificate, for good: a private key is no longer secret, or names are no
longer yours. What happens is said first.

A certificate of the built-in CA is revoked at once, and so is one that the
coordinator ordered at an authority, if that does it. Any other is revoked at its
issuer by its host, at its next sync; until then it is good. In all cases the host
replaces it with a new key.`,
		Example: `  certctl revoke u53n5nbgbmcuo7ob www --reason keyCompromise --dry-run
  certctl revoke --serial 04a1b2c3d4 --reason superseded --yes`,
		Args: func(_ *cobra.Command, args []string) error {
			if (serial == "") == (len(args) == 0) || serial == "" && len(args) != 2 {
				return errors.New("give AGENT and NAME of a certificate in service, or --serial, not both")
			}
			return nil
		},
		ValidArgsFunction: p.completeCertificates,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			wish := resource.RevokeCertificate{Serial: serial, Reason: reason}
			if serial == "" {
				agent, err := agentID(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				wish.AgentID, wish.Certificate = agent, args[1]
			}
			planned, err := c.RevokeCertificate(cmd.Context(), client.RevokeCertificateParams{DryRun: true}, wish)
			if err != nil {
				return err
			}
			statement, err := revocationStatement(cmd.Context(), c, planned, reason)
			if err != nil {
				return err
			}
			if dry {
				return p.show(cmd, planned, func(out io.Writer, _ time.Time) error {
					_, err := fmt.Fprintf(out, "%s\ndry run: nothing was revoked\n", plainLines(statement))
					return err
				})
			}
			if !yes {
				fmt.Fprintln(cmd.ErrOrStderr(), plainLines(statement))
			}
			if err := confirm(cmd, yes); err != nil {
				return err
			}
			// The certificate that was shown, whatever is in service by now.
			wish.Serial = planned.Serial
			told, err := c.RevokeCertificate(cmd.Context(), client.RevokeCertificateParams{}, wish)
			if err != nil {
				return err
			}
			return p.show(cmd, told, func(out io.Writer, _ time.Time) error {
				_, err := fmt.Fprintln(out, plainLines(revokedText(told)))
				return err
			})
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&serial, "serial", "", "serial number in hex, instead of AGENT and NAME")
	choice(cmd, &reason, "reason", "why (RFC 5280, section 5.3.1)", "unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation", "privilegeWithdrawn")
	flags.Lookup("reason").DefValue, reason = "unspecified", "unspecified"
	flags.BoolVar(&dry, "dry-run", false, "say what would happen, and revoke nothing")
	flags.BoolVar(&yes, "yes", false, "do it without asking")
	return cmd
}

// revocationStatement says in plain words what a revocation will do.
func revocationStatement(ctx context.Context, from *client.Client, planned *resource.RevokedCertificate, reason string) (string, error) {
	what := fmt.Sprintf("The certificate with the serial number %s", planned.Serial)
	c := new(resource.Certificate)
	if planned.InService {
		var err error
		if c, err = from.ShowCertificate(ctx, client.ShowCertificateParams{Agent: planned.AgentID, Name: planned.Certificate}); err != nil {
			return "", err
		}
		what = fmt.Sprintf("The certificate %s of the host %s (%s), for %s, serial number %s,", planned.Certificate, c.Hostname, planned.AgentID, strings.Join(c.Names, ", "), planned.Serial)
	}
	var text strings.Builder
	switch {
	case planned.By == "builtin" && planned.Already:
		fmt.Fprintf(&text, "%s was revoked by the built-in CA before; that stays as it is.", what)
	case planned.By == "builtin":
		fmt.Fprintf(&text, "%s will be revoked by the built-in CA at once; reason: %s.", what, reason)
	case planned.By == "authority" && planned.Already:
		fmt.Fprintf(&text, "%s was revoked at its issuer %s before; that stays as it is.", what, planned.Issuer)
	case planned.By == "authority":
		fmt.Fprintf(&text, "%s will be revoked at its issuer %s at once; reason: %s.", what, planned.Issuer, reason)
		if planned.InService {
			text.WriteString("\nIt stays in service, revoked, until its replacement is there, which that issuer may take days for; if the key is safe, have it renewed first: certctl renew.")
		}
	case planned.Already:
		fmt.Fprintf(&text, "%s will be revoked at its issuer %s by its host, which was asked for it before.", what, c.Issuer)
	default:
		fmt.Fprintf(&text, "%s will be revoked at its issuer %s by its host, at the host's next sync; until then it is good; reason: %s.", what, c.Issuer, reason)
	}
	if planned.InService {
		fmt.Fprintf(&text, "\nThe host replaces it with a new key. It was last heard of %s.", first(distance(c.AgentLastSeen, time.Now()), "never"))
	} else {
		text.WriteString("\nNo host has it in service: there is nothing to replace.")
	}
	text.WriteString("\nA revocation cannot be taken back.")
	return text.String(), nil
}

// revokedText says what was done.
func revokedText(told *resource.RevokedCertificate) string {
	after := "no host has it in service"
	if told.InService {
		after = fmt.Sprintf("the agent %s is asked to replace %s; \"certctl agents commands %s\" shows what became of it", told.AgentID, told.Certificate, told.AgentID)
	}
	switch {
	case told.By == "builtin" && told.Already:
		return fmt.Sprintf("%s was revoked by the built-in CA before; %s", told.Serial, after)
	case told.By == "builtin":
		return fmt.Sprintf("%s is revoked by the built-in CA; %s", told.Serial, after)
	}
	if told.By == "authority" {
		switch {
		case told.Already:
			return fmt.Sprintf("%s was revoked at %s before; %s", told.Serial, told.Issuer, after)
		case told.Pending:
			return fmt.Sprintf("%s is NOT REVOKED YET: %s has taken the request, and decides later, or somebody has to approve it there; type the same again to see; %s", told.Serial, told.Issuer, after)
		}
		return fmt.Sprintf("%s is revoked at %s; %s", told.Serial, told.Issuer, after)
	}
	return fmt.Sprintf("%s is NOT REVOKED YET: the agent %s is asked to revoke it at its issuer and to replace %s; \"certctl agents commands %s\" shows what became of it",
		told.Serial, told.AgentID, told.Certificate, told.AgentID)
}

func (p *program) agentCommandsCommand() *cobra.Command {
	var page listFlags
	cmd := &cobra.Command{
		Use: "commands AGENT", Short: "Show what an agent was asked for, newest first", Args: sharedcli.ExactArgs(1), ValidArgsFunction: p.completeAgents(),
		Long: `Shows the renewals and revocations that an agent was asked for, those that ended
within the last 30 days too. open: it has not been told yet; accepted: it is at it.`,
		Example: `  certctl agents commands u53n5nbgbmcuo7ob`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return printList(p, cmd, &page, onePageOf(func(ctx context.Context, c *client.Client) (*resource.Page[resource.Command], error) {
				agent, err := agentID(ctx, c, args[0])
				if err != nil {
					return nil, err
				}
				return c.ListAgentCommands(ctx, client.ListAgentCommandsParams{ID: agent})
			}), listing[resource.Command]{
				header: []string{"ID", "KIND", "CERTIFICATE", "STATE", "ASKED", "BY", "ENDED", "SERIAL", "DETAIL"},
				cells: func(c *resource.Command, now time.Time) []string {
					return []string{c.ID, c.Kind, c.Certificate, c.State, distance(c.CreatedAt, now), c.CreatedBy, distance(c.DoneAt, now), c.Serial, c.Detail}
				},
			})
		},
	}
	page.bindWhole(cmd)
	return cmd
}
