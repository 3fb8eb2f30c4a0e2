package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/settings"
)

func (p *program) tokenCommand() *cobra.Command {
	return group(&cobra.Command{Use: "token", Aliases: []string{"tokens"}, Short: "Enrolment tokens for agents: create, list, revoke", Long: `An enrolment token lets agents enrol, and says what they may ask for. The built-in CA's
root is known by it too, so that a host needs nothing else.`},
		p.createTokenCommand(), p.listTokensCommand(), p.revokeTokenCommand())
}

func (p *program) createTokenCommand() *cobra.Command {
	var (
		names       []string
		labels      map[string]string
		uses        uint32
		ttl         string
		description string
	)
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make an enrolment token",
		Long: `Makes a token with which agents enrol. The names are what these agents may ask the
coordinator for; without any they can only use issuers of their own.

  web1.example.com    this name              *.example.com    names with one label more
  **.example.com      any depth, wildcards   =*.example.com   this wildcard only
  10.0.0.0/8          IP addresses

The token is shown once.`,
		Example: `  certctl token create --names web1.example.internal
  certctl token create --names '*.web.example.internal' --uses 200 --ttl 2h --label role=web
  certctl token create --names '**.example.internal' --output json | jq -r .token`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := sharedcli.NoArgs(cmd, args); err != nil {
				return fmt.Errorf("%w; names are given with --names", err)
			}
			return nil
		},
		RunE: p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			if uses > resource.MaxTokenUses {
				return fmt.Errorf("flag --uses %d: expected at most %d, or 0 for any number of agents", uses, resource.MaxTokenUses)
			}
			seconds, err := lifetime(ttl, resource.MaxEnrollmentTTL)
			if err != nil {
				return err
			}
			made, err := c.CreateEnrollmentToken(cmd.Context(), resource.CreateEnrollmentToken{
				Description: description, Labels: labels, NamePatterns: names, MaxUses: &uses, TTLSeconds: seconds,
			})
			if err != nil {
				return err
			}
			return p.show(cmd, made, func(out io.Writer, now time.Time) error {
				if err := facts(out, [][2]string{
					{"token", made.ID}, {"good until", moment(made.ExpiresAt, now)}, {"good for", usesLeft(made.EnrollmentToken)},
					{"names", first(strings.Join(made.NamePatterns, ", "), "none: these agents can only use issuers of their own; --names allows them more")}, {"labels", labelText(made.Labels)},
				}); err != nil {
					return err
				}
				// Not as an argument, which others on the host would see.
				_, err := fmt.Fprintf(out, "\nOn the host:\n\n  echo %s | sudo %s\n\nThe token is shown this once.\n", made.Token, made.EnrollCommand)
				if err == nil && made.Warning != "" {
					_, err = fmt.Fprintf(out, "\nWarning: %s\n", plain(made.Warning))
				}
				return err
			})
		}),
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&names, "names", nil, "patterns of names that the agents may ask for; may be repeated")
	flags.StringToStringVar(&labels, "label", nil, "label=value for the agents; may be repeated")
	flags.Uint32Var(&uses, "uses", 1, "how many agents may enrol with it; 0: any number")
	flags.StringVar(&ttl, "ttl", "1h", "how long it is good, such as 30m, 12h, 7d")
	flags.StringVar(&description, "description", "", "what it is for")
	return cmd
}

// lifetime reads the flag --ttl. Nothing short may become 0 seconds on the way:
// in a request that is the coordinator's choice, or no end at all.
func lifetime(ttl string, longest time.Duration) (seconds int64, err error) {
	d, err := settings.ParseDuration(ttl)
	if err != nil {
		return 0, fmt.Errorf("flag --ttl %q: %w", ttl, err)
	}
	if d < time.Minute {
		return 0, fmt.Errorf("flag --ttl %q: expected one minute or more", ttl)
	}
	if d > longest {
		return 0, fmt.Errorf("flag --ttl %q: expected at most %d days", ttl, longest/(24*time.Hour))
	}
	return int64(d / time.Second), nil
}

func usesLeft(t resource.EnrollmentToken) string {
	if t.MaxUses == 0 {
		return "any number of agents: whoever has it can enrol until it expires or is revoked"
	}
	left := t.MaxUses - min(t.Uses, t.MaxUses)
	if left == 1 {
		return "1 agent"
	}
	return strconv.Itoa(int(left)) + " agents"
}

func labelText(labels map[string]string) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, key+"="+labels[key])
	}
	return strings.Join(parts, ",")
}

func (p *program) listTokensCommand() *cobra.Command {
	var page listFlags
	var state string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List enrolment tokens, without their secrets", Args: sharedcli.NoArgs,
		Long: `Lists enrolment tokens: how many agents have enrolled with each, how long it is good, and
what its agents may order. A token itself was shown once, when it was made.`,
		Example: `  certctl token list --state usable`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printList(p, cmd, &page, pagesOf(client.ListEnrollmentTokensParams{State: state}), listing[resource.EnrollmentToken]{
				header: []string{"ID", "STATE", "USED", "EXPIRES", "NAMES", "LABELS", "DESCRIPTION"},
				cells: func(t *resource.EnrollmentToken, now time.Time) []string {
					uses := fmt.Sprintf("%d of %d", t.Uses, t.MaxUses)
					if t.MaxUses == 0 {
						uses = strconv.Itoa(int(t.Uses))
					}
					return []string{t.ID, string(t.State), uses, distance(t.ExpiresAt, now), strings.Join(t.NamePatterns, ","), labelText(t.Labels), t.Description}
				},
			})
		},
	}
	page.bind(cmd)
	choice(cmd, &state, "state", "only tokens in this state", "usable", "used", "expired", "revoked")
	return cmd
}

