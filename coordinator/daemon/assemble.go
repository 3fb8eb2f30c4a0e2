package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/agentapi"
	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/coordinator/backup"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/daybook"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/coordinator/issuers"
	"github.com/certctl/certctl/coordinator/join"
	"github.com/certctl/certctl/coordinator/metrics"
	"github.com/certctl/certctl/coordinator/pass"
	"github.com/certctl/certctl/coordinator/peer"
	"github.com/certctl/certctl/coordinator/revocation"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/coordinator/standing"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/logring"
	"github.com/certctl/certctl/shared/settings"
)

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
	d := &Daemon{config: c, log: log, recent: recent, issuers: c.Issuers}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.issuers == nil {
		if d.issuers, err = issuers.New(s, issuers.Options{}); err != nil {
			return nil, nil, err
		}
	}
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
	node.DeadServerAfter, node.MinQuorum = s.Cluster.DeadServerAfter, uint(s.Cluster.MinQuorum)        // 1 to 7
	node.MayForget = func(ctx context.Context, id string) error { return d.stands.MayForget(ctx, id) } // the node runs after assemble
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
	d.node.Lead("the chain of the audit trail", d.leadAuditChain)
	d.node.Lead("the cluster's own CA", d.leadClusterCA)
	return nil
}

// What the leader alone knows may be an authority's to say: that takes its time, of
// which clients of the API have half a minute.
const (
	apiPatience = 25 * time.Second
	apiPassed   = 16
)

// assemble makes what answers requests.
func (d *Daemon) assemble() error {
	s, log, node, journal := d.config.Settings, d.log, d.node, d.directory.journal
	if err := d.openOrders(); err != nil {
		return err
	}
	agents, err := agentapi.New(agentapi.Config{
		Node: node, CA: d.ca, Log: log.With("part", "agents"), Leader: d.leader, MaxPassed: 2 * s.Fleet.MaxInFlight,
		SyncInterval: s.Fleet.SyncInterval, SyncTargetRate: s.Fleet.SyncTargetRate, Reserved: d.config.Names.Own,
		Known: func(name string) bool { _, known := d.engine.Known(name); return known }, Placed: d.engine.Wake,
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
	days, err := daybook.New(daybook.Config{Node: node, Journal: journal, Pause: agents.Period, Presence: agents, Log: log.With("part", "days")})
	if err != nil {
		return err
	}
	days.Lead(node)
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
	if err := d.openDatabase(); err != nil {
		return err
	}
	figures, err := metrics.New(metrics.Config{
		Node: node, Journal: journal, Presence: agents, Log: log.With("part", "metrics"),
		CutOff: func(seen, now time.Time) bool { return health.CutOff(agents.Period(), seen, now) },
		Orders: d.engine,
		Peers:  d.network.Stats, Certificate: d.certificateEnd, Agents: agents.Counts, DataDir: s.DataDir, Backups: backups,
		Database: d.databaseStatus(),
	})
	if err != nil {
		return err
	}
	d.stands, err = standing.New(standing.Config{
		NodeID: d.NodeID(), DataDir: s.DataDir, Node: node, Journal: journal, Peers: d.network, Log: log.With("part", "standing"),
		Settings: func() ([]byte, error) { return settings.Effective(s) }, Metrics: figures.Text, Recent: d.recent,
		CertificateNotAfter: d.certificateEnd, Backups: d.newestBackup, Database: d.databaseStatus(),
	})
	if err != nil {
		return err
	}
	d.network.Handle(standing.Prefix, d.stands.Handler())
	toLeader, err := pass.New(pass.Config{Leader: d.leader, Leads: node.IsLeader, MaxInFlight: apiPassed, Patience: apiPatience, Log: log.With("part", "api")})
	if err != nil {
		return err
	}
	d.gate = api.NewGate(s.API.Rate, s.API.Burst, figures.RefuseAPI)
	operators, err := api.New(api.Config{
		Gate: d.gate,
		Pass: func(here http.Handler) http.Handler { return toLeader.Handler(api.MaxPassed, here) },
		Node: node, Journal: journal, Presence: agents, Pause: agents.Period, Cluster: d.stands, Departing: departing{d}, Issuers: d.accounts, Orders: d.engine,
		Database:  d.historyDatabase(),
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
		Metrics:  d.gate.Guard(node.State, time.Now, fleet.RoleViewer, figures),
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
	d.receive("/api/", d.front)
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
