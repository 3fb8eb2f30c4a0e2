package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/daemon"
	"github.com/certctl/certctl/coordinator/jointoken"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/settings"
)

// maxTokenFile bounds what is read of a file with a token, in octets.
const maxTokenFile = 16 << 10

// setUp is what init and join say when they are done.
type setUp struct {
	NodeID    string `json:"node_id"`
	ClusterID string `json:"cluster_id,omitempty"`
	DataDir   string `json:"data_dir"`
	Address   string `json:"address,omitempty"` // at which other nodes reach this one
	URL       string `json:"url,omitempty"`
	// Done is false if the data directory was set up before, and nothing was done.
	Done       bool   `json:"done"`
	RootFile   string `json:"root_file,omitempty"`
	TokenFile  string `json:"token_file,omitempty"`
	NextAction string `json:"next"`
}

func (c *coordinatorCommand) initCommand() *cobra.Command {
	var output cli.Output
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Found a cluster: make the data directory of its first node, and exit",
		Long: `Makes the data directory of the first node of a new cluster: the built-in CA, the
cluster's own CA for the connections between nodes, and an administrator's token.
Start the node afterwards with "run", or as the service; more nodes join with
"join".

"run" does the same by itself when its data directory is empty and it has no join
token. Init is for those who want the two apart. On a data directory that is set
up already it changes nothing, and says so.

A cluster that is to take over a snapshot of another one needs that one's seal key:
set ca.seal_key, or CERTCTL_CA_SEAL_KEY_FILE, to it.`,
		Example: `  certctl-coordinator init
  certctl-coordinator init --output json
  CERTCTL_CA_SEAL_KEY_FILE=/root/old-seal.key certctl-coordinator init`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := c.loadQuietly()
			if err != nil {
				return err
			}
			if conf.Settings.Cluster.JoinToken.IsSet() {
				return errors.New("cluster.join_token is set, so that this node is to join a cluster and not to found one: leave it out, or use \"join\"")
			}
			done, err := found(cmd.Context(), conf)
			if err != nil {
				return err
			}
			return done.write(cmd.OutOrStdout(), output)
		},
	}
	output.Bind(cmd, cmd.Flags())
	return cmd
}

// loadQuietly is load for a verb that ends with a page for people: of the log they
// get to see what may need them, unless they set the level themselves.
func (c *coordinatorCommand) loadQuietly() (daemon.Config, error) {
	conf, err := c.load()
	if err == nil && conf.Settings.Log.Level == defaultLogLevel {
		conf.Log, _, err = cli.Logger(os.Stderr, "warn", conf.Settings.Log.Format)
	}
	return conf, err
}

// defaultLogLevel is that of the setting log.level.
const defaultLogLevel = "info"

// found runs the node until it answers for the first time.
func found(ctx context.Context, conf daemon.Config) (*setUp, error) {
	if there, err := daemon.SetUpAs(conf.Settings.DataDir); err != nil || there != "" {
		return before(conf, there), err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ready := false
	conf.Ready = func() {
		ready = true
		stop()
	}
	d, err := daemon.New(ctx, conf)
	if err != nil {
		return nil, err
	}
	done := &setUp{
		NodeID: d.NodeID(), DataDir: conf.Settings.DataDir, Address: d.PeerAddress(), URL: d.URL(), Done: true,
	}
	if err := d.Run(ctx); err != nil {
		return nil, err
	}
	done.ClusterID = d.ClusterID() // which the built-in CA has when it is made
	if !ready {
		return nil, errors.New("the node did not get ready; what it has made is continued by the next init or run")
	}
	return done.finish(conf, "start the node: certctl-coordinator run, or certctl-coordinator install && certctl-coordinator start"), nil
}

func (c *coordinatorCommand) joinCommand() *cobra.Command {
	var output cli.Output
	var file string
	var putAside bool
	cmd := &cobra.Command{
		Use:   "join [TOKEN]",
		Short: "Join a cluster: make the data directory of a new node, and exit",
		Long: `Asks a cluster to let this node in, and makes its data directory. Start the node
afterwards with "run", or as the service; it gets a vote when it has been healthy
for a while.

The token is one of "certctl cluster join-token create", made on any machine. It
works once and says by itself where the cluster is. Give it as the argument, in a
file, or on the standard input (--token-file -), where it stays out of the list of
processes.

"run" does the same by itself when its data directory is empty and cluster.join_token
(CERTCTL_CLUSTER_JOIN_TOKEN, or its _FILE) is set: one command line for the first
start and for all others. On a data directory that is set up already, join changes
nothing, and says so; it fails if the directory belongs to another cluster than the
token, and if its node has left its cluster. --put-aside lets such a node join: what it
had goes to the folder left-TIME of the data directory, and can be deleted when the node
has joined.`,
		Example: `  certctl cluster join-token create --quiet | ssh c2 certctl-coordinator join --token-file -
  certctl-coordinator join --token-file /root/join-token
  certctl-coordinator join --put-aside --token-file /root/join-token
  CERTCTL_CLUSTER_JOIN_TOKEN_FILE=/run/secrets/join certctl-coordinator run`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conf, err := c.loadQuietly()
			if err != nil {
				return err
			}
			token, err := takeToken(&conf, cmd.InOrStdin(), file, args)
			if err != nil {
				return err
			}
			if putAside {
				if err := madeRoom(conf); err != nil {
					return err
				}
			}
			done, err := joined(cmd.Context(), conf, token)
			if err != nil {
				return err
			}
			return done.write(cmd.OutOrStdout(), output)
		},
	}
	output.Bind(cmd, cmd.Flags())
	cmd.Flags().StringVar(&file, "token-file", "", "file with the join token; - is the standard input")
	cmd.Flags().BoolVar(&putAside, "put-aside", false, "let a node that has left its cluster join again, and keep what it had beside")
	return cmd
}

