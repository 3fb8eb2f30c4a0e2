package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
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
//
// Status says what is missing so, Chunk gives a part of what is there to another
// node, and Backfill takes one of another node, in one durable step; another
// goroutine calls it than Append. *history.Journal is one.
type Journal interface {
	journalStore
	Status() (history.Status, error)
	Chunk(asked history.Gap, size int) (*history.Chunk, error)
	Backfill(chunk *history.Chunk) error
}

// journalStore is what the entries of the log go to.
type journalStore interface {
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
	// Record is what this node says about itself, without its id, address and
	// level, which are known here. Nil announces the address alone.
	Record func() (fleet.ClusterNode, error)

	// ElectionTimeout is about how long a node goes without a word from a leader
	// before it stands for election; the other intervals of Raft follow from
	// it. 0 is 1 s, or 100 ms for a node without a transport, which waits for
	// nobody.
	ElectionTimeout time.Duration
	// SnapshotEntries and SnapshotInterval say when the log is cut: every so
	// often, if it has grown by so many entries. 0 is 8192 and 2 min.
	SnapshotEntries  uint64
	SnapshotInterval time.Duration
	// TrailingEntries stay in the log behind a snapshot, for followers that are
	// a little behind. 0 is 10240.
	TrailingEntries uint64
	// Stabilization is how long a new member must be healthy before it is given
	// the vote. 0 is 10 s.
	Stabilization time.Duration
	// DeadServerAfter is how long a member may not answer before the leader
	// removes it, as long as MinQuorum voters remain. 0 is never; MinQuorum 0 is 3.
	DeadServerAfter time.Duration
	MinQuorum       uint
	// MayForget says why a member that is dead should not be removed all the same;
	// nil says nothing. It is asked on the leader.
	MayForget func(ctx context.Context, id string) error
	// BackfillPace is how often a node whose journal has a gap asks the other members
	// for what is missing. 0 is 15 s.
	BackfillPace time.Duration
	// MaxWaiting bounds the proposals that wait for their turn. 0 is 4096.
	MaxWaiting int
	// Hook is called around every durable step of the log. Nil in production.
	Hook durable.Hook

	// commitTimeout is how long Raft waits for an entry with which to tell what is
	// committed, before it tells it by itself; see nudger. 0 is 50 ms, or less with
	// a short ElectionTimeout.
	commitTimeout time.Duration
	// floorPatience is how long a gap in the journal waits for members that do not
	// answer, where retention may have dropped facts on those that do. 0 is an hour.
	floorPatience time.Duration
}

func (c Config) withDefaults() Config {
	if c.ElectionTimeout == 0 {
		c.ElectionTimeout = time.Second
		if c.Transport == nil {
			c.ElectionTimeout = 100 * time.Millisecond
		}
	}
	if c.commitTimeout == 0 {
		c.commitTimeout = min(50*time.Millisecond, c.ElectionTimeout/4)
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
	if c.Stabilization == 0 {
		c.Stabilization = 10 * time.Second
	}
	if c.MinQuorum == 0 {
		c.MinQuorum = 3
	}
	if c.BackfillPace == 0 {
		c.BackfillPace = defaultBackfillPace
	}
	if c.floorPatience == 0 {
		c.floorPatience = defaultFloorPatience
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
	require(c.Stabilization > 0, fmt.Sprintf("Stabilization %v is not positive", c.Stabilization))
	require(c.DeadServerAfter == 0 || c.DeadServerAfter >= 10*c.ElectionTimeout,
		fmt.Sprintf("DeadServerAfter %v is below ten election timeouts, which are %v", c.DeadServerAfter, 10*c.ElectionTimeout))
	require(c.SnapshotInterval >= 5*time.Millisecond, fmt.Sprintf("SnapshotInterval %v is below 5 ms", c.SnapshotInterval))
	require(c.BackfillPace > 0, fmt.Sprintf("BackfillPace %v is not positive", c.BackfillPace))
	require(c.MaxWaiting > 0, fmt.Sprintf("MaxWaiting %d is not positive", c.MaxWaiting))
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("cluster configuration: %w", err)
	}
	return nil
}

func (c Config) raftConfig() *raft.Config {
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(c.NodeID)
	// Raft looks for a leader's word every one to two heartbeat timeouts, and gives
	// an election as long. With a half of it a node stands for election after one
	// half to one and a half of what was configured, and two that got in each
	// other's way still have a leader within two and a half.
	config.HeartbeatTimeout = c.ElectionTimeout / 2
	config.ElectionTimeout = c.ElectionTimeout / 2
	// A leader that hears of no majority for as long steps down. No read trusts
	// this lease, so that it need not be shorter.
	config.LeaderLeaseTimeout = config.HeartbeatTimeout
	config.CommitTimeout = c.commitTimeout
	config.SnapshotInterval = c.SnapshotInterval
	config.SnapshotThreshold = c.SnapshotEntries
	config.TrailingLogs = c.TrailingEntries
	// What one message may hold is bounded by this alone: 16 MiB of the largest
	// entries, which a follower has to take and sync within the transport's
	// timeout.
	config.MaxAppendEntries = 32
	config.ShutdownOnRemove = false // see DESIGN.md: the node runs on
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
