package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/daemon"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/cli"
)

func (c *coordinatorCommand) leaveCommand() *cobra.Command {
	var output cli.Output
	var dry, yes, force bool
	var address, tokenFile string
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Take this node out of its cluster, for good",
		Long: `Asks the coordinator that runs on this machine to leave its cluster: it hands over if it
leads, is removed from the members, and ends. Its data directory stays as it was, the seal
key too, and no start uses it any more, until "join --put-aside" lets the node join again.

It is refused when the nodes that remain could not store anything, and without --force when
they would bear no failure while the cluster bears one now: let the node that takes its
place join first. For a reboot or an upgrade stop the node and leave it a member.

The node has to run. One that is gone is taken out from another machine, with "certctl
cluster remove".

An administrator's token is needed. Without --token-file it is that of the first start, if
this node made one, or what CERTCTL_TOKEN_FILE names.

Exit status: 0 it has left, or could leave (--dry-run), 1 it was refused, or something is
wrong.`,
		Example: `  certctl-coordinator leave --dry-run
  certctl-coordinator leave --token-file admin.token --yes`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dry && yes {
				return errors.New("give one of --dry-run and --yes")
			}
			conf, err := c.loadQuietly()
			if err != nil {
				return err
			}
			if there, err := daemon.SetUpAs(conf.Settings.DataDir); err != nil {
				return err
			} else if there == "" {
				return fmt.Errorf("data directory %s: there is no node here that could leave a cluster", conf.Settings.DataDir)
			}
			asks, err := localClient(conf.Settings, address, tokenFile)
			if err != nil {
				return err
			}
			defer asks.Close()
			return leave(cmd.Context(), asks, cmd.OutOrStdout(), output, yes, force)
		},
	}
	output.Bind(cmd, cmd.Flags())
	flags := cmd.Flags()
	flags.BoolVar(&dry, "dry-run", false, "say what it would mean, and change nothing")
	flags.BoolVar(&yes, "yes", false, "do it")
	flags.BoolVar(&force, "force", false, "leave also if the cluster bears no failure any more without this node")
	flags.StringVar(&address, "server", "", "URL of this node (default: where it listens on this machine)")
	flags.StringVar(&tokenFile, "token-file", "", "file with an administrator's token")
	return cmd
}

// leave asks first what it would mean, and does just that.
func leave(ctx context.Context, asks *client.Client, out io.Writer, output cli.Output, yes, force bool) error {
	d, err := asks.LeaveCluster(ctx, resource.LeaveCluster{DryRun: true})
	if err != nil {
		return askedIn(err)
	}
	refused := d.Refusal != "" && (!d.Forcible || !force)
	if yes && !refused {
		wish := resource.LeaveCluster{Force: force, PrevIndex: d.ConfigurationIndex}
		if d, err = asks.LeaveCluster(ctx, wish); err != nil {
			return askedIn(err)
		}
	}
	err = output.Write(out, d, func(out io.Writer) error {
		_, err := io.WriteString(out, describe(d))
		return err
	})
	if err != nil {
		return err
	}
	switch {
	case refused && d.Forcible:
		return fmt.Errorf("%s; let the node that takes its place join first, or say --force", d.Refusal)
	case refused:
		return errors.New(d.Refusal)
	}
	return nil
}

// askedIn says what to do when the node did not answer.
func askedIn(err error) error {
	if errors.Is(err, client.ErrUnreachable) {
		return fmt.Errorf("%w; start this node, or take it out from another machine: certctl cluster remove", err)
	}
	return err
}

func describe(d *resource.Departure) string {
	var text strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&text, "%-20s %s\n", label, fmt.Sprintf(format, args...))
	}
	what := "voter"
	switch {
	case d.Leader:
		what = "leader; it hands over first"
	case !d.Voter:
		what = "no vote yet"
	}
	line("Node", "%s (%s)", d.Node, what)
	line("Voters that remain", "%d, of which %d work and %d are needed", len(d.Remaining), len(d.Remaining)-len(d.Silent), d.Quorum)
	if len(d.Silent) > 0 {
		line("Do not answer", "%s", strings.Join(d.Silent, ", "))
	}
	line("May fail", "%d now, %d without this node", d.ToleranceBefore, d.ToleranceAfter)
	switch {
	case d.Left:
		line("Done", "node %s has left the cluster and ends", d.Node)
		line("Next", "to let it join again: certctl-coordinator join --put-aside; if it is not to come back, delete its data directory")
	case d.Refusal == "" || d.Forcible:
		line("Done", "nothing; say --yes to do it")
	default:
		line("Done", "nothing")
	}
	return text.String()
}

// localClient talks to the coordinator that runs on this machine with the same
// settings.
func localClient(s *config.Settings, url, tokenFile string) (*client.Client, error) {
	if url == "" {
		host, port, err := net.SplitHostPort(s.Server.Listen)
		if err != nil {
			return nil, fmt.Errorf("server.listen: %w", err)
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "localhost"
		}
		url = "https://" + net.JoinHostPort(host, port)
	}
	roots, err := os.ReadFile(filepath.Join(s.DataDir, server.RootFile))
	if err != nil {
		return nil, fmt.Errorf("the root of the coordinator's certificate: %w", err)
	}
	if tokenFile == "" {
		tokenFile = os.Getenv("CERTCTL_TOKEN_FILE")
	}
	own := tokenFile == ""
	if own {
		tokenFile = filepath.Join(s.DataDir, server.AdminTokenFile)
	}
	text, err := os.ReadFile(tokenFile)
	if own && errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("an administrator's token is needed, and there is none in the data directory of this node: give one with --token-file")
	}
	if err != nil {
		return nil, fmt.Errorf("administrator's token: %w", err)
	}
	token, err := apitoken.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tokenFile, err)
	}
	return client.New(client.Config{Servers: []string{url}, Token: token, Roots: string(roots)})
}
