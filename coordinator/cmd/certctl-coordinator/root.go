package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/daemon"
	"github.com/certctl/certctl/coordinator/issuers"
	"github.com/certctl/certctl/coordinator/recovery"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/packaging/systemd"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/service"
	"github.com/certctl/certctl/shared/settings"
)

// exitStatus is an error that has been told already, with the status to exit with.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// leftStatus is with what run ends when the node has left its cluster. The systemd
// unit does not start it again then.
const leftStatus = 3

type coordinatorCommand struct {
	source cli.Source
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
	fmt.Fprintf(stderr, "certctl-coordinator: %v\n", err)
	return 1
}

func newRoot() *cobra.Command {
	c := &coordinatorCommand{source: cli.Source{DefaultFile: config.DefaultFile}}
	root := &cobra.Command{
		Use:   "certctl-coordinator",
		Short: "The centre of a fleet of certctl agents",
		Long: `certctl-coordinator remembers what agents report, answers for it over an API, and
issues certificates from its built-in CA.

It needs no configuration. The first start makes the CA (root.pem in the data
directory is its root) and an administrator's token (admin.token there). One node
is enough to begin with; two more join later, with a token of "certctl cluster
join-token create", and then any one of the three may be lost.

Exit status: 0 it was asked to stop, 1 something is wrong, 3 the node has left its
cluster, and is not to be started again.`,
		Example: `  certctl-coordinator install && certctl-coordinator start
  certctl-coordinator run --set server.listen=127.0.0.1:8443
  certctl-coordinator join --token-file /root/join-token
  certctl login --server https://localhost:8443 \
      --token-file /var/lib/certctl-coordinator/admin.token \
      --ca-file /var/lib/certctl-coordinator/root.pem`,
		Version:       buildinfo.Get().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cli.FlagErrors(root)
	c.source.Bind(root)
	root.AddCommand(c.runCommand(), c.initCommand(), c.joinCommand(), c.leaveCommand(), recovery.Command(&c.source), cli.CheckConfig(&c.source, checkIssuers), cli.Version())
	definition := func() (service.Definition, error) { return c.definition(), nil }
	root.AddCommand(service.Commands(definition)...)
	root.AddCommand(service.Status(definition))
	cli.Verbs(root)
	return root
}

func (c *coordinatorCommand) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the coordinator in the foreground, or as the service that install made",
		Long: `Runs until it is told to stop, by a signal or the service manager. On an empty data
directory it founds a cluster first, as "init" does, or joins one, as "join" does, if
a join token is configured. A leader that is stopped hands the leadership over.

Exit status: 0 it was asked to stop, 1 something is wrong, 3 the node has left its
cluster, and is not to be started again.`,
		Example: `  certctl-coordinator run
  certctl-coordinator run --config coordinator.yaml --set server.listen=127.0.0.1:8443`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status := service.Run(cmd.Context(), c.definition(), func(ctx context.Context, life service.Lifecycle) int {
				if err := c.run(ctx, life); err != nil {
					fmt.Fprintf(os.Stderr, "certctl-coordinator: %v\n", err)
					life.Failed(err)
					if _, left := errors.AsType[*daemon.LeftError](err); left {
						return leftStatus
					}
					return 1
				}
				return 0
			})
			if status != 0 {
				return exitStatus(status)
			}
			return nil
		},
	}
	service.BindRun(cmd.Flags())
	return cmd
}

// run is the coordinator's life, from its configuration to its last goroutine.
func (c *coordinatorCommand) run(ctx context.Context, life service.Lifecycle) error {
	conf, err := c.load()
	if err != nil {
		return err
	}
	conf.Ready = life.Ready
	d, err := daemon.New(ctx, conf)
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

// load is everything that the configuration says.
func (c *coordinatorCommand) load() (daemon.Config, error) {
	conf := daemon.Config{Settings: new(config.Settings)}
	report, err := c.source.Load(conf.Settings)
	if err != nil {
		return conf, err
	}
	if conf.Log, _, err = cli.Logger(os.Stderr, conf.Settings.Log.Level, conf.Settings.Log.Format); err != nil {
		return conf, err
	}
	for _, warning := range report.Warnings() {
		conf.Log.Warn("configuration", "warning", warning)
	}
	if conf.Names, err = server.NamesOf(conf.Settings.ServerNames()); err != nil {
		return conf, report.Problem("server.names", err)
	}
	if conf.Issuers, err = issuers.New(conf.Settings, issuers.Options{}); err != nil {
		return conf, located(report, err)
	}
	return conf, nil
}

// checkIssuers reads the files that the issuers' settings name.
func checkIssuers(s *config.Settings, report *settings.Report) (warnings []string, err error) {
	registry, err := issuers.New(s, issuers.Options{})
	if err != nil {
		return nil, located(report, err)
	}
	registry.Close()
	return nil, nil
}

// located says where in the configuration the settings are that issuers.New found
// wrong.
func located(report *settings.Report, err error) error {
	list, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var problems []error
	for _, err := range list.Unwrap() {
		if wrong, ok := errors.AsType[*issuers.Error](err); ok {
			err = report.Problem(wrong.Path, wrong.Err)
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// definition is the coordinator as the service manager knows it. A
// configuration file that somebody named is the service's too.
func (c *coordinatorCommand) definition() service.Definition {
	def := service.Definition{
		Name:        "certctl-coordinator",
		DisplayName: "certctl coordinator",
		Description: "Remembers and reports the certificates of a fleet, and issues from the built-in CA.",
		Arguments:   []string{"run"},
		ConfigDir:   filepath.Dir(config.DefaultFile),
		Unit:        systemd.Coordinator,
	}
	if file, named := c.source.File(); named {
		def.ConfigFile = file
	}
	return def
}