func (p *program) revokeTokenCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End an enrolment token", Args: sharedcli.ExactArgs(1),
		Long:              "Ends a token. Agents that enrolled with it stay; \"certctl agents retire\" ends those.",
		Example:           `  certctl token revoke pqporpcdhdzesm66`,
		ValidArgsFunction: firstArgument(p.offers(enrollmentTokenIDs)),
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			t, err := c.RevokeEnrollmentToken(cmd.Context(), client.RevokeEnrollmentTokenParams{ID: args[0]})
			if err != nil {
				return err
			}
			return p.show(cmd, t, func(out io.Writer, _ time.Time) error {
				_, err := fmt.Fprintf(out, "enrolment token %s is %s\n", t.ID, t.State)
				return err
			})
		}),
	}
}

func (p *program) apiTokenCommand() *cobra.Command {
	return group(&cobra.Command{Use: "api-token", Aliases: []string{"api-tokens"}, Short: "API tokens for people and programs: create, list, rotate, revoke", Long: `An API token is how a person or a program proves who it is to the API, with a role that
says what it may do, and a scope that says for which hosts.`},
		p.createAPITokenCommand(), p.listAPITokensCommand(), p.rotateAPITokenCommand(), p.revokeAPITokenCommand())
}

func (p *program) createAPITokenCommand() *cobra.Command {
	var name, role, ttl string
	var scope []string
	var quiet, fixed bool
	cmd := &cobra.Command{
		Use:   "create --name NAME --role ROLE",
		Short: "Make an API token",
		Long: `Makes an API token. viewer reads; operator also makes enrolment tokens and retires
agents; admin also makes API tokens. The token is shown once.

With --scope it sees and changes nothing but hosts with these labels, and is refused
what is about more than some hosts. All labels have to match; of several values for
one label one has to.`,
		Example: `  certctl api-token create --name grafana --role viewer --ttl 365d
  certctl api-token create --name web-team --role operator --scope env=prod --scope region=eu --scope region=us
  certctl api-token create --name anna --role operator --quiet > anna.token`,
		Args: sharedcli.NoArgs,
		RunE: p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			request := resource.CreateAPIToken{Name: name, Role: role, Scope: scope, FixedExpiry: fixed}
			if ttl != "" {
				var err error
				if request.TTLSeconds, err = lifetime(ttl, resource.MaxAPITokenTTL); err != nil {
					return err
				}
			}
			made, err := c.CreateAPIToken(cmd.Context(), request)
			if err != nil {
				return err
			}
			return p.show(cmd, made, func(out io.Writer, now time.Time) error {
				if quiet {
					_, err := fmt.Fprintln(out, made.Token)
					return err
				}
				if err := facts(out, [][2]string{
					{"token", made.ID}, {"name", made.Name}, {"role", made.Role}, {"hosts", scopeText(made.Scope)}, {"good until", first(moment(made.ExpiresAt, now), "it is revoked")},
				}); err != nil {
					return err
				}
				_, err := fmt.Fprintf(out, "\n%s\n\nThe token is shown this once.\n", made.Token)
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&name, "name", "", "who or what uses it")
	choice(cmd, &role, "role", "what it may do", "viewer", "operator", "admin")
	cmd.Flags().StringVar(&ttl, "ttl", "", "how long it is good, such as 12h or 90d (default: until it is revoked); a rotation begins that anew")
	cmd.Flags().StringArrayVar(&scope, "scope", nil, "limit it to hosts with this label=value; may be repeated")
	cmd.Flags().BoolVar(&fixed, "fixed-expiry", false, "a rotation does not put off the end that --ttl gives")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the token and nothing else")
	_ = cmd.MarkFlagRequired("name")
	_ = cmd.MarkFlagRequired("role")
	return cmd
}

func (p *program) listAPITokensCommand() *cobra.Command {
	var page listFlags
	var state string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List API tokens, without their secrets", Args: sharedcli.NoArgs,
		Long: `Lists API tokens, with those that have expired or were revoked as long as they are kept.
A token itself was shown once, when it was made, and is nowhere since.`,
		Example: `  certctl api-token list --state usable`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printList(p, cmd, &page, pagesOf(client.ListAPITokensParams{State: state}), listing[resource.APIToken]{
				header: []string{"ID", "NAME", "ROLE", "STATE", "EXPIRES", "CREATED", "BY", "HOSTS", "ROTATED"},
				cells: func(t *resource.APIToken, now time.Time) []string {
					return []string{t.ID, t.Name, t.Role, string(t.State), first(distance(t.ExpiresAt, now), "never"), distance(t.CreatedAt, now), t.CreatedBy, scopeText(t.Scope), distance(t.RotatedAt, now)}
				},
			})
		},
	}
	page.bind(cmd)
	choice(cmd, &state, "state", "only tokens in this state", "usable", "expired", "revoked")
	return cmd
}

func (p *program) revokeAPITokenCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End an API token", Args: sharedcli.ExactArgs(1),
		Long:              `Ends a token at once: whoever has it is refused from now on.`,
		Example:           `  certctl api-token revoke 3dmplskkssuxxolk`,
		ValidArgsFunction: firstArgument(p.offers(apiTokenIDs)),
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			t, err := c.RevokeAPIToken(cmd.Context(), client.RevokeAPITokenParams{ID: args[0]})
			if err != nil {
				return err
			}
			return p.show(cmd, t, func(out io.Writer, _ time.Time) error {
				_, err := fmt.Fprintf(out, "API token %s (%s) is %s\n", t.ID, plain(t.Name), t.State)
				return err
			})
		}),
	}
}
