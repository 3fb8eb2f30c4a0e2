// Package daemon is the whole coordinator put together: the data directory, the
// node of the cluster, what agents, operators and other nodes talk to, and the
// order in which all of it starts and stops. Tests that need a real coordinator in
// their own process use it as the program does.
package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certctl/certctl/coordinator/agentapi"
	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/coordinator/backup"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/join"
	"github.com/certctl/certctl/coordinator/metrics"
	"github.com/certctl/certctl/coordinator/pass"
	"github.com/certctl/certctl/coordinator/peer"
	"github.com/certctl/certctl/coordinator/revocation"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/coordinator/standing"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/logring"
	"github.com/certctl/certctl/shared/runner"
	"github.com/certctl/certctl/shared/settings"
)

// Config of a Daemon. All but Ready and Faults is required.
type Config struct {
	Settings *config.Settings
	// Names are those of the HTTPS server, from server.NamesOf.
	Names server.Names
	Log   *slog.Logger
	// Ready, when set, is called once: the coordinator answers from then on, with
	// or without a leader.
	Ready func()
	// Faults is for tests alone.
	Faults Faults
}

// Faults are the places at which tests make the world around a node fail.
type Faults struct {
	// Dial connects to other nodes instead of the network's own way.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Cluster changes the node's configuration before it is opened.
	Cluster func(*cluster.Config)
}

const (
	// leaderPatience is how long a start waits for a leader before it says so.
	leaderPatience = 5 * time.Second
	// acceptPause spaces attempts to accept connections that cannot be accepted.
	acceptPause = 50 * time.Millisecond
)

// Daemon is one coordinator. Its methods may be called from any goroutine.
type Daemon struct {
	config    Config
	log       *slog.Logger
	recent    *logring.Ring // the newest lines of log
	listener  net.Listener  // HTTPS
	url       string
	advertise string
	ca        *ca.CA
	directory *directory
	network   *peer.Network
	transport *cluster.Transport
	node      *cluster.Node
	backups   *backup.Keeper                    // nil if none are wanted
	recovered atomic.Pointer[cluster.Recovered] // nil unless it is to be settled
	front     *server.Server
}

// New opens the ports and the data directory and puts the parts together. At the
// first start it makes the data directory; a node that joins waits here until the
// cluster lets it in. The caller then calls Run, or Close if it will not. Errors
// say what to do about them.
func New(ctx context.Context, c Config) (_ *Daemon, err error) {
	d, peers, err := prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = peers.Close()
			d.Close()
		}
	}()
	if _, err = d.directory.open(ctx); err != nil {
		return nil, err
	}
	if err = d.openNode(peers); err != nil {
		return nil, err
	}
	return d, d.assemble()
}

// SetUpAs is the id of the node that a data directory belongs to, "" if it was not
// set up.
func SetUpAs(dataDir string) (nodeID string, err error) {
	exists, err := cluster.HasState(dataDir)
	if err != nil || !exists {
		return "", err
	}
	return nodeOf(dataDir)
}

// Joined is a node that a cluster has let in.
type Joined struct {
	NodeID    string
	ClusterID string // of its built-in CA; "" if the cluster does not say it
	Address   string // at which the other nodes reach it
	URL       string // of its HTTPS server
}

// Join makes the data directory of a node that the cluster of its join token lets
// in, and starts nothing.
func Join(ctx context.Context, c Config) (*Joined, error) {
	d, peers, err := prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	defer peers.Close()
	if _, err := d.directory.open(ctx); err != nil {
		return nil, err
	}
	return &Joined{NodeID: d.NodeID(), ClusterID: d.directory.clusterID, Address: d.advertise, URL: d.url}, nil
}

