package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history/boltfile"
	"github.com/certctl/certctl/shared/durable"
)

// recoveryFile says that a recovery is under way, and what it does. It is there
// before anything else is changed and becomes recoveredFile when all is done.
const recoveryFile = "recovery.json"

// recoveredDir is where the new state is made before it takes the old one's place.
const recoveredDir = "raft.recovered"

// Recovery is what a recovery does to a node's directory.
type Recovery struct {
	Version int       `json:"version"`
	NodeID  string    `json:"node_id"`
	Time    time.Time `json:"time"`
	// Servers are the new configuration.
	Servers []ServerReport `json:"servers"`
	// LastIndex and LastTerm are where the log ends: everything up to there
	// counts as committed from then on.
	LastIndex uint64 `json:"last_index"`
	LastTerm  uint64 `json:"last_term"`
	// Kept is the name under which the old Raft directory stays, beside the new
	// one, until somebody removes it.
	Kept string `json:"kept"`
}

const recoveryVersion = 1

// ErrRecovering says that a recovery was begun here and is not done.
var ErrRecovering = errors.New("a recovery of this node was begun and is not done; finish it with \"certctl-coordinator recover run --yes\"")

// Steps of a recovery.
const (
	stepRecoveryIntent durable.Step = "cluster: note a recovery"
	stepRecoveryBuild  durable.Step = "cluster: make the recovered state"
	stepRecoveryKeep   durable.Step = "cluster: put the old state aside"
	stepRecoverySwitch durable.Step = "cluster: put the recovered state in its place"
	stepRecoveryDone   durable.Step = "cluster: note that a recovery is done"
)

// PlanRecovery is what Recover would do for this node alone: a cluster of one,
// with everything that is in the log. It changes nothing.
func PlanRecovery(report *Report, address string, now time.Time) Recovery {
	return Recovery{
		Version: recoveryVersion, NodeID: report.NodeID, Time: now.UTC().Truncate(time.Second),
		Servers:   []ServerReport{{ID: report.NodeID, Address: address, Voter: true}},
		LastIndex: report.LastIndex, LastTerm: report.LastTerm,
		Kept: "raft.before-recovery-" + now.UTC().Format("20060102T150405Z"),
	}
}

