package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/durable"
)

func (p *program) caCommand() *cobra.Command {
	return group(&cobra.Command{Use: "ca", Short: "The built-in CA: show, rotate, follow its roots", Long: `The built-in CA has a root, a CA that issues certificates, and one that issues the
identities of agents. These commands show them, replace them, and follow the root.`},
		p.showCACommand(), p.rotateCACommand(), p.trustCommand())
}

func (p *program) showCACommand() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the CA's certificates and revocation lists, and who is behind in a rotation", Args: sharedcli.NoArgs,
		Long: `Shows every authority of the built-in CA and until when it is good, its revocation list,
where a rotation of the root stands, and which agents have not learnt of a new root.`,
		Example: `  certctl ca show`,
		RunE: p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			ca, err := c.ShowCA(cmd.Context())
			if err != nil {
				return err
			}
			return p.showCA(cmd, ca)
		}),
	}
}

func (p *program) showCA(cmd *cobra.Command, ca *resource.CA) error {
	return p.show(cmd, ca, func(out io.Writer, now time.Time) error {
		rotation := map[string]string{
			"publish":  "none is under way",
			"activate": "a new root is published; activate it when whoever verifies certificates knows it",
			"retire":   "the new root signs; retire the old one when nobody needs it any more",
		}[ca.Rotation.NextStep]
		if err := facts(out, [][2]string{
			{"cluster", ca.ClusterID}, {"trust generation", strconv.Itoa(ca.TrustGeneration)},
			{"root rotation", rotation}, {"agents behind", strconv.Itoa(ca.Rotation.AgentsBehind)},
			{"revocation list", listText(ca.RevocationList, now)},
		}); err != nil {
			return err
		}
		var rows [][]string
		for _, a := range ca.Authorities {
			rows = append(rows, []string{a.Name, a.State, a.Subject, expiry(a.NotAfter, now), a.Fingerprint})
		}
		fmt.Fprintln(out)
		if err := table(out, []string{"AUTHORITY", "STATE", "SUBJECT", "EXPIRES", "FINGERPRINT"}, rows); err != nil {
			return err
		}
		rows = nil
		for _, a := range ca.Authorities {
			if a.CRLPath != "" {
				rows = append(rows, []string{a.Subject, a.State, a.CRLPath, first(a.CRLURL, "certificates name none")})
			}
		}
		if len(rows) > 0 {
			fmt.Fprintln(out)
			if err := table(out, []string{"REVOCATION LIST OF", "STATE", "PATH", "URL IN CERTIFICATES"}, rows); err != nil {
				return err
			}
		}
		if len(ca.Rotation.Behind) == 0 {
			return nil
		}
		rows = nil
		for _, a := range ca.Rotation.Behind {
			rows = append(rows, []string{a.ID, a.Hostname, strconv.FormatUint(a.TrustGeneration, 10), distance(a.LastSeen, now)})
		}
		fmt.Fprintln(out)
		return table(out, []string{"BEHIND", "HOST", "TRUST GENERATION", "LAST SEEN"}, rows)
	})
}

func listText(list *resource.RevocationList, now time.Time) string {
	if list == nil {
		return "none is published yet"
	}
	text := fmt.Sprintf("number %d, %d revoked, published %s, good until %s", list.Number, list.Revoked, distance(list.ThisUpdate, now), moment(list.NextUpdate, now))
	if list.Behind {
		text += "; something was revoked since, and the next list is on its way"
	}
	return text
}

