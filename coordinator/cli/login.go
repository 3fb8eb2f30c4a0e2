package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/settings"
)

const defaultContext = "default"

// contextName is what a context may be called.
var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (p *program) loginCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "login --server URL --token-file FILE",
		Short: "Check a token and keep it in a context",
		Long: `Asks the coordinator who the token belongs to, and keeps servers, CA and token in a
context: a file of yours that nobody else may read. The next commands use it.

In a cluster one server is enough: the URLs of the other nodes are learned from it, now
and whenever they change, and asked when it does not answer. Give several with --server
repeated, to be asked first and in that order.`,
		Example: `  sudo certctl login --server https://localhost:8443 \
      --token-file /var/lib/certctl-coordinator/admin.token \
      --ca-file /var/lib/certctl-coordinator/root.pem
  certctl login --server https://c1.example.com:8443 --server https://c2.example.com:8443 \
      --token-file admin.token --ca-file root.pem
  certctl login --context staging --server https://staging:8443 --token-file - --ca-file root.pem < token`,
		Args: sharedcli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.login(cmd) },
	}
}

func (p *program) login(cmd *cobra.Command) error {
	given, err := p.target.given()
	if err != nil {
		return err
	}
	if len(given) == 0 {
		return errors.New("flag --server is missing: give the coordinator's URL, such as https://certctl.example.com:8443")
	}
	name := first(p.target.context, defaultContext)
	if !contextName.MatchString(name) {
		return fmt.Errorf("flag --context %q: expected letters, digits, ., _ and -, at most 64", name)
	}
	// Only what was given counts, not what a context holds: it may not exist yet.
	text, err := p.target.token()
	if err != nil {
		return err
	}
	if text == "" {
		return errors.New("flag --token-file is missing: give the file of an API token; the coordinator's first start made one in admin.token")
	}
	chosen := login{Server: given[0], Others: given[1:], Token: settings.NewSecret(text)}
	if file := first(p.target.caFile, caFileVariable.value()); file != "" {
		if chosen.CA, err = readSmall(file); err != nil {
			return fmt.Errorf("CA file: %w", err)
		}
		chosen.CA += "\n"
	}
	who, nodes, err := p.identify(cmd, chosen)
	if err != nil {
		return err
	}
	if worthKeeping(nodes, nil) {
		chosen.Nodes = nodes
	}
	file, err := readContexts()
	if err != nil {
		return err
	}
	if file.Contexts == nil {
		file.Contexts = make(map[string]login)
	}
	before := file.Current
	file.Contexts[name], file.Current = chosen, name
	if err := file.write(); err != nil {
		return err
	}
	return p.show(cmd, who, func(out io.Writer, _ time.Time) error {
		_, err := fmt.Fprintf(out, "logged in to %s as %q with the role %s; this is the context %q\n", strings.Join(given, " and "), plain(who.Name), who.Role, name)
		if err == nil && before != "" && before != name {
			_, err = fmt.Fprintf(out, "commands use it from now on; \"certctl context use %s\" goes back to the one of before\n", plain(before))
		}
		if learned := chosen.servers()[len(given):]; err == nil && len(learned) > 0 {
			_, err = fmt.Fprintf(out, "learned of the cluster's other nodes: %s\n", plain(strings.Join(learned, ", ")))
		}
		return err
	})
}

// identify asks each server that was given who the token belongs to: a wrong one is
// found now, and not when the others are gone. One that is away is kept all the same,
// unless all of them are.
func (p *program) identify(cmd *cobra.Command, chosen login) (who *resource.Identified, nodes []string, err error) {
	var away []error
	for _, server := range chosen.servers() {
		one := login{Server: server, CA: chosen.CA, Token: chosen.Token}
		c, err := one.client(&p.target)
		if err != nil {
			return nil, nil, err
		}
		answer, err := c.Whoami(cmd.Context())
		c.Close()
		switch {
		case errors.Is(err, client.ErrUnreachable):
			away = append(away, err)
		case err != nil && len(chosen.Others) > 0:
			return nil, nil, fmt.Errorf("%s: %w", server, err)
		case err != nil:
			return nil, nil, err
		default:
			who, nodes = answer, c.Nodes()
		}
	}
	if who == nil {
		return nil, nil, away[0]
	}
	for _, err := range away {
		fmt.Fprintf(cmd.ErrOrStderr(), "certctl: %s; it is kept in the context all the same\n", plain(err.Error()))
	}
	return who, nodes, nil
}

