package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/shared/cli"
)

// patience is how long a verb waits for the service manager. The units allow a
// start less than this.
const patience = 6 * time.Minute

// Commands are the verbs install, uninstall, start, stop and restart, and
// service with the verb status, for the command line of a daemon. def is
// called when one of them runs, after flags are parsed, and before that for the
// name in the examples.
func Commands(def func() (Definition, error)) []*cobra.Command {
	v := &verbs{def: def, control: NewControl}
	return v.all()
}

// Status is the verb status, for a daemon that has no other state to show by
// that name than its service's. Commands have it below service for all.
func Status(def func() (Definition, error)) *cobra.Command {
	v := &verbs{def: def, control: NewControl}
	return v.status("status")
}

type verbs struct {
	def     func() (Definition, error)
	control func(Definition) (*Control, error)
}

func (v *verbs) all() []*cobra.Command {
	return []*cobra.Command{
		v.install(), v.uninstall(),
		v.simple("start", "Start the service and wait until it runs", `Has systemd or Windows start the service, and waits until it says that it is ready. Needs
root, or an administrator's prompt. A service that runs already is left alone.`, (*Control).Start),
		v.simple("stop", "Stop the service and wait until it has ended", `Has systemd or Windows stop the service, and waits until it has finished what it was at.
Needs root, or an administrator's prompt. It starts again at the next boot.`, (*Control).Stop),
		v.simple("restart", "Stop the service and start it again", `Stops the service, waits until it has ended, starts it, and waits until it is ready. Needs
root, or an administrator's prompt.`, (*Control).Restart),
		v.service(),
	}
}

// with hands the service's control to a verb.
func (v *verbs) with(cmd *cobra.Command, run func(ctx context.Context, c *Control) error) error {
	def, err := v.def()
	if err != nil {
		return err
	}
	c, err := v.control(def)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), patience)
	defer cancel()
	return run(ctx, c)
}

func (v *verbs) install() *cobra.Command {
	var force, now bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install this program as a service that starts at boot",
		Long: `Makes this executable a service of systemd or of Windows that starts at boot and
is started again whenever it ends. Needs root, or an administrator's prompt.

With --config the service reads that configuration file. Other flags are not for
services: put settings into the configuration file.`,
		Args: cli.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		// A setting for this one command would silently not be the service's.
		if set := cmd.Flags().Lookup("set"); set != nil && set.Changed {
			return errors.New("flag --set: a service has no such flag: put the setting into the configuration file")
		}
		return v.with(cmd, func(ctx context.Context, c *Control) error {
			state, err := c.Install(ctx, force)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s is installed: %s\n", state.Name, state.Source)
			switch {
			case now && state.Running:
				state, err = c.Restart(ctx)
			case now:
				state, err = c.Start(ctx)
			case state.Running:
				fmt.Fprintf(out, "it runs with its old definition until \"%s restart\"\n", state.Name)
				return nil
			default:
				fmt.Fprintf(out, "it starts at the next boot; start it now with \"%s start\"\n", state.Name)
				return nil
			}
			if err != nil {
				return err
			}
			return printState(out, state)
		})
	}
	cmd.Flags().BoolVar(&force, "force", false, "write the definition anew if the service is installed already")
	cmd.Flags().BoolVar(&now, "now", false, "start the service too, or restart it")
	v.example(cmd, "install", "install --config /etc/certctl/other.yaml --now")
	return cmd
}

func (v *verbs) uninstall() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the service and remove it; configuration and state stay",
		Long: `Stops the service, and has systemd or Windows forget it. Needs root, or an
administrator's prompt. The program, its configuration and its state stay where they
are: "install" makes it a service again, with all that it knew.`,
		Args: cli.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return v.with(cmd, func(ctx context.Context, c *Control) error {
			if err := c.Uninstall(ctx); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is no service any more; its configuration and state are still there\n", c.def.Name)
			return err
		})
	}
	v.example(cmd, "uninstall")
	return cmd
}

func (v *verbs) simple(verb, short, long string, act func(*Control, context.Context) (State, error)) *cobra.Command {
	cmd := &cobra.Command{Use: verb, Short: short, Long: long, Args: cli.NoArgs}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return v.with(cmd, func(ctx context.Context, c *Control) error {
			state, err := act(c, ctx)
			if err != nil {
				return err
			}
			return printState(cmd.OutOrStdout(), state)
		})
	}
	v.example(cmd, verb)
	return cmd
}

// service is a verb of its own, since status means the daemon's own state.
func (v *verbs) service() *cobra.Command {
	cmd := &cobra.Command{Use: "service", Short: "The service as the service manager sees it", Args: cobra.NoArgs,
		Long: `What systemd or Windows knows of the service, whether or not the program in it answers.`}
	v.example(cmd, "service status")
	cmd.AddCommand(v.status("service status"))
	return cmd
}

// status shows the service; line is how the verb is called.
func (v *verbs) status(line string) *cobra.Command {
	var output cli.Output
	status := &cobra.Command{
		Use:   "status",
		Short: "Show whether the service is installed and runs",
		Long: `Asks systemd or Windows. Everybody may.

Exit status: 0 the service runs, 1 it does not.`,
		Args: cli.NoArgs,
	}
	status.RunE = func(cmd *cobra.Command, _ []string) error {
		return v.with(cmd, func(ctx context.Context, c *Control) error {
			state, err := c.State(ctx)
			if err != nil {
				return err
			}
			err = output.Write(cmd.OutOrStdout(), state, func(out io.Writer) error { return printState(out, state) })
			switch {
			case err != nil:
				return err
			case !state.Installed:
				return fmt.Errorf("the service is %w: install it with \"%s install\"", ErrNotInstalled, c.def.Name)
			case !state.Running:
				return fmt.Errorf("the service does not run: start it with \"%s start\"", c.def.Name)
			}
			return nil
		})
	}
	output.Bind(status, status.Flags())
	v.example(status, line)
	return status
}

// example gives a verb its examples, with the daemon's name before each.
func (v *verbs) example(cmd *cobra.Command, lines ...string) {
	def, err := v.def()
	if err != nil {
		return // the verb itself says so
	}
	for i, line := range lines {
		if i > 0 {
			cmd.Example += "\n"
		}
		cmd.Example += "  " + def.Name + " " + line
	}
}

func printState(out io.Writer, state State) error {
	if !state.Installed {
		_, err := fmt.Fprintf(out, "%s: not installed\n", state.Name)
		return err
	}
	running := "does not run"
	if state.Running {
		running = "runs"
	}
	fmt.Fprintf(out, "%s %s: %s", state.Name, running, state.Word)
	if state.PID != 0 {
		fmt.Fprintf(out, ", pid %d", state.PID)
	}
	if state.Restarts != 0 {
		fmt.Fprintf(out, ", restarted %d times", state.Restarts)
	}
	if !state.Running && state.ExitStatus != 0 {
		fmt.Fprintf(out, ", exit status %d", state.ExitStatus)
	}
	fmt.Fprintln(out)
	if state.Says != "" {
		fmt.Fprintf(out, "  says:           %s\n", state.Says)
	}
	_, err := fmt.Fprintf(out, "  starts at boot: %t\n  defined by:     %s\n", state.StartsAtBoot, state.Source)
	return err
}