func (p *program) rotateCACommand() *cobra.Command {
	var root, issuing, identity, force, yes bool
	var step string
	cmd := &cobra.Command{
		Use: "rotate --root|--issuing|--identity", Short: "Replace an authority of the built-in CA", Args: sharedcli.NoArgs,
		Long: `Replaces an authority. The issuing and the identity CA are replaced in one step, and
what the earlier one has signed stays good.

The root takes three steps, each of which waits for you. publish makes a new root,
which agents learn to trust beside the old one. activate lets it sign; do that when
every program that verifies your certificates knows the new root. retire takes the
old root out of what is trusted and destroys its key. The last two are refused while
active agents have not learnt of the new root; --force goes on without them, and they
follow the signed chain of roots when they come back.`,
		Example: `  certctl ca rotate --issuing --yes
  certctl ca rotate --root --step publish --yes
  certctl ca rotate --root --step activate --yes
  certctl ca rotate --root --step retire --yes`,
		RunE: p.asks(func(cmd *cobra.Command, _ []string, c *client.Client) error {
			if !yes {
				return errors.New("this cannot be taken back; say --yes if you mean it")
			}
			request := resource.RotateCA{Step: step, Force: force}
			switch {
			case root:
				request.Authority = "root"
			case issuing:
				request.Authority = "issuing"
			default:
				request.Authority = "identity"
			}
			ca, err := c.RotateCA(cmd.Context(), request)
			if err != nil {
				return err
			}
			return p.showCA(cmd, ca)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVar(&root, "root", false, "rotate the root, one step of it")
	flags.BoolVar(&issuing, "issuing", false, "replace the CA that issues certificates")
	flags.BoolVar(&identity, "identity", false, "replace the CA that issues the agents' identities")
	cmd.MarkFlagsMutuallyExclusive("root", "issuing", "identity")
	cmd.MarkFlagsOneRequired("root", "issuing", "identity")
	choice(cmd, &step, "step", "step of the root's rotation (default publish)", "publish", "activate", "retire")
	flags.BoolVar(&force, "force", false, "activate or retire although agents are behind")
	flags.BoolVar(&yes, "yes", false, "do it")
	return cmd
}

func (p *program) trustCommand() *cobra.Command {
	return &cobra.Command{
		Use: "trust", Short: "Follow the coordinator's roots after a rotation", Args: sharedcli.NoArgs,
		Long: `Asks the coordinator for the signed chain of its roots, follows it from the roots that
the context trusts, and keeps the newest in the context. With --ca-file it follows
from that file, and writes the newest there. It believes the signatures alone, so
that it works when the coordinator's certificate is not trusted any more.`,
		Example: `  certctl ca trust
  certctl ca trust --server https://localhost:8443 --ca-file root.pem`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.trust(cmd) },
	}
}

// trusted is what following the roots came to.
type trusted struct {
	Server     string `json:"server"`
	Generation uint64 `json:"trust_generation"`
	Changed    bool   `json:"changed"`
	Kept       string `json:"kept"` // where the roots are
}

func (p *program) trust(cmd *cobra.Command) error {
	chosen, err := p.target.stored()
	if err != nil {
		return err
	}
	given, err := p.target.given()
	if err != nil {
		return err
	}
	known := chosen.servers()
	servers := given
	if len(given) == 0 && chosen.Server != "" {
		servers = known
	}
	file := first(p.target.caFile, caFileVariable.value())
	roots := chosen.CA
	if file != "" {
		if roots, err = readSmall(file); err != nil {
			return fmt.Errorf("CA file: %w", err)
		}
	}
	switch {
	case len(servers) == 0:
		return errors.New("no coordinator is known: give --server, or log in with \"certctl login\"")
	case roots == "":
		return errors.New("there are no roots to follow: the context trusts the system's CAs; give --ca-file")
	case file == "" && slices.ContainsFunc(servers, func(server string) bool { return !slices.Contains(known, server) }):
		return errors.New("the context is of another coordinator: give --ca-file for this one")
	}
	server, newest, generation, err := p.followTrust(cmd, servers, roots)
	if err != nil {
		return err
	}
	result := trusted{Server: server, Generation: generation, Changed: newest != roots, Kept: file}
	switch {
	case file != "":
		err = durable.WriteFile(file, []byte(newest), 0o644)
	default:
		result.Kept, err = p.keepRoots(newest)
	}
	if err != nil {
		return fmt.Errorf("keep the roots: %w", err)
	}
	return p.show(cmd, result, func(out io.Writer, _ time.Time) error {
		_, err := fmt.Fprintf(out, "%s is trusted by generation %d of its roots, kept in %s\n", server, generation, plain(result.Kept))
		return err
	})
}

// followTrust asks one server after the other until one answers.
func (p *program) followTrust(cmd *cobra.Command, servers []string, roots string) (server, newest string, generation uint64, err error) {
	for i, server := range servers {
		newest, generation, err = client.FollowTrust(cmd.Context(), server, roots)
		if i == len(servers)-1 || !errors.Is(err, client.ErrUnreachable) || cmd.Context().Err() != nil {
			return server, newest, generation, err
		}
		if p.target.moved != nil {
			p.target.moved(server, servers[i+1], client.Reason(err))
		}
	}
	return "", "", 0, err // there is at least one
}

// keepRoots puts roots into the context that is in use.
func (p *program) keepRoots(roots string) (where string, err error) {
	file, err := readContexts()
	if err != nil {
		return "", err
	}
	name := first(p.target.context, contextVariable.value(), file.Current)
	err = changeContexts(name, func(file *contextFile) {
		c := file.Contexts[name]
		c.CA = roots
		file.Contexts[name] = c
	})
	return fmt.Sprintf("the context %q", name), err
}
