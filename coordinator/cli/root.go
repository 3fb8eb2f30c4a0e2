package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/shared/buildinfo"
	sharedcli "github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/wire"
)

// Exit statuses.
const (
	exitOK          = 0
	exitFailed      = 1 // the command's words are wrong, or the coordinator refused
	exitUnreachable = 2 // there was no answer of a coordinator
	exitRefused     = 3 // hosts refuse what they should get
	exitBroken      = 4 // the audit trail is not what was written
)

// program is what the verbs share.
type program struct {
	target target
	output sharedcli.Output
	// shortest is the shortest interval of a watch.
	shortest time.Duration
}

func newProgram() *program { return &program{shortest: shortestWatchInterval} }

// Execute runs the command line and returns its exit status. Ctrl-C ends it.
func Execute(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	p := newProgram()
	p.target.moved = func(from, to string, why error) {
		fmt.Fprintf(stderr, "certctl: %s does not answer (%s); asking %s\n", from, plain(why.Error()), to)
	}
	p.target.waits = func(pause time.Duration, why error) {
		fmt.Fprintf(stderr, "certctl: %s; asking again in %s\n", plain(why.Error()), pause)
	}
	root := p.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if kept := p.target.remember(); kept != nil {
		fmt.Fprintf(stderr, "certctl: the cluster has other nodes than the context knows, which is not kept: %s\n", plain(kept.Error()))
	}
	p.target.warn(stderr, time.Now())
	if err == nil {
		return exitOK
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, "certctl: interrupted; a change that was asked for may have been made all the same")
		return exitFailed
	}
	fmt.Fprintf(stderr, "certctl: %s\n", plainLines(explain(err)))
	if errors.Is(err, client.ErrUnreachable) {
		return exitUnreachable
	}
	if errors.Is(err, errHostsRefuse) {
		return exitRefused
	}
	if errors.Is(err, errTrailBroken) {
		return exitBroken
	}
	return exitFailed
}

// explain adds to a refusal what a person at this command line can do.
func explain(err error) string {
	problem, refused := errors.AsType[*wire.Problem](err)
	if !refused || problem.Mend != "" {
		return err.Error()
	}
	switch problem.Code {
	case wire.CodeUnauthorized:
		return err.Error() + "; log in with a token that is still good: \"certctl login\""
	case wire.CodeForbidden:
		return err.Error() + "; \"certctl whoami\" shows your role"
	}
	return err.Error()
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "certctl",
		Short: "Ask the coordinator, and tell it what to do",
		Long: `certctl talks to the API of a certctl coordinator.

Log in once; the login is kept in a context. CERTCTL_SERVER_URL, CERTCTL_TOKEN
or CERTCTL_TOKEN_FILE, and CERTCTL_CA_FILE stand in for a login in scripts.

Exit status: 0 done, 1 refused or wrong, 2 the coordinator cannot be reached,
3 hosts refuse (assignments apply --fail-on-refused), 4 the audit trail is broken
(audit verify).`,
		Example: `  certctl login --server https://certctl.example.com:8443 --token-file admin.token --ca-file root.pem
  certctl token create --names '*.example.internal' --ttl 1h
  certctl certificates list --health expired,unserved,at_risk
  certctl agents list --output json
  certctl assignments apply -f www.yaml --dry-run`,
		Version:       buildinfo.Get().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	sharedcli.FlagErrors(root)
	flags := root.PersistentFlags()
	flags.StringVar(&p.target.context, "context", "", "context to use (default $CERTCTL_CONTEXT, else the current one)")
	flags.StringSliceVar(&p.target.server, "server", nil, "URL of the coordinator, instead of the context's; may be repeated, for the nodes of a cluster")
	flags.StringVar(&p.target.tokenFile, "token-file", "", "file with an API token, instead of the context's; - is standard input")
	flags.StringVar(&p.target.caFile, "ca-file", "", "PEM file of the coordinator's root, instead of the context's")
	flags.BoolVar(&p.target.consistent, "consistent", false, "read only what the leader confirms to be newest, instead of what the node that is asked knows")
	p.output.Bind(root, flags)
	_ = root.RegisterFlagCompletionFunc("context", completeContexts)
	root.AddCommand(
		p.loginCommand(), p.contextCommand(), p.statusCommand(), p.reportCommand(), p.whoamiCommand(),
		p.tokenCommand(), p.apiTokenCommand(), p.agentsCommand(), p.certificatesCommand(),
		p.assignmentsCommand(), p.renewCommand(), p.renewalsCommand(), p.revokeCommand(), p.ordersCommand(), p.issuersCommand(), p.jobsCommand(), p.caCommand(), p.clusterCommand(), p.snapshotCommand(), p.auditCommand(),
		p.historyCommand(),
		versionCommand(p),
	)
	sharedcli.Completion(root)
	completeAll(root, p.flagCompletions())
	return root
}

// group makes a command that does nothing but hold others: alone it shows what
// there is, and a misspelt one is an error, as it is at the top.
func group(cmd *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(commands...)
	if cmd.Example == "" {
		cmd.Example = firstExamples(commands)
	}
	cmd.SuggestionsMinimumDistance = 2 // letters; cobra sets it for the top alone
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
		if meant := cmd.SuggestionsFor(args[0]); len(meant) > 0 {
			text += "; did you mean " + strings.Join(meant, " or ") + "?"
		}
		return errors.New(text)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// firstExamples are the first of each command.
func firstExamples(commands []*cobra.Command) string {
	var lines []string
	for _, cmd := range commands {
		if line, _, _ := strings.Cut(cmd.Example, "\n"); line != "" && !strings.HasSuffix(line, `\`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// versionCommand is the verb of the daemons, under this program's --output.
func versionCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print version, commit and platform", Args: sharedcli.NoArgs,
		Example: `  certctl version
  certctl version --output json`,
		Long: `Prints the version of this program, the commit that it was built from, and for which
system. That of the coordinator is in "certctl status".`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return sharedcli.ShowVersion(cmd.OutOrStdout(), p.output)
		},
	}
}

// show writes v as --output says, or lets human write it.
func (p *program) show(cmd *cobra.Command, v any, human func(out io.Writer, now time.Time) error) error {
	return p.output.Write(cmd.OutOrStdout(), v, func(out io.Writer) error { return human(out, time.Now()) })
}

// asks is a command that asks the coordinator.
func (p *program) asks(run func(cmd *cobra.Command, args []string, c *client.Client) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := p.target.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		return run(cmd, args, c)
	}
}
