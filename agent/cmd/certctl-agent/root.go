package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/settings"
)

// exitStatus is an error that has been told already, with the status to exit with.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// agentCommand is what the verbs share.
type agentCommand struct {
	source cli.Source
}

// load reads the settings.
func (a *agentCommand) load() (*config.Settings, *settings.Report, error) {
	s := new(config.Settings)
	report, err := a.source.Load(s)
	return s, report, err
}

// dial connects to the running agent. All that it needs is where the socket is: a
// mistake elsewhere in the file is for the agent to tell, which goes on with the
// configuration that it has, and must not hide it.
func (a *agentCommand) dial(ctx context.Context) (*control.Client, error) {
	_, report, wrong := a.load()
	if report == nil {
		return nil, wrong
	}
	client, err := control.Dial(ctx, report.Text("control.socket"))
	if err != nil {
		// What is wrong with the file may be why this socket was tried.
		return nil, errors.Join(err, wrong)
	}
	return client, nil
}

func execute(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	if status, told := errors.AsType[exitStatus](err); told {
		return int(status)
	}
	fmt.Fprintf(stderr, "certctl-agent: %v\n", err)
	if errors.Is(err, control.ErrNotRunning) {
		return control.ExitNotRunning
	}
	return 1
}

func newRoot() *cobra.Command {
	a := &agentCommand{source: cli.Source{DefaultFile: config.DefaultFile}}
	root := &cobra.Command{
		Use:   "certctl-agent",
		Short: "Keeps the certificates of this host valid",
		Long: `certctl-agent obtains the certificates of this host, puts them into service, sees
that they are served, and renews them: by itself, whether or not its coordinator,
the network or a CA is there at the moment.

Exit status: 0 all is well, 1 something failed or needs attention, 2 the agent
is not running.`,
		Example: `  certctl-agent enroll --server https://certctl.example.com:8443 --token-file token
  certctl-agent check-config
  certctl-agent install && certctl-agent start
  certctl-agent status`,
		Version:       buildinfo.Get().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cli.FlagErrors(root)
	a.source.Bind(root)
	root.AddCommand(
		a.runCommand(), a.enrollCommand(), a.statusCommand(), a.listCommand(), a.renewCommand(), a.reloadCommand(), a.drillCommand(),
		cli.CheckConfig(&a.source, checkAssembly), cli.Version(),
	)
	root.AddCommand(a.serviceCommands()...)
	cli.Verbs(root)
	return root
}
