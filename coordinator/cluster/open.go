package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history/boltfile"
	"github.com/certctl/certctl/shared/durable"
)

const (
	keptSnapshots = 2
	logCache      = 512
	lockPatience  = time.Second
)

// Bootstrap makes the first state of a cluster in c.Dir: the configuration with
// its voters, each of which is bootstrapped with the same list. An empty list
// is a cluster of this node alone. Once it has returned, the state is there for
// good; before, it is not there at all. ErrStateExists says that it was there
// already, in which case nothing is changed.
func Bootstrap(c Config, voters []raft.Server) error {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return err
	}
	if len(voters) == 0 {
		voters = []raft.Server{{ID: raft.ServerID(c.NodeID), Address: c.address()}}
	}
	return c.make("bootstrap", func(fresh Config) error { return fresh.bootstrap(voters) })
}

// make makes the state of a node, with fill, which is given where.
func (c Config) make(what string, fill func(fresh Config) error) error {
	if exists, err := HasState(c.Dir); err != nil || exists {
		return errors.Join(err, existsError(exists, what, c.raftDir()))
	}
	// Made under another name and renamed when it is complete, so that a crash
	// leaves no half of it behind.
	fresh := c
	fresh.Dir = filepath.Join(c.Dir, "raft.new")
	if err := os.RemoveAll(fresh.Dir); err != nil {
		return fmt.Errorf("%s: clear away an earlier attempt: %w", what, err)
	}
	if err := fill(fresh); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", what, err), os.RemoveAll(fresh.Dir))
	}
	if err := durable.Rename(fresh.raftDir(), c.raftDir()); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := os.Remove(fresh.Dir); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func existsError(exists bool, what, dir string) error {
	if !exists {
		return nil
	}
	return fmt.Errorf("%s %s: %w", what, dir, ErrStateExists)
}

// HasState reports whether a directory was bootstrapped.
func HasState(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, "raft"))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, fmt.Errorf("look for cluster state: %w", err)
	}
}

func (c Config) bootstrap(voters []raft.Server) (err error) {
	if err := os.MkdirAll(c.raftDir(), 0o700); err != nil {
		return err
	}
	store, snapshots, err := c.openStores()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	transport := c.Transport
	if transport == nil {
		_, transport = raft.NewInmemTransport(c.address())
	}
	if err := raft.BootstrapCluster(c.raftConfig(), store, store, snapshots, transport, raft.Configuration{Servers: voters}); err != nil {
		return err
	}
	return durable.SyncDir(c.raftDir())
}

