// Package daemon is the whole coordinator put together: the data directory, the
// cluster node, what agents and operators talk to, and the order in which all of
// it starts and stops. Tests that need a real coordinator in their own process
// use it as the program does.
package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/agentapi"
	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/metrics"
	"github.com/certctl/certctl/coordinator/revocation"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/runner"
)

// Config of a Daemon. All but Ready is required.
type Config struct {
	Settings *config.Settings
	// Names are those of the HTTPS server, from server.NamesOf.
	Names server.Names
	Log   *slog.Logger
	// Ready, when set, is called once: the coordinator answers from then on.
	Ready func()
}

// Daemon is one coordinator. Its methods may be called from any goroutine.
type Daemon struct {
	config    Config
	listener  net.Listener
	authority *ca.CA
	state     *clusterState
	front     *server.Server
}

// New opens the ports and the data directory and puts the parts together; at the
// first start it makes the data directory. The caller then calls Run, or Close
// if it will not. Errors say what to do about them.
func New(ctx context.Context, c Config) (_ *Daemon, err error) {
	if c.Settings == nil || c.Log == nil || c.Names.All.IsZero() {
		return nil, errors.New("daemon: one of Settings, Names and Log is missing")
	}
	if c.Ready == nil {
		c.Ready = func() {}
	}
	s, log := c.Settings, c.Log
	log.Info("coordinator starts", "version", buildinfo.Version(), "data_dir", s.DataDir)
	d := &Daemon{config: c}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()

	// What can be refused without touching any state comes first: the port is
	// taken before there is anything to serve.
	if d.listener, err = server.Listen(ctx, s.Server.Listen); err != nil {
		return nil, err
	}
	url := s.Server.URL
	if url == "" { // else its host is among the names
		url = c.Names.URL(d.listener.Addr())
	}
	d.authority, err = ca.New(ca.Config{
		SealKey: s.CA.SealKey.Reveal(), SealKeyFile: filepath.Join(s.DataDir, sealKeyFile),
		Name: s.CA.Name, LeafLifetime: s.CA.LeafLifetime, IdentityLifetime: s.CA.IdentityLifetime,
		RevocationURL: s.CA.RevocationURL(strings.TrimSuffix(url, "/") + revocation.Prefix),
	})
	if err != nil {
		return nil, err
	}
	if d.state, err = openState(s, log); err != nil {
		return nil, err
	}
	return d, d.assemble(url)
}

// assemble makes what answers requests.
func (d *Daemon) assemble(url string) error {
	s, log, node, journal := d.config.Settings, d.config.Log, d.state.node, d.state.journal
	agents, err := agentapi.New(agentapi.Config{
		Node: node, CA: d.authority, Log: log.With("part", "agents"),
		SyncInterval: s.Fleet.SyncInterval, SyncTargetRate: s.Fleet.SyncTargetRate, Reserved: d.config.Names.Own,
	})
	if err != nil {
		return err
	}
	agents.Lead(node)
	lists, err := revocation.New(revocation.Config{Node: node, CA: d.authority, Log: log.With("part", "revocation lists")})
	if err != nil {
		return err
	}
	lists.Lead(node)
	operators, err := api.New(api.Config{
		Node: node, Journal: journal, Presence: agents, Pause: agents.Period,
		Authority: d.authority, EnrollmentURL: url, Listening: d.listener.Addr(), Log: log.With("part", "api"),
	})
	if err != nil {
		return err
	}
	figures, err := metrics.New(metrics.Config{
		Node: node, Journal: journal, Presence: agents, Log: log.With("part", "metrics"),
		CutOff: func(seen, now time.Time) bool { return api.CutOff(agents.Period(), seen, now) },
	})
	if err != nil {
		return err
	}
	d.front, err = server.New(server.Config{
		Listener: d.listener, Names: d.config.Names, Node: node, CA: d.authority, Agents: agents, API: operators, Lists: lists,
		Metrics:  api.Guarded(node.State, time.Now, fleet.RoleViewer, figures),
		Observe:  func(kind server.Kind, status int, took time.Duration) { figures.Observe(string(kind), status, took) },
		RootFile: filepath.Join(s.DataDir, server.RootFile), MaxInFlight: s.Fleet.MaxInFlight, Log: log.With("part", "server"),
	})
	return err
}

// Address is that of the HTTPS server.
func (d *Daemon) Address() net.Addr { return d.listener.Addr() }

// Node is the node of the cluster.
func (d *Daemon) Node() *cluster.Node { return d.state.node }

// Run is the coordinator's life. It returns when ctx is done and everything has
// ended, with nil, or when a part has failed.
func (d *Daemon) Run(ctx context.Context) error {
	defer d.Close()
	// The node outlives the server, so that requests under way at a stop can
	// still be answered; a node that fails ends the server.
	serving, stopServing := context.WithCancelCause(ctx)
	defer stopServing(nil)
	nodeCtx, stopNode := context.WithCancel(context.WithoutCancel(ctx))
	defer stopNode()
	nodeEnded := make(chan error, 1)
	go func() {
		err := runner.Run(nodeCtx,
			runner.Task{Name: "cluster node", Run: d.state.node.Run},
			runner.Task{Name: "journal", Run: d.state.journal.Run},
		)
		stopServing(err)
		nodeEnded <- err
	}()
	err := d.serve(serving)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // asked to stop in the middle of the start
	}
	stopNode()
	if err := errors.Join(<-nodeEnded, err); err != nil {
		return err
	}
	d.config.Log.Info("coordinator stops")
	return nil
}

// serve makes what the first start has to make, and then answers until ctx is
// done.
func (d *Daemon) serve(ctx context.Context) error {
	if err := server.Bootstrap(ctx, d.state.node, d.authority, d.config.Settings.DataDir, d.config.Log); err != nil {
		return err
	}
	d.config.Ready()
	return d.front.Run(ctx)
}

// Close releases what Run did not.
func (d *Daemon) Close() {
	if d.listener != nil {
		_ = d.listener.Close() // closed by the server, if it ran
	}
	if d.state != nil {
		d.state.close(d.config.Log)
	}
}
