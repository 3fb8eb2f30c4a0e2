// Package daemon is the whole coordinator put together: the data directory, the
// node of the cluster, what agents, operators and other nodes talk to, and the
// order in which all of it starts and stops. Tests that need a real coordinator in
// their own process use it as the program does.
package daemon

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/coordinator/backup"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/coordinator/issuers"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/coordinator/peer"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/coordinator/standing"
	"github.com/certctl/certctl/shared/logring"
)

// Config of a Daemon. All but Issuers, Ready and Faults is required.
type Config struct {
	Settings *config.Settings
	// Names are those of the HTTPS server, from server.NamesOf.
	Names server.Names
	Log   *slog.Logger
	// Issuers are those of Settings; nil has them made. They are closed with the Daemon.
	Issuers *issuers.Registry
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
	stands    *standing.Service
	issuers   *issuers.Registry
	accounts  *issuers.Service // of issuers
	engine    *orders.Engine
	backups   *backup.Keeper                    // nil if none are wanted
	database  *postgres.Exporter                // nil if none is configured
	recovered atomic.Pointer[cluster.Recovered] // nil unless it is to be settled
	gate      *api.Gate                         // of the API
	front     *server.Server

	end  atomic.Pointer[context.CancelCauseFunc] // ends Run; nil before it
	left atomic.Pointer[LeftError]               // set when the node has left the cluster
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
// set up. The error is a *LeftError if that node has left its cluster.
func SetUpAs(dataDir string) (nodeID string, err error) {
	if err := checkLeft(dataDir); err != nil {
		return "", err
	}
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