func (p *program) contextCommand() *cobra.Command {
	return group(&cobra.Command{Use: "context", Aliases: []string{"contexts"}, Short: "Logins: list, use, show, remove", Long: `A context is a coordinator and a login there, kept in a file of yours. The commands of
certctl use the current one unless --context names another.`},
		&cobra.Command{
			Use: "list", Aliases: []string{"ls"}, Short: "List the contexts", Args: sharedcli.NoArgs, Example: `  certctl context list`,
			Long: `Lists the contexts of this file, with the servers of each. A * marks the current one.`,
			RunE: func(cmd *cobra.Command, _ []string) error { return p.listContexts(cmd) },
		},
		&cobra.Command{
			Use: "use NAME", Short: "Make a context the current one", Long: `Has the commands that follow use this context, until another one is chosen.`, Example: `  certctl context use staging`, Args: sharedcli.ExactArgs(1), ValidArgsFunction: completeContexts,
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := changeContexts(args[0], func(file *contextFile) { file.Current = args[0] }); err != nil {
					return err
				}
				return p.showContext(cmd, args)
			},
		},
		&cobra.Command{
			Use: "show [NAME]", Short: "Show a context, without its token", Long: `Shows the servers of a context, in the order in which they are asked, and which CA it
trusts. Without NAME it is the one that is in use.`, Example: "  certctl context show\n  certctl context show staging", Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeContexts,
			RunE: func(cmd *cobra.Command, args []string) error { return p.showContext(cmd, args) },
		},
		&cobra.Command{
			Use: "remove NAME", Short: "Forget a context and its token", Example: `  certctl context remove staging`, Args: sharedcli.ExactArgs(1), ValidArgsFunction: completeContexts,
			Long: "Forgets a context on this machine. The token itself stays good: \"certctl api-token revoke\" ends it.",
			RunE: func(cmd *cobra.Command, args []string) error {
				err := changeContexts(args[0], func(file *contextFile) {
					delete(file.Contexts, args[0])
					if file.Current == args[0] {
						file.Current = ""
					}
				})
				if err != nil {
					return err
				}
				return p.listContexts(cmd)
			},
		},
	)
}

// shownContext is a context without its token.
type shownContext struct {
	Name    string   `json:"name"`
	Server  string   `json:"server"`  // the one that is asked first
	Servers []string `json:"servers"` // all, in the order in which they are asked
	Learned []string `json:"learned"` // those that the cluster has told, of all
	Current bool     `json:"current"`
	OwnCA   bool     `json:"own_ca"` // trusts the CA that was given at login, not the system's
}

func (p *program) listContexts(cmd *cobra.Command) error {
	file, err := readContexts()
	if err != nil {
		return err
	}
	all := make([]shownContext, 0, len(file.Contexts))
	for _, name := range slices.Sorted(maps.Keys(file.Contexts)) {
		all = append(all, file.shown(name))
	}
	return p.show(cmd, all, func(out io.Writer, _ time.Time) error {
		var rows [][]string
		for _, c := range all {
			mark := ""
			if c.Current {
				mark = "*"
			}
			rows = append(rows, []string{mark, c.Name, strings.Join(c.Servers, ", ")})
		}
		return table(out, []string{"CURRENT", "NAME", "SERVERS"}, rows)
	})
}

func (f *contextFile) shown(name string) shownContext {
	c := f.Contexts[name]
	shown := shownContext{Name: name, Server: c.Server, Servers: c.servers(), Learned: []string{}, Current: name == f.Current, OwnCA: c.CA != ""}
	shown.Learned = append(shown.Learned, c.Nodes...)
	return shown
}

func (p *program) showContext(cmd *cobra.Command, args []string) error {
	file, err := readContexts()
	if err != nil {
		return err
	}
	name := first(append(slices.Clone(args), p.target.context, contextVariable.value(), file.Current)...)
	if _, ok := file.Contexts[name]; !ok {
		return unknownContext(name)
	}
	c := file.shown(name)
	return p.show(cmd, c, func(out io.Writer, _ time.Time) error {
		trusts := "the system's CAs"
		if c.OwnCA {
			trusts = "the CA given at login"
		}
		pairs := [][2]string{{"context", c.Name}}
		for i, server := range c.Servers {
			called := "server"
			if i > 0 {
				called = "then"
			}
			if slices.Contains(c.Learned, server) {
				server += " (told by the cluster)"
			}
			pairs = append(pairs, [2]string{called, server})
		}
		return facts(out, append(pairs, [2]string{"trusts", trusts}))
	})
}

// changeContexts changes and writes the file; the named context must exist.
func changeContexts(name string, change func(*contextFile)) error {
	file, err := readContexts()
	if err != nil {
		return err
	}
	if _, ok := file.Contexts[name]; !ok {
		return unknownContext(name)
	}
	change(file)
	return file.write()
}

func unknownContext(name string) error {
	if name == "" {
		return errors.New("no context is in use; \"certctl login\" makes one")
	}
	return fmt.Errorf("there is no context %q; \"certctl context list\" shows which there are", name)
}

func completeContexts(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	file, err := readContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return slices.Sorted(maps.Keys(file.Contexts)), cobra.ShellCompDirectiveNoFileComp
}
