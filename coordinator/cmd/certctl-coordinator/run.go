package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
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
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/runner"
	"github.com/certctl/certctl/shared/service"
)

// run is the coordinator's life, from its configuration to its last goroutine.
func (c *coordinatorCommand) run(ctx context.Context, life service.Lifecycle) error {
	s := new(config.Settings)
	report, err := c.source.Load(s)
	if err != nil {
		return err
	}
	log, _, err := cli.Logger(os.Stderr, s.Log.Level, s.Log.Format)
	if err != nil {
		return err
	}
	for _, warning := range report.Warnings() {
		log.Warn("configuration", "warning", warning)
	}
	log.Info("coordinator starts", "version", buildinfo.Version(), "data_dir", s.DataDir)

	// What can be refused without touching any state comes first: the names,
	// and the port, which is taken before there is anything to serve.
	names, err := server.NamesOf(s.ServerNames())
	if err != nil {
		return report.Problem("server.names", err)
	}
	listener, err := server.Listen(ctx, s.Server.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	url := s.Server.URL
	if url == "" { // else its host is among the names
		url = names.URL(listener.Addr())
	}

	authority, err := ca.New(ca.Config{
		SealKey: s.CA.SealKey.Reveal(), SealKeyFile: filepath.Join(s.DataDir, sealKeyFile),
		Name: s.CA.Name, LeafLifetime: s.CA.LeafLifetime, IdentityLifetime: s.CA.IdentityLifetime,
		RevocationURL: s.CA.RevocationURL(strings.TrimSuffix(url, "/") + revocation.Prefix),
	})
	if err != nil {
		return err
	}
	state, err := openState(s, log)
	if err != nil {
		return err
	}
	defer state.close(log)

	agents, err := agentapi.New(agentapi.Config{
		Node: state.node, CA: authority, Log: log.With("part", "agents"),
		SyncInterval: s.Fleet.SyncInterval, SyncTargetRate: s.Fleet.SyncTargetRate, Reserved: names.Own,
	})
	if err != nil {
		return err
	}
	agents.Lead(state.node)
	lists, err := revocation.New(revocation.Config{Node: state.node, CA: authority, Log: log.With("part", "revocation lists")})
	if err != nil {
		return err
	}
	lists.Lead(state.node)
	operators, err := api.New(api.Config{
		Node: state.node, Journal: state.journal, Presence: agents, Pause: agents.Period,
		Authority: authority, EnrollmentURL: url, Listening: listener.Addr(), Log: log.With("part", "api"),
	})
	if err != nil {
		return err
	}
	figures, err := metrics.New(metrics.Config{
		Node: state.node, Journal: state.journal, Presence: agents, Log: log.With("part", "metrics"),
		CutOff: func(seen, now time.Time) bool { return api.CutOff(agents.Period(), seen, now) },
	})
	if err != nil {
		return err
	}
	front, err := server.New(server.Config{
		Listener: listener, Names: names, Node: state.node, CA: authority, Agents: agents, API: operators, Lists: lists,
		Metrics:  api.Guarded(state.node.State, time.Now, fleet.RoleViewer, figures),
		Observe:  func(kind server.Kind, status int, took time.Duration) { figures.Observe(string(kind), status, took) },
		RootFile: filepath.Join(s.DataDir, server.RootFile), MaxInFlight: s.Fleet.MaxInFlight, Log: log.With("part", "server"),
	})
	if err != nil {
		return err
	}

	// The node outlives the server, so that requests under way at a stop can
	// still be answered; a node that fails ends the server.
	serving, stopServing := context.WithCancelCause(ctx)
	defer stopServing(nil)
	nodeCtx, stopNode := context.WithCancel(context.WithoutCancel(ctx))
	defer stopNode()
	nodeEnded := make(chan error, 1)
	go func() {
		err := runner.Run(nodeCtx,
			runner.Task{Name: "cluster node", Run: state.node.Run},
			runner.Task{Name: "journal", Run: state.journal.Run},
		)
		stopServing(err)
		nodeEnded <- err
	}()
	err = serve(serving, front, state.node, authority, s.DataDir, life, log)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // asked to stop in the middle of the start
	}
	stopNode()
	if err := errors.Join(<-nodeEnded, err); err != nil {
		return err
	}
	log.Info("coordinator stops")
	return nil
}

// serve makes what the first start has to make, and then answers until ctx is
// done.
func serve(ctx context.Context, front *server.Server, node *cluster.Node, authority *ca.CA, dataDir string, life service.Lifecycle, log *slog.Logger) error {
	if err := server.Bootstrap(ctx, node, authority, dataDir, log); err != nil {
		return err
	}
	life.Ready()
	return front.Run(ctx)
}
