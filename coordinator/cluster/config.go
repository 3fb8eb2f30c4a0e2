package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/durable"
)

// Journal keeps the facts that applied entries made.
//
// Append stores facts, in one durable step, and then counts as having all facts
// up to the log index through; it ignores what is at or below the index that it
// had before, because the log is replayed after a restart. It is called by one
// goroutine at a time. Through is the newest index that Append stored. Skip
// records that the facts of the indexes after Through and up to index were never
// seen here, because the node got a snapshot instead of the entries.
type Journal interface {
	Append(through uint64, facts []fleet.Fact) error
	Through() uint64
	Skip(index uint64) error
}

// Config is what a node needs. Dir, NodeID, Journal and Log are required.
type Config struct {
	// Dir holds the log and the snapshots, in a folder "raft". One process uses
	// it at a time.
	Dir string
	// NodeID is this node's name in the cluster, for good. It is no address.
	NodeID  string
	Journal Journal
	Log     *slog.Logger

	// Transport connects the nodes. Nil is for a cluster of one: nothing
	// listens. The node closes it if it is a raft.WithClose.
	Transport raft.Transport
	// Peers calls the other nodes, and what they call is given to HandleCall.
	// Nil is for a node that is alone, or whose leader is somebody else's
	// business: it refuses what only a leader can do.
	Peers Caller
	// Advertise is the address at which the others reach this node; "" is the
	// transport's. See Announce.
	Advertise string

	// ElectionTimeout is how long a node goes without a word from a leader
	// before it stands for election; the other intervals of Raft follow from
	// it. 0 is 1 s, or 100 ms for a node alone, which waits for nobody.
	ElectionTimeout time.Duration
	// SnapshotEntries and SnapshotInterval say when the log is cut: every so
	// often, if it has grown by so many entries. 0 is 8192 and 2 min.
	SnapshotEntries  uint64
	SnapshotInterval time.Duration
	// TrailingEntries stay in the log behind a snapshot, for followers that are
	// a little behind. 0 is 10240.
	TrailingEntries uint64
	// MaxWaiting bounds the proposals that wait for their turn. 0 is 4096.
	MaxWaiting int
	// Hook is called around every durable step of the log. Nil in production.
	Hook durable.Hook
}

func (c Config) withDefaults() Config {
	if c.ElectionTimeout == 0 {
		c.ElectionTimeout = time.Second
		if c.Transport == nil {
			c.ElectionTimeout = 100 * time.Millisecond
		}
	}
	if c.SnapshotEntries == 0 {
		c.SnapshotEntries = 8192
	}
	if c.SnapshotInterval == 0 {
		c.SnapshotInterval = 2 * time.Minute
	}
	if c.TrailingEntries == 0 {
		c.TrailingEntries = 10_240
	}
	if c.MaxWaiting == 0 {
		c.MaxWaiting = 4096
	}
	return c
}

func (c Config) validate() error {
	var problems []error
	require := func(ok bool, problem string) {
		if !ok {
			problems = append(problems, errors.New(problem))
		}
	}
	require(filepath.IsAbs(c.Dir), fmt.Sprintf("Dir %q is not an absolute path", c.Dir))
	require(c.NodeID != "", "NodeID is missing")
	require(c.Journal != nil, "Journal is missing")
	require(c.Log != nil, "Log is missing")
	require(c.ElectionTimeout >= 20*time.Millisecond, fmt.Sprintf("ElectionTimeout %v is below 20 ms", c.ElectionTimeout))
	require(c.SnapshotInterval >= 5*time.Millisecond, fmt.Sprintf("SnapshotInterval %v is below 5 ms", c.SnapshotInterval))
	require(c.MaxWaiting > 0, fmt.Sprintf("MaxWaiting %d is not positive", c.MaxWaiting))
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("cluster configuration: %w", err)
	}
	return nil
}

func (c Config) raftConfig() *raft.Config {
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(c.NodeID)
	config.HeartbeatTimeout = c.ElectionTimeout
	config.ElectionTimeout = c.ElectionTimeout
	config.LeaderLeaseTimeout = c.ElectionTimeout / 2
	config.CommitTimeout = min(50*time.Millisecond, c.ElectionTimeout/4)
	config.SnapshotInterval = c.SnapshotInterval
	config.SnapshotThreshold = c.SnapshotEntries
	config.TrailingLogs = c.TrailingEntries
	config.MaxAppendEntries = 512
	config.NoSnapshotRestoreOnStart = false
	config.NoLegacyTelemetry = true
	config.Logger = newRaftLogger(c.Log)
	return config
}

func (c Config) raftDir() string { return filepath.Join(c.Dir, "raft") }
func (c Config) logFile() string { return filepath.Join(c.raftDir(), "log.db") }

// address is this node's in the configuration. Nobody connects to one without a
// transport.
func (c Config) address() raft.ServerAddress {
	if c.Advertise != "" {
		return raft.ServerAddress(c.Advertise)
	}
	if c.Transport != nil {
		return c.Transport.LocalAddr()
	}
	return raft.ServerAddress(c.NodeID)
}