// prepare does what can be refused without touching any state: the ports are taken
// before there is anything to serve.
func prepare(ctx context.Context, c Config) (_ *Daemon, peers net.Listener, err error) {
	if c.Settings == nil || c.Log == nil || c.Names.All.IsZero() {
		return nil, nil, errors.New("daemon: one of Settings, Names and Log is missing")
	}
	if c.Ready == nil {
		c.Ready = func() {}
	}
	recent := new(logring.Ring)
	s, log := c.Settings, slog.New(recent.Tee(c.Log.Handler()))
	log.Info("coordinator starts", "version", buildinfo.Version(), "data_dir", s.DataDir)
	d := &Daemon{config: c, log: log, recent: recent}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.listener, err = server.Listen(ctx, s.Server.Listen, server.ListenSetting); err != nil {
		return nil, nil, err
	}
	if peers, err = server.Listen(ctx, s.Cluster.Listen, server.PeerListenSetting); err != nil {
		return nil, nil, err
	}
	d.advertise = advertised(s, c.Names, peers.Addr())
	if d.url = s.Server.URL; d.url == "" { // else its host is among the names
		d.url = c.Names.URL(d.listener.Addr())
	}
	d.ca, err = ca.New(ca.Config{
		SealKey: s.CA.SealKey.Reveal(), SealKeyFile: filepath.Join(s.DataDir, sealKeyFile),
		Name: s.CA.Name, LeafLifetime: s.CA.LeafLifetime, IdentityLifetime: s.CA.IdentityLifetime,
		RevocationURL: s.CA.RevocationURL(strings.TrimSuffix(d.url, "/") + revocation.Prefix),
	})
	if err != nil {
		_ = peers.Close()
		return nil, nil, err
	}
	d.directory = &directory{settings: s, log: log, ca: d.ca, advertise: d.advertise, url: d.url}
	return d, peers, nil
}

// openNode connects the node to the others and opens its state.
func (d *Daemon) openNode(peers net.Listener) (err error) {
	s, dir := d.config.Settings, d.directory
	d.network, err = peer.New(peer.NetworkConfig{
		Listener: peers, Advertise: d.advertise, Identity: dir.identity, Dial: d.config.Faults.Dial, Log: d.log.With("part", "peers"),
	})
	if err != nil {
		return err
	}
	d.transport = cluster.NewTransport(d.network.StreamLayer(), d.log.With("part", "cluster"))
	node := dir.raftConfig()
	node.Transport, node.Peers = d.transport, d.network
	node.Record, node.ElectionTimeout, node.Stabilization = d.record, s.Cluster.ElectionTimeout, s.Cluster.Stabilization
	node.DeadServerAfter, node.MinQuorum = s.Cluster.DeadServerAfter, uint(s.Cluster.MinQuorum) // 1 to 7
	if d.config.Faults.Cluster != nil {
		d.config.Faults.Cluster(&node)
	}
	if d.node, err = cluster.Open(node); err != nil {
		return err
	}
	// The open log is the lock of this directory: what a killed process was
	// writing can be nobody else's.
	if _, err := durable.RemoveStaleTemp(s.DataDir); err != nil {
		return err
	}
	if err := d.loadRecovery(); err != nil {
		return err
	}
	d.network.SetMembers(d.node)
	d.network.HandleCalls(d.node.HandleCall)
	d.node.OnMembership(d.followMembership)
	d.network.OnClosed(d.transport.CloseStreams)
	d.node.Lead("the cluster's own CA", d.leadClusterCA)
	return nil
}

// assemble makes what answers requests.
func (d *Daemon) assemble() error {
	s, log, node, journal := d.config.Settings, d.log, d.node, d.directory.journal
	agents, err := agentapi.New(agentapi.Config{
		Node: node, CA: d.ca, Log: log.With("part", "agents"), Leader: d.leader, MaxPassed: 2 * s.Fleet.MaxInFlight,
		SyncInterval: s.Fleet.SyncInterval, SyncTargetRate: s.Fleet.SyncTargetRate, Reserved: d.config.Names.Own,
	})
	if err != nil {
		return err
	}
	agents.Lead(node)
	lists, err := revocation.New(revocation.Config{Node: node, CA: d.ca, Log: log.With("part", "revocation lists")})
	if err != nil {
		return err
	}
	lists.Lead(node)
	var backups func() backup.Status
	if s.Backups.Interval > 0 {
		d.backups, err = backup.New(backup.Config{
			Node: node, NodeID: d.NodeID(), Dir: s.BackupDirectory(), Interval: s.Backups.Interval, Keep: s.Backups.Keep, Log: log.With("part", "backups"),
		})
		if err != nil {
			return err
		}
		backups = d.backups.Status
	}
	figures, err := metrics.New(metrics.Config{
		Node: node, Journal: journal, Presence: agents, Log: log.With("part", "metrics"),
		CutOff: func(seen, now time.Time) bool { return api.CutOff(agents.Period(), seen, now) },
		Peers:  d.network.Stats, Certificate: d.certificateEnd, Agents: agents.Counts, DataDir: s.DataDir, Backups: backups,
	})
	if err != nil {
		return err
	}
	stands, err := standing.New(standing.Config{
		NodeID: d.NodeID(), DataDir: s.DataDir, Node: node, Journal: journal, Peers: d.network, Log: log.With("part", "standing"),
		Settings: func() ([]byte, error) { return settings.Effective(s) }, Metrics: figures.Text, Recent: d.recent,
		CertificateNotAfter: d.certificateEnd, Backups: d.newestBackup,
	})
	if err != nil {
		return err
	}
	d.network.Handle(standing.Prefix, stands.Handler())
	operators, err := api.New(api.Config{
		Node: node, Journal: journal, Presence: agents, Pause: agents.Period, Cluster: stands,
		Authority: d.ca, EnrollmentURL: d.url, Listening: d.listener.Addr(), Log: log.With("part", "api"),
	})
	if err != nil {
		return err
	}
	admissions, err := join.NewHandler(join.HandlerConfig{Node: node, SealKey: d.sealKey, Log: log.With("part", "join")})
	if err != nil {
		return err
	}
	way, err := pass.New(pass.Config{Leader: d.leader, Leads: node.IsLeader, Log: log.With("part", "join")})
	if err != nil {
		return err
	}
	d.front, err = server.New(server.Config{
		Listener: d.listener, Names: d.config.Names, Node: node, CA: d.ca, Agents: agents, API: operators, Lists: lists,
		Joins:    way.Handler(join.MaxRequest, admissions),
		Metrics:  api.Guarded(node.State, time.Now, fleet.RoleViewer, figures),
		Observe:  func(kind server.Kind, status int, took time.Duration) { figures.Observe(string(kind), status, took) },
		RootFile: filepath.Join(s.DataDir, server.RootFile), MaxInFlight: s.Fleet.MaxInFlight, Log: log.With("part", "server"),
	})
	if err != nil {
		return err
	}
	// What other nodes pass on takes the places of the server too: the leader's
	// limits are the cluster's.
	d.receive("/agent/", d.front)
	d.receive(join.Path, d.front)
	return nil
}