// PendingRecovery is the recovery that was begun in a directory and is not done.
func PendingRecovery(dir string) (r Recovery, pending bool, err error) {
	path := filepath.Join(dir, recoveryFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Recovery{}, false, nil
	}
	if err != nil {
		return Recovery{}, false, fmt.Errorf("recovery: %w", err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return Recovery{}, false, fmt.Errorf("%s cannot be read: %w; remove it if %s is there, else put back what it names", path, err, filepath.Join(dir, "raft"))
	}
	if r.Version != recoveryVersion {
		return Recovery{}, false, fmt.Errorf("%s is of version %d, known is %d; finish the recovery with the program that began it", path, r.Version, recoveryVersion)
	}
	return r, true, nil
}

// Recover makes a stopped node's state that of a cluster of the servers in the
// recovery, with everything in its log taken for committed, and the facts of it
// in the journal. What it replaces stays under another name.
//
// It is one act: a crash in its middle is continued by calling it again with the
// recovery that PendingRecovery gives. Only the node itself decides that this
// is right: entries that only the lost nodes had are gone, and entries that no
// majority ever had are kept.
func Recover(ctx context.Context, c Config, r Recovery) error { return recoverWith(ctx, c, r, nil) }

func recoverWith(ctx context.Context, c Config, r Recovery, hook durable.Hook) error {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return err
	}
	if r.NodeID != c.NodeID || r.Kept == "" || filepath.Base(r.Kept) != r.Kept || len(r.Servers) == 0 {
		return fmt.Errorf("recovery: it is of the node %q and puts the old state to %q, and this is the node %q", r.NodeID, r.Kept, c.NodeID)
	}
	kept := filepath.Join(c.Dir, r.Kept)
	if _, pending, err := PendingRecovery(c.Dir); err != nil {
		return err
	} else if !pending {
		// Who runs, or has nothing, is refused before anything is changed.
		if err := c.refuseRecovery(kept); err != nil {
			return err
		}
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return fmt.Errorf("recovery: %w", err)
		}
		path := filepath.Join(c.Dir, recoveryFile)
		if err := hook.Around(stepRecoveryIntent, path, func() error { return durable.WriteFile(path, text, 0o600) }); err != nil {
			return fmt.Errorf("recovery: %w", err)
		}
	}
	// The old state is put aside only when the new one is complete.
	switch _, err := os.Stat(kept); {
	case errors.Is(err, fs.ErrNotExist):
		build := func() error { return c.buildRecovered(ctx, r) }
		if err := hook.Around(stepRecoveryBuild, c.recovered().Dir, build); err != nil {
			return fmt.Errorf("recovery: %w", err)
		}
		if err := hook.Around(stepRecoveryKeep, kept, func() error { return durable.Rename(c.raftDir(), kept) }); err != nil {
			return fmt.Errorf("recovery: %w", err)
		}
	case err != nil:
		return fmt.Errorf("recovery: %w", err)
	}
	if exists, err := HasState(c.Dir); err != nil {
		return err
	} else if !exists {
		move := func() error { return durable.Rename(c.recovered().raftDir(), c.raftDir()) }
		if err := hook.Around(stepRecoverySwitch, c.raftDir(), move); err != nil {
			return fmt.Errorf("recovery: %w", err)
		}
	}
	finish := func() error {
		if err := durable.RemoveAll(c.recovered().Dir); err != nil {
			return err
		}
		return durable.Rename(filepath.Join(c.Dir, recoveryFile), filepath.Join(c.Dir, recoveredFile))
	}
	if err := hook.Around(stepRecoveryDone, c.Dir, finish); err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	return nil
}

func (c Config) recovered() Config {
	c.Dir = filepath.Join(c.Dir, recoveredDir)
	return c
}

// refuseRecovery finds what speaks against a recovery.
func (c Config) refuseRecovery(kept string) error {
	logs, err := c.openForReading()
	if err != nil {
		return err
	}
	if err := logs.Close(); err != nil {
		return fmt.Errorf("close the Raft log: %w", err)
	}
	if _, err := os.Lstat(kept); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("recovery: %s is there already; remove it, or move it away", kept), err)
	}
	return nil
}

// buildRecovered makes the new state beside the old one, which is only read: its
// log is applied on its newest snapshot, and a snapshot of that with the new
// configuration is all that the new state consists of, with the node's promises.
func (c Config) buildRecovered(ctx context.Context, r Recovery) (err error) {
	fresh := c.recovered()
	if err := os.RemoveAll(fresh.Dir); err != nil {
		return fmt.Errorf("clear away an earlier attempt: %w", err)
	}
	if err := os.MkdirAll(fresh.raftDir(), 0o700); err != nil {
		return err
	}
	old, oldSnapshots, err := c.openStores() // which locks it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	if err := checkJournal(c.Journal, old, oldSnapshots); err != nil {
		return err
	}
	store, snapshots, err := fresh.openStores()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := copyPromises(old, store); err != nil {
		return err
	}

	state, err := fleet.New()
	if err != nil {
		return err
	}
	writer := newJournalWriter(c.Journal, c.Log)
	writing, stop := context.WithCancel(ctx)
	defer stop()
	written := make(chan struct{})
	go func() {
		defer close(written)
		writer.run(writing)
	}()
	defer func() { stop(); <-written }()

	machine := &recoveringMachine{machine: newMachine(state, writer, &configurations{}, c.Log), at: r.Time}
	_, transport := raft.NewInmemTransport(raft.ServerAddress(r.Servers[0].Address))
	defer func() { err = errors.Join(err, closeTransport(transport)) }()
	stores := &recoveryStores{SnapshotStore: snapshots, from: oldSnapshots, logs: old}
	err = boltfile.Guard(func() error {
		return raft.RecoverCluster(c.raftConfig(), machine, stores, store, stores, transport, r.configuration())
	})
	if err != nil {
		return errors.Join(err, machine.err(), machine.unusable)
	}
	if stores.index != r.LastIndex || stores.term != r.LastTerm {
		return fmt.Errorf("the log ends at entry %d of term %d, and the recovery was planned for entry %d of term %d: plan it again",
			stores.index, stores.term, r.LastIndex, r.LastTerm)
	}
	return durable.SyncDir(fresh.raftDir())
}

