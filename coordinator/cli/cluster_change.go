package cli

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

func (p *program) transferCommand() *cobra.Command {
	return &cobra.Command{
		Use: "transfer [NODE]", Short: "Let another node lead", Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeNodes(),
		Long: `Hands the leadership to a node, or to one that is up to date. Changes wait for a
moment and are not lost. Do it before the leader's host is taken down; a coordinator
that is stopped does it by itself.`,
		Example: `  certctl cluster transfer
  certctl cluster transfer c2.example.com
  certctl cluster transfer node-k3v9q2m1xa`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			var wish resource.TransferLeadership
			if len(args) > 0 {
				shown, err := c.ListMembers(cmd.Context())
				if err != nil {
					return err
				}
				wish.To = memberID(shown, args[0])
			}
			m, err := c.TransferLeadership(cmd.Context(), wish)
			if err != nil {
				return err
			}
			return p.show(cmd, m, func(out io.Writer, _ time.Time) error {
				_, err := fmt.Fprintf(out, "%s leads\n", plain(first(m.Leader, "no node that is known yet")))
				return err
			})
		}),
	}
}

// memberID is the id of the member that a text names: by its id, its address, or the
// host in either of its addresses. A text that names none, or several, is taken for
// an id.
func memberID(m *resource.Members, text string) string {
	var found []string
	for _, one := range m.Items {
		if one.ID == text {
			return text
		}
		host, _, _ := net.SplitHostPort(one.Address)
		server, err := url.Parse(one.URL)
		if text == one.Address || text == host || err == nil && (text == one.URL || text == server.Hostname()) {
			found = append(found, one.ID)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return text
}

func (p *program) removeCommand() *cobra.Command {
	var yes, force bool
	cmd := &cobra.Command{
		Use: "remove NODE", Short: "Remove a node from the cluster for good", Args: sharedcli.ExactArgs(1), ValidArgsFunction: p.completeNodes(),
		Long: `Takes a node out of the cluster: it counts for nothing any more, and the others talk to
it no more. Stop it too, and clear its data directory, which holds the seal key. To
have it back, let it join anew with an empty data directory. A node that is asked to
remove itself leaves ("certctl cluster leave"): it ends by itself.

It is refused when those that remain could store nothing, and when the members have
changed since they were shown. It is also refused while the others lack a part of the
history that went with the node: wait until they have it ("certctl cluster health"),
or give --force to lose it.`,
		Example: `  certctl cluster remove c3.example.com
  certctl cluster remove node-k3v9q2m1xa --yes`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			shown, err := c.ListMembers(cmd.Context())
			if err != nil {
				return err
			}
			id := memberID(shown, args[0])
			if !yes {
				fmt.Fprintln(cmd.ErrOrStderr(), removalText(shown, id))
				if err := confirm(cmd, yes); err != nil {
					return err
				}
			}
			left, err := c.RemoveMember(cmd.Context(), client.RemoveMemberParams{ID: id, PrevIndex: shown.ConfigurationIndex, Force: force})
			if err != nil {
				return err
			}
			return p.showMembers(cmd, left)
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it without asking")
	cmd.Flags().BoolVar(&force, "force", false, "lose what no other node has of the history")
	return cmd
}

// removalText says what a removal comes to.
func removalText(m *resource.Members, id string) string {
	i := slices.IndexFunc(m.Items, func(one resource.Member) bool { return one.ID == id })
	if i < 0 {
		return fmt.Sprintf("%s is no member of the cluster; if it was let in once, it is forgotten.", plain(id))
	}
	voters := 0
	for _, one := range m.Items {
		if one.Voter && one.ID != id {
			voters++
		}
	}
	one := &m.Items[i]
	return fmt.Sprintf("%s (%s, %s, %s) is removed from the cluster for good. %s left, of which %d may fail.",
		plain(one.ID), plain(one.Address), role(one), memberHealth(one), counted(voters, "voter is", "voters are"), max(0, voters-1)/2)
}

func (p *program) joinTokenCommand() *cobra.Command {
	return group(&cobra.Command{Use: "join-token", Aliases: []string{"join-tokens"}, Short: "Tokens by which new nodes join: create, list, revoke", Long: `A join token lets one new node into the cluster, once. Whoever has it gets all that the
cluster has.`},
		p.createJoinTokenCommand(), p.listJoinTokensCommand(), p.revokeJoinTokenCommand())
}

func (p *program) createJoinTokenCommand() *cobra.Command {
	var ttl, description string
	var quiet bool
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token by which one node joins", Args: sharedcli.NoArgs,
		Long: `Makes a token by which one new node joins the cluster, once. Whoever has the token gets
the seal key and all that the cluster has: hand it over as you would the seal key, and
let it not be good for long. The token is shown once.`,
		Example: `  certctl cluster join-token create --description c2.example.com
  certctl cluster join-token create --quiet | ssh c2 certctl-coordinator join --token-file -
  certctl cluster join-token create --ttl 15m --output json | jq -r .token`,
		RunE: p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			seconds, err := lifetime(ttl, resource.MaxJoinTokenTTL)
			if err != nil {
				return err
			}
			made, err := c.CreateJoinToken(cmd.Context(), resource.CreateJoinToken{Description: description, TTLSeconds: seconds})
			if err != nil {
				return err
			}
			return p.show(cmd, made, func(out io.Writer, now time.Time) error {
				if quiet {
					_, err := fmt.Fprintln(out, made.Token)
					return err
				}
				if err := facts(out, [][2]string{
					{"token", made.ID}, {"good until", moment(made.ExpiresAt, now)}, {"good for", "1 node"}, {"asks", strings.Join(made.URLs, ", ")},
				}); err != nil {
					return err
				}
				// Not as an argument, which others on the host would see.
				_, err := fmt.Fprintf(out, "\nOn the new node, with an empty data directory:\n\n  echo %s | sudo certctl-coordinator join --token-file -\n\n"+
					"Then start it: sudo certctl-coordinator install && sudo certctl-coordinator start. Or let its first\n"+
					"start do both: set CERTCTL_CLUSTER_JOIN_TOKEN to the token. It is shown this once.\n", made.Token)
				if err == nil && made.Warning != "" {
					_, err = fmt.Fprintf(out, "\nWarning: %s\n", plain(made.Warning))
				}
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&ttl, "ttl", "1h", "how long it is good, such as 15m, 12h, 7d")
	cmd.Flags().StringVar(&description, "description", "", "which node it is for")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the token and nothing else")
	return cmd
}

func (p *program) listJoinTokensCommand() *cobra.Command {
	var page listFlags
	var state string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List join tokens, without their secrets", Args: sharedcli.NoArgs,
		Long: `Lists join tokens: whether each is still good, and which node has used it. A token itself
was shown once, when it was made.`,
		Example: `  certctl cluster join-token list --state usable`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printList(p, cmd, &page, pagesOf(client.ListJoinTokensParams{State: state}), listing[resource.JoinToken]{
				header: []string{"ID", "STATE", "EXPIRES", "USED BY", "CREATED", "BY", "DESCRIPTION"},
				cells: func(t *resource.JoinToken, now time.Time) []string {
					return []string{t.ID, string(t.State), distance(t.ExpiresAt, now), t.UsedBy, distance(t.CreatedAt, now), t.CreatedBy, t.Description}
				},
			})
		},
	}
	page.bind(cmd)
	choice(cmd, &state, "state", "only tokens in this state", "usable", "used", "expired", "revoked")
	return cmd
}

func (p *program) revokeJoinTokenCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "End a join token", Args: sharedcli.ExactArgs(1),
		Long:              "Ends a token. A node that joined with it stays; \"certctl cluster remove\" takes it out.",
		Example:           `  certctl cluster join-token revoke pqporpcdhdzesm66 --yes`,
		ValidArgsFunction: firstArgument(p.offers(joinTokenIDs)),
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			if !yes {
				fmt.Fprintf(cmd.ErrOrStderr(), "No node joins with the token %s any more.\n", plain(args[0]))
				if err := confirm(cmd, yes); err != nil {
					return err
				}
			}
			t, err := c.RevokeJoinToken(cmd.Context(), client.RevokeJoinTokenParams{ID: args[0]})
			if err != nil {
				return err
			}
			return p.show(cmd, t, func(out io.Writer, _ time.Time) error {
				_, err := fmt.Fprintf(out, "join token %s is %s\n", t.ID, t.State)
				return err
			})
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it without asking")
	return cmd
}

func (p *program) rotateClusterCACommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "rotate-ca", Short: "Replace the CA of the connections between nodes", Args: sharedcli.NoArgs,
		Long: `Begins to replace the root that the nodes' certificates for each other come from. The
new root signs when all members trust it, and the old one goes when all members have
new certificates: that goes on by itself, without a restart, and "certctl cluster
health" says how far it is. A member that is away holds it up until it is back or
removed. The built-in CA that hosts get certificates from is another one: "certctl ca
rotate".`,
		Example: `  certctl cluster rotate-ca --yes`,
		RunE: p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			if !yes {
				fmt.Fprintln(cmd.ErrOrStderr(), "The CA of the connections between the cluster's nodes is replaced.")
				if err := confirm(cmd, yes); err != nil {
					return err
				}
			}
			h, err := c.RotateClusterCA(cmd.Context())
			if err != nil {
				return err
			}
			return p.showHealth(cmd, h)
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it without asking")
	return cmd
}
