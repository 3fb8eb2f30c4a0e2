package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
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
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/metrics"
	"github.com/certctl/certctl/coordinator/revocation"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/durable"
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
		SealKey: s.CA.SealKey.Reveal(), SealKeyFile: filepath.Join(s.DataDir, "seal.key"),
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
		Authority: authority, EnrollmentURL: url, Log: log.With("part", "api"),
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

// clusterState is everything of the coordinator that is on disk.
type clusterState struct {
	journal *history.Journal
	node    *cluster.Node
}

// openState opens, and at the first start creates, the data directory.
func openState(s *config.Settings, log *slog.Logger) (_ *clusterState, err error) {
	if err := durable.EnsurePrivateDir(s.DataDir); err != nil {
		return nil, err
	}
	id, err := nodeID(s)
	if err != nil {
		return nil, err
	}
	st := new(clusterState)
	defer func() {
		if err != nil {
			st.close(log)
		}
	}()
	// A journal without Raft state is what a first start leaves that was cut
	// off between the two; a journal with facts but no log is refused below.
	fresh, err := firstStart(s.DataDir)
	if err != nil {
		return nil, err
	}
	journal := history.Config{
		Path: filepath.Join(s.DataDir, "journal.db"), Log: log.With("part", "journal"),
		MaxAge: s.Journal.Retention, MaxBytes: s.Journal.MaxBytes,
	}
	if fresh {
		st.journal, err = history.Create(journal)
	}
	if !fresh || errors.Is(err, history.ErrExists) {
		st.journal, err = history.Open(journal)
	}
	if err != nil {
		return nil, err
	}
	node := cluster.Config{Dir: s.DataDir, NodeID: id, Journal: st.journal, Log: log.With("part", "cluster")}
	if fresh {
		log.Info("first start: a cluster of this node alone is made", "node_id", id)
		if err := cluster.Bootstrap(node, nil); err != nil {
			return nil, err
		}
	}
	st.node, err = cluster.Open(node)
	if err != nil {
		return nil, err
	}
	// The open log is the lock of this directory: what a killed process was
	// writing can be nobody else's.
	if _, err := durable.RemoveStaleTemp(s.DataDir); err != nil {
		return nil, err
	}
	return st, nil
}

func firstStart(dir string) (bool, error) {
	has, err := cluster.HasState(dir)
	return !has, err
}

// close releases what Run did not.
func (st *clusterState) close(log *slog.Logger) {
	if st.node != nil {
		if err := st.node.Close(); err != nil {
			log.Error("cluster state did not close", "err", err)
		}
	}
	if st.journal != nil {
		if err := st.journal.Close(); err != nil {
			log.Error("journal did not close", "err", err)
		}
	}
}

// nodeID is this node's name: the one configured, else the one that the first
// start made. The name in the data directory counts, since Raft knows it.
func nodeID(s *config.Settings) (string, error) {
	path := filepath.Join(s.DataDir, "node-id")
	text, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(text))
		if s.NodeID != "" && s.NodeID != id {
			return "", fmt.Errorf("node_id is %q, but this data directory belongs to the node %q (%s): leave node_id out, or use an empty data directory", s.NodeID, id, path)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("node id: %w", err)
	}
	id := s.NodeID
	if id == "" {
		id = "node-" + strings.ToLower(rand.Text()[:10])
	}
	if err := durable.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("node id: %w", err)
	}
	return id, nil
}