func (r Recovery) configuration() raft.Configuration {
	var c raft.Configuration
	for _, server := range r.Servers {
		suffrage := raft.Voter
		if !server.Voter {
			suffrage = raft.Nonvoter
		}
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(server.ID), Address: raft.ServerAddress(server.Address), Suffrage: suffrage})
	}
	return c
}

// copyPromises takes over the term and the vote, which this node has given to
// others.
func copyPromises(from, to raft.StableStore) error {
	for _, key := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"} {
		value, err := from.Get([]byte(key))
		if errors.Is(err, raftboltdb.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		if err := to.Set([]byte(key), value); err != nil {
			return fmt.Errorf("store %s: %w", key, err)
		}
	}
	return nil
}

// recoveringMachine goes on with an older snapshot when the newest cannot be
// read: RecoverCluster finds out whether the log reaches back to it.
type recoveringMachine struct {
	*machine
	at       time.Time // of the recovery
	unusable error     // why snapshots were passed over
}

// Snapshot implements raft.FSM. What only the lost nodes had may have been that an order
// was placed.
func (m *recoveringMachine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.err(); err != nil {
		return nil, err
	}
	unknown, err := m.state.DoubtOrders(m.at)
	if err != nil {
		return nil, err
	}
	if unknown > 0 {
		m.log.Warn("orders at authorities may have been placed by nodes that are lost; they are searched for before they are placed", "orders", unknown)
	}
	return m.machine.Snapshot()
}

// Restore implements raft.FSM.
func (m *recoveringMachine) Restore(source io.ReadCloser) error {
	err := m.state.Restore(source)
	if err == nil {
		return m.writer.restored(m.state.Index())
	}
	m.unusable = errors.Join(m.unusable, err)
	m.log.Warn("a snapshot cannot be read; an older one is tried", "err", err)
	return err
}

// recoveryStores let raft.RecoverCluster read the old state and write the new
// one.
type recoveryStores struct {
	raft.SnapshotStore // of the new state
	from               raft.SnapshotStore
	logs               raft.LogStore // of the old state

	index, term uint64 // of the snapshot that was made
}

// List implements raft.SnapshotStore.
func (s *recoveryStores) List() ([]*raft.SnapshotMeta, error) { return s.from.List() }

// Open implements raft.SnapshotStore.
func (s *recoveryStores) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return s.from.Open(id)
}

// Create implements raft.SnapshotStore.
func (s *recoveryStores) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	s.index, s.term = index, term
	return s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, transport)
}

// FirstIndex implements raft.LogStore.
func (s *recoveryStores) FirstIndex() (uint64, error) { return s.logs.FirstIndex() }

// LastIndex implements raft.LogStore.
func (s *recoveryStores) LastIndex() (uint64, error) { return s.logs.LastIndex() }

// GetLog implements raft.LogStore.
func (s *recoveryStores) GetLog(index uint64, entry *raft.Log) error {
	return s.logs.GetLog(index, entry)
}

// StoreLog implements raft.LogStore.
func (s *recoveryStores) StoreLog(*raft.Log) error { return errors.New("the old log is only read") }

// StoreLogs implements raft.LogStore.
func (s *recoveryStores) StoreLogs([]*raft.Log) error {
	return errors.New("the old log is only read")
}

// DeleteRange implements raft.LogStore. The new log is empty, which is what
// RecoverCluster wants of it.
func (s *recoveryStores) DeleteRange(uint64, uint64) error { return nil }