// leader is the way to the node that leads, if that is another one.
func (d *Daemon) leader() (way http.RoundTripper, url string, ok bool) {
	id, address := d.node.Leader()
	if id == "" || address == "" || id == d.directory.nodeID {
		return nil, "", false
	}
	return d.network.Transport(id, address), "https://" + id, true
}

// receive answers the requests that other nodes pass on to this one.
func (d *Daemon) receive(pattern string, handler http.Handler) {
	from := func(ctx context.Context) (string, bool) {
		id := peer.From(ctx)
		return id, id != ""
	}
	d.network.Handle(pattern, pass.Receive(from, d.node.IsLeader, handler))
}

// certificateEnd is the end of the certificate that other nodes are shown.
func (d *Daemon) certificateEnd() time.Time { return d.directory.identity.Leaf().NotAfter }

// Address is that of the HTTPS server, and URL the one that clients are told.
func (d *Daemon) Address() net.Addr { return d.listener.Addr() }

// URL is the one by which clients are told to reach this node.
func (d *Daemon) URL() string { return d.url }

// Node is the node of the cluster.
func (d *Daemon) Node() *cluster.Node { return d.node }

// Peers are the numbers of the connections with the other nodes.
func (d *Daemon) Peers() peer.Stats { return d.network.Stats() }

// PeerAddress is the address that other nodes are told.
func (d *Daemon) PeerAddress() string { return d.advertise }

// NodeID is the node's name in the cluster.
func (d *Daemon) NodeID() string { return d.directory.nodeID }

// ClusterID names the cluster that the node belongs to, by its built-in CA, as
// snapshots do. It is "" before there is that CA.
func (d *Daemon) ClusterID() string { return d.ca.ClusterID() }

// Run is the coordinator's life. It returns when ctx is done and everything has
// ended, with nil, or when a part has failed.
func (d *Daemon) Run(ctx context.Context) error {
	defer d.Close()
	// What answers ends first, so that requests under way at a stop can still be
	// answered; then the node, which hands over the leadership; then the
	// connections to the others, over which it does so. A part that fails ends
	// those above it.
	serving, stopServing := context.WithCancelCause(ctx)
	defer stopServing(nil)
	nodeCtx, stopNode := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopNode(nil)
	peersCtx, stopPeers := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPeers()

	peersEnded, nodeEnded := make(chan error, 1), make(chan error, 1)
	go func() {
		err := runner.Run(peersCtx,
			runner.Task{Name: "connections to other nodes", Run: d.network.Run},
			runner.Task{Name: "node identity", Run: d.directory.identity.Run},
		)
		stopNode(err)
		peersEnded <- err
	}()
	go func() {
		err := runner.Run(nodeCtx,
			runner.Task{Name: "cluster node", Run: d.node.Run},
			runner.Task{Name: "journal", Run: d.directory.journal.Run},
			runner.Task{Name: "membership", Run: d.keepMembership},
			runner.Task{Name: "backups", Run: d.keepBackups},
		)
		stopServing(err)
		nodeEnded <- err
	}()
	err := d.serve(serving)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // asked to stop in the middle of the start
	}
	stopNode(nil)
	nodeErr := <-nodeEnded
	stopPeers()
	if err := errors.Join(<-peersEnded, nodeErr, err); err != nil {
		return err
	}
	d.log.Info("coordinator stops")
	return nil
}