// openStores opens the log and the folder of snapshots, and proves that the log
// can be read: at its ends, and wherever a start will read it.
func (c Config) openStores() (*disk, raft.SnapshotStore, error) {
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(c.raftDir(), keptSnapshots, newRaftLogger(c.Log))
	if err != nil {
		return nil, nil, fmt.Errorf("open the snapshots in %s: %w", c.raftDir(), err)
	}
	if err := boltfile.Check(c.logFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s: %w: %w", c.logFile(), ErrLogDamaged, err)
	}
	store := &disk{path: c.logFile(), hook: c.Hook, log: c.Log}
	err = boltfile.Guard(func() error {
		file, err := raftboltdb.New(raftboltdb.Options{
			Path:                    c.logFile(),
			BoltOptions:             &bbolt.Options{Timeout: lockPatience},
			MsgpackUseNewTimeFormat: true,
		})
		store.files = file
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, nil, fmt.Errorf("%s: %w", c.logFile(), ErrInUse)
	case errors.Is(err, boltfile.ErrDamaged):
		return nil, nil, fmt.Errorf("%s: %w: %w", c.logFile(), ErrLogDamaged, err)
	case err != nil:
		return nil, nil, fmt.Errorf("open the Raft log: %w", err)
	}
	if err := boltfile.Guard(func() error { return readLog(store, snapshots) }); err != nil {
		if !errors.Is(err, ErrLogDamaged) {
			err = fmt.Errorf("%s: %w: %w", c.logFile(), ErrLogDamaged, err)
		}
		return nil, nil, errors.Join(err, store.Close())
	}
	return store, snapshots, nil
}

// readLog reads the last entry of the log, and all that are newer than the newest
// snapshot: Raft reads these when it starts, and ends the program where it cannot.
// One that a snapshot covers is of no use but to members that are behind, which are
// sent the snapshot instead.
func readLog(store raft.LogStore, snapshots raft.SnapshotStore) error {
	first, err := store.FirstIndex()
	if err != nil {
		return err
	}
	last, err := store.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	list, err := snapshots.List()
	if err != nil {
		return err
	}
	from := first
	if len(list) > 0 { // the newest is the first
		from = min(max(first, list[0].Index+1), last)
	}
	for index := from; index <= last; index++ {
		var entry raft.Log
		if err := store.GetLog(index, &entry); err != nil {
			return err
		}
	}
	return nil
}

// Open opens the state of a node that was bootstrapped, restores its newest
// snapshot and lets it take part in the cluster. The caller then calls Run, or
// Close if it will not.
//
// Errors wrap ErrNoState, ErrLogMissing, ErrInUse, ErrLogDamaged,
// ErrJournalAhead or one of the fleet's snapshot errors where these are the
// reason. The files are as they were.
func Open(c Config) (_ *Node, err error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	if _, pending, err := PendingRecovery(c.Dir); err != nil {
		return nil, err
	} else if pending {
		return nil, fmt.Errorf("open %s: %w", c.raftDir(), ErrRecovering)
	}
	if exists, err := HasState(c.Dir); err != nil {
		return nil, err
	} else if !exists {
		return nil, fmt.Errorf("open %s: %w", c.raftDir(), ErrNoState)
	}
	// Bootstrap makes the log, and nobody ends it: a new one would begin without
	// the entries after the last snapshot, and without this node's votes.
	if _, err := os.Stat(c.logFile()); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", c.logFile(), ErrLogMissing)
	}
	state, err := fleet.New()
	if err != nil {
		return nil, err
	}
	store, snapshots, err := c.openStores()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, store.Close())
		}
	}()
	if err := checkJournal(c.Journal, store, snapshots); err != nil {
		return nil, err
	}
	n := newNode(c, state, store)
	var opened atomic.Pointer[raft.Raft] // Raft begins before it is returned
	store.ended, store.leads = n.stopping, func() bool {
		r := opened.Load()
		return r != nil && r.State() == raft.Leader
	}
	store.surrender = n.surrender
	n.snapshots = snapshots
	if err := n.recallMembers(store); err != nil {
		return nil, err
	}
	cached, err := raft.NewLogCache(logCache, &logStore{LogStore: store, stored: n.stored, members: n.members})
	if err != nil {
		return nil, fmt.Errorf("open the Raft log: %w", err)
	}
	n.logs = cached
	if transport, ok := n.transport.(*Transport); ok {
		moved := n.members.movedTo
		stored := n.nudger.noteStored
		transport.moved.Store(&moved)
		transport.campaigning(n.life, c.raftConfig().ElectionTimeout)
		transport.stored.Store(&stored)
	}
	// Raft falls back to an older snapshot when the newest cannot be read, and
	// panics where the log does not reach back to it.
	settings := c.raftConfig()
	n.electionTimeouts(settings)
	n.members.watch(func([]raft.Server) { n.noteAdmission(opened.Load()) })
	err = boltfile.Guard(func() (err error) {
		n.raft, err = raft.NewRaft(settings, n.machine, cached, store, snapshotStore{snapshots}, n.transport)
		return err
	})
	if err != nil && (errors.Is(err, boltfile.ErrDamaged) || newestDamaged(snapshots)) {
		err = fmt.Errorf("%s: %w: %w", c.raftDir(), fleet.ErrSnapshotDamaged, err)
	}
	if err != nil {
		// Raft only logs why a snapshot was not restored; the machine knows it.
		return nil, errors.Join(fmt.Errorf("open the cluster state: %w", err), n.machine.err(), closeTransport(n.transport))
	}
	opened.Store(n.raft)
	n.noteAdmission(n.raft) // its first messages may have been faster
	n.machine.opened.Store(true)
	n.raft.RegisterObserver(raft.NewObserver(nil, false, n.leaders.observe))
	if transport, ok := n.transport.(*Transport); ok {
		configured := func(id raft.ServerID) (raft.ServerAddress, bool) {
			server := serverOf(n.raft.GetConfiguration().Configuration().Servers, string(id))
			if server == nil {
				return "", false
			}
			return server.Address, true
		}
		transport.configured.Store(&configured)
		if n.decidesAlone() {
			transport.urge(c.NodeID, c.address())
		}
	}
	return n, nil
}

// decidesAlone reports whether this node has the only vote.
func (n *Node) decidesAlone() bool {
	_, servers := n.configuration()
	voters := votersOf(servers)
	return len(voters) == 1 && string(voters[0].ID) == n.config.NodeID && !n.behindAdmission()
}

// recallMembers reads who belonged to the cluster when this node stopped.
func (n *Node) recallMembers(logs raft.LogStore) error {
	list, err := n.snapshots.List()
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	behind := uint64(0)
	if len(list) > 0 {
		behind = list[0].Index
		n.members.store(list[0].ConfigurationIndex, list[0].Configuration.Servers)
	}
	if n.members.tail, err = tailConfiguration(logs, behind); err != nil {
		return fmt.Errorf("read the Raft log: %w", err)
	}
	// Those that the newest members are known by are before it in the log.
	if err := tellKeys(logs, behind, n.members.tail.index, n.members.hear); err != nil {
		return fmt.Errorf("read the Raft log: %w", err)
	}
	joining, err := readJoining(n.config.joiningFile())
	if err != nil {
		return err
	}
	if n.admitted, err = readAdmitted(n.config.admittedFile()); err != nil {
		return err
	}
	n.members.joining = fromWire(joining)
	n.members.hear(keysOf(joining), 0)
	return nil
}

// newestDamaged reports whether the newest snapshot cannot be read, or is not
// what was written: the store compares it with a checksum.
func newestDamaged(snapshots raft.SnapshotStore) bool {
	list, err := snapshots.List()
	if err != nil || len(list) == 0 {
		return false
	}
	_, content, err := snapshots.Open(list[0].ID)
	if err != nil {
		return true
	}
	_ = content.Close() // it was only read
	return false
}

// checkJournal refuses a journal that is newer than the log: it would take the
// facts of new entries for facts that it has.
func checkJournal(journal Journal, logs raft.LogStore, snapshots raft.SnapshotStore) error {
	last, err := logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read the Raft log: %w", err)
	}
	list, err := snapshots.List()
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	for _, snapshot := range list {
		last = max(last, snapshot.Index)
	}
	if through := journal.Through(); through > last {
		return fmt.Errorf("the journal ends at log entry %d, the log at %d: %w", through, last, ErrJournalAhead)
	}
	return nil
}

func closeTransport(transport raft.Transport) error {
	if closer, ok := transport.(raft.WithClose); ok {
		return closer.Close()
	}
	return nil
}
