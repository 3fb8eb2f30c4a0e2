package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/wire"
)

func (a *agentCommand) reloadCommand() *cobra.Command {
	var output cli.Output
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Put the configuration on disk into effect, without a restart",
		Long: `Makes the running agent read its configuration anew, and shows what that changes.
Nothing that is under way is interrupted. When the configuration is wrong, every
mistake is told with file, line and column, and the agent goes on with the one that
it has. An agent with another state_dir than that of this configuration is not
asked.

The agent also reads its files when they change, within some seconds, and at
SIGHUP ("systemctl reload certctl-agent").

Exit status: 0 the configuration on disk is in effect, 1 it is not, 2 the agent is
not running.`,
		Example: `  certctl-agent check-config && certctl-agent reload
  certctl-agent reload --output json | jq .added`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.dialOwn(cmd.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			done, err := client.Reload(cmd.Context())
			if problem, ok := errors.AsType[*wire.Problem](err); ok && problem.Code == wire.CodeInvalid {
				return errors.New(problem.Detail) // the findings alone, as check-config shows them
			}
			if err != nil {
				return err
			}
			return output.Write(cmd.OutOrStdout(), done, func(out io.Writer) error { return reloadText(out, done) })
		},
	}
	output.Bind(cmd, cmd.Flags())
	return cmd
}

func reloadText(out io.Writer, done *control.Reload) error {
	var b strings.Builder
	for _, kind := range []struct {
		what  string
		names []string
	}{{"added", done.Added}, {"removed", done.Removed}, {"changed", done.Changed}, {"settings changed", done.Settings}} {
		if len(kind.names) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", kind.what, strings.Join(kind.names, ", "))
		}
	}
	if done.Unchanged > 0 {
		fmt.Fprintf(&b, "unchanged: %d\n", done.Unchanged)
	}
	fmt.Fprintln(&b, "the configuration is in effect")
	_, err := io.WriteString(out, b.String())
	return err
}