// keepBackups writes snapshots of the state to files, if that is wanted.
func (d *Daemon) keepBackups(ctx context.Context) error {
	if d.backups == nil {
		return nil
	}
	return d.backups.Run(ctx)
}

// newestBackup is the newest snapshot that the node wrote by itself, and why the
// last attempt to write one failed.
func (d *Daemon) newestBackup() ([]standing.SnapshotFile, error) {
	if d.backups == nil {
		return nil, nil
	}
	status := d.backups.Status()
	if status.Newest == "" {
		return nil, status.Err
	}
	return []standing.SnapshotFile{{Name: filepath.Base(status.Newest), Index: status.Index, Size: status.Size, At: status.Time}}, status.Err
}

// serve answers until ctx is done. A node that knows its CA answers what it can
// from the start, leader or not: that is when people look. One that has yet to
// hear of it, because it founds or joins a cluster, turns everybody away until it
// has what it needs.
func (d *Daemon) serve(ctx context.Context) error {
	stored, known := d.node.State().View().CA()
	if known {
		if err := d.ca.Unseal(stored); err != nil {
			return err
		}
		return runner.Run(ctx,
			runner.Task{Name: "server", Run: func(ctx context.Context) error {
				d.config.Ready()
				return d.front.Run(ctx)
			}},
			runner.Task{Name: "start", Run: d.bootstrap},
		)
	}
	let := d.turnAway(ctx)
	err := d.bootstrap(ctx)
	let()
	if err != nil {
		return err
	}
	d.config.Ready()
	return d.front.Run(ctx)
}

// bootstrap makes what the first start has to make, as soon as there is a leader,
// and sees that the node knows its CA also when it starts again without one.
func (d *Daemon) bootstrap(ctx context.Context) error {
	waiting := time.AfterFunc(leaderPatience, func() {
		d.log.Warn("this node waits for a leader, and stores nothing until there is one; see that the other nodes run and can be reached",
			"members", len(first(d.node.Members())))
	})
	defer waiting.Stop()
	if err := server.Bootstrap(ctx, d.node, d.ca, d.config.Settings.DataDir, d.log); err != nil {
		return err
	}
	if err := d.node.EnsureSnapshot(ctx); err != nil && ctx.Err() == nil {
		d.log.Warn("no snapshot of the first state was taken; until there is one, a start without a leader answers nothing", "err", err)
	}
	return nil
}

func first[A, B any](a A, _ B) A { return a }

// turnAway closes connections as soon as they are made, until the function that it
// returns is called: whoever comes goes on to the next node, and does not hang.
func (d *Daemon) turnAway(ctx context.Context) (stop func()) {
	listener, ok := d.listener.(*net.TCPListener)
	if !ok {
		return func() {}
	}
	turning, end := context.WithCancel(ctx)
	var task sync.WaitGroup
	task.Go(func() {
		for turning.Err() == nil {
			conn, err := listener.Accept()
			if err == nil {
				_ = conn.Close()
			} else if backoff.Wait(turning, acceptPause) != nil {
				return
			}
		}
	})
	return func() {
		end()
		_ = listener.SetDeadline(time.Now()) // ends Accept
		task.Wait()
		_ = listener.SetDeadline(time.Time{})
	}
}

// Close releases what Run did not.
func (d *Daemon) Close() {
	if d.listener != nil {
		_ = d.listener.Close() // closed by the server, if it ran
	}
	if d.node != nil {
		if err := d.node.Close(); err != nil {
			d.log.Error("the cluster's state did not close", "err", err)
		}
	}
	if d.transport != nil {
		// Or it would complain of the streams that end below it.
		if err := d.transport.Close(); err != nil {
			d.log.Error("the transport did not close", "err", err)
		}
	}
	if d.network != nil {
		d.network.Close()
	}
	if d.directory != nil && d.directory.journal != nil {
		if err := d.directory.journal.Close(); err != nil {
			d.log.Error("the journal did not close", "err", err)
		}
	}
}
