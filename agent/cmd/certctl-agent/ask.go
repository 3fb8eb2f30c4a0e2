package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/shared/cli"
)

func (a *agentCommand) statusCommand() *cobra.Command {
	var output cli.Output
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how this host and its certificates are",
		Long: `Asks the running agent. The first line is the verdict; what needs attention comes
first. Whichever agent answers on control.socket is shown, like with "list": its
state_dir and configuration file are in the output of --output json.

Exit status: 0 all is well, 1 something needs attention, 2 the agent is not
running.`,
		Example: `  certctl-agent status
  certctl-agent status --output json | jq .safe_until`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			status, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			verdict := control.Judge(status)
			err = output.Write(cmd.OutOrStdout(), status, func(out io.Writer) (err error) {
				verdict, err = control.Render(out, status)
				return err
			})
			if err != nil {
				return err
			}
			if verdict.ExitCode != 0 {
				return exitStatus(verdict.ExitCode)
			}
			return nil
		},
	}
	output.Bind(cmd, cmd.Flags())
	return cmd
}

func (a *agentCommand) listCommand() *cobra.Command {
	var output cli.Output
	cmd := &cobra.Command{
		Use:     "list [NAME]",
		Aliases: []string{"ls"},
		Short:   "List the managed certificates, or show one whole",
		Long: `Lists the managed certificates. Those that left the configuration are shown as
removed until what is kept of them is deleted.`,
		Example: `  certctl-agent list
  certctl-agent list www
  certctl-agent list www --output json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			if len(args) == 1 {
				certificate, err := client.Certificate(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return output.Write(cmd.OutOrStdout(), certificate, func(out io.Writer) error {
					return control.RenderCertificate(out, certificate, time.Now())
				})
			}
			status, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			return output.Write(cmd.OutOrStdout(), slices.Concat(status.Certificates, status.Removed), func(out io.Writer) error {
				return listTable(out, status)
			})
		},
	}
	output.Bind(cmd, cmd.Flags())
	return cmd
}

func listTable(out io.Writer, status *control.Status) error {
	certificates := slices.Concat(status.Certificates, status.Removed)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSOURCE\tNAMES\tISSUER\tSTATE\tSERIAL\tNOT AFTER\tRENEW AT\tSAFE UNTIL")
	date := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return control.Stamp(t)
	}
	safe := func(t time.Time) string {
		if t.IsZero() {
			return "NOT SAFE"
		}
		return date(t)
	}
	for i := range certificates {
		c := &certificates[i]
		serial := c.Serial
		if serial == "" {
			serial = "-"
		}
		safeUntil := safe(c.SafeUntil)
		if !c.KeptUntil.IsZero() {
			safeUntil = "kept until " + date(c.KeptUntil)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			c.Name, c.Source, strings.Join(c.Names.Strings(), ","), c.Issuer, c.State, serial, date(c.NotAfter), date(c.RenewAt), safeUntil)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return control.RenderAssignments(out, status.Assignments)
}

func (a *agentCommand) renewCommand() *cobra.Command {
	var wait time.Duration
	var all bool
	cmd := &cobra.Command{
		Use:   "renew NAME | --all",
		Short: "Renew certificates now, with new keys",
		Long: `Makes the running agent renew a certificate whatever its dates say, with a new
key, and waits until the new one is in service. An interrupted wait interrupts
nothing else.

With --all it does so for every certificate of this host and does not wait. How
fast they follow each other is up to renewal.concurrency and to the limits of
their issuers; "certctl-agent status" shows those that wait for a turn.

An agent with another state_dir than that of this configuration is not asked.`,
		Example: `  certctl-agent renew www
  certctl-agent renew www --wait 0s
  certctl-agent renew --all`,
		Args: func(cmd *cobra.Command, args []string) error {
			if !all {
				return oneName(cmd, args)
			}
			if len(args) > 0 {
				return errors.New("renew: give either the name of one certificate or --all")
			}
			return nil
		},
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.dialOwn(cmd.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			if all {
				return renewAll(cmd.Context(), cmd.OutOrStdout(), client)
			}
			before, err := client.Certificate(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			underWay, err := client.Renew(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if underWay {
				fmt.Fprintf(out, "%s: a renewal is under way already; it continues at once\n", args[0])
			} else {
				fmt.Fprintf(out, "%s: renewal begins\n", args[0])
			}
			if wait <= 0 {
				return nil
			}
			return follow(cmd.Context(), out, client, before, wait)
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 2*time.Minute, "how long to wait for the new certificate; 0s: not at all")
	cmd.Flags().BoolVar(&all, "all", false, "renew every certificate of this host, without waiting")
	return cmd
}

// renewAll asks for each certificate on its own, so that what cannot be asked for
// holds up nothing else.
func renewAll(ctx context.Context, out io.Writer, client *control.Client) error {
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	begun, underWay := 0, 0
	var failed []error
	for i := range status.Certificates {
		name := status.Certificates[i].Name
		already, err := client.Renew(ctx, name)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		case already:
			underWay++
		default:
			begun++
		}
	}
	fmt.Fprintf(out, "%d renewals asked for, %d were under way already and continue at once; \"certctl-agent status\" shows how they get on\n", begun, underWay)
	return errors.Join(failed...)
}

// oneName is cobra.ExactArgs(1) in words.
func oneName(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s: give the name of one certificate; \"certctl-agent list\" shows the names", cmd.Name())
	}
	return nil
}

// completeNames offers the names of the managed certificates to the shell.
func (a *agentCommand) completeNames(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	client, err := a.dial(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer client.Close()
	status, err := client.Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for i := range status.Certificates {
		names = append(names, status.Certificates[i].Name)
	}
	slices.Sort(names)
	return names, cobra.ShellCompDirectiveNoFileComp
}