// takeToken puts the token of the command line in the place of the configured one.
func takeToken(conf *daemon.Config, stdin io.Reader, file string, args []string) (token jointoken.Token, err error) {
	var text string
	switch {
	case len(args) == 1 && file != "":
		return token, errors.New("the join token was given twice: as the argument and with --token-file")
	case len(args) == 1:
		text = args[0]
	case file != "":
		if text, err = readToken(stdin, file); err != nil {
			return token, err
		}
	case conf.Settings.Cluster.JoinToken.IsSet():
		text = conf.Settings.Cluster.JoinToken.Reveal()
	default:
		return token, errors.New("there is no join token: give one as the argument or with --token-file; \"certctl cluster join-token create\" makes it")
	}
	if token, err = jointoken.Parse(text); err != nil {
		return token, err
	}
	conf.Settings.Cluster.JoinToken = settings.NewSecret(token.Reveal())
	return token, nil
}

func readToken(stdin io.Reader, name string) (string, error) {
	source := stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("join token: %w", err)
		}
		defer file.Close()
		source = file
	}
	text, err := io.ReadAll(io.LimitReader(source, maxTokenFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("join token: %w", err)
	case len(text) > maxTokenFile:
		return "", fmt.Errorf("join token: %s holds more than %d octets", name, maxTokenFile)
	}
	return string(text), nil
}

// madeRoom puts aside what a node had that has left its cluster.
func madeRoom(conf daemon.Config) error {
	aside, err := daemon.PutAside(conf.Settings.DataDir)
	if err == nil && aside != "" {
		conf.Log.Warn("what this node had before it left its cluster was put aside; delete it when the node has joined", "directory", aside)
	}
	return err
}

// joined makes the data directory of a node that the cluster lets in, unless
// there is one of that cluster.
func joined(ctx context.Context, conf daemon.Config, token jointoken.Token) (*setUp, error) {
	there, err := daemon.SetUpAs(conf.Settings.DataDir)
	if err != nil {
		return nil, err
	}
	if there != "" {
		known, err := daemon.CheckToken(conf.Settings.DataDir, token)
		if err != nil {
			return nil, err
		}
		done := before(conf, there)
		if !known {
			done.NextAction += "; whether it is of the token's cluster cannot be told before its node has run once"
		}
		return done, nil
	}
	made, err := daemon.Join(ctx, conf)
	if err != nil {
		return nil, err
	}
	done := &setUp{
		NodeID: made.NodeID, ClusterID: made.ClusterID, DataDir: conf.Settings.DataDir, Address: made.Address, URL: made.URL, Done: true,
	}
	return done.finish(conf, "start the node: certctl-coordinator run, or certctl-coordinator install && certctl-coordinator start; then look at certctl cluster members"), nil
}

// before says that there is nothing to do.
func before(conf daemon.Config, nodeID string) *setUp {
	done := &setUp{NodeID: nodeID, DataDir: conf.Settings.DataDir}
	return done.finish(conf, "nothing: this data directory was set up before, and was left as it is")
}

// finish names the files that are there.
func (s *setUp) finish(conf daemon.Config, next string) *setUp {
	s.NextAction = next
	for name, file := range map[string]*string{server.RootFile: &s.RootFile, server.AdminTokenFile: &s.TokenFile} {
		path := filepath.Join(conf.Settings.DataDir, name)
		if _, err := os.Stat(path); err == nil {
			*file = path
		}
	}
	return s
}

func (s *setUp) write(w io.Writer, output cli.Output) error {
	return output.Write(w, s, s.tell)
}

// tell writes it for a person.
func (s *setUp) tell(w io.Writer) error {
	var text strings.Builder
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(&text, "%-20s %s\n", label, value)
		}
	}
	line("Node", s.NodeID)
	line("Cluster", s.ClusterID)
	line("Data directory", s.DataDir)
	line("For other nodes", s.Address)
	line("For all others", s.URL)
	line("Root certificate", s.RootFile)
	line("First admin token", s.TokenFile)
	line("Next", s.NextAction)
	_, err := io.WriteString(w, text.String())
	return err
}
