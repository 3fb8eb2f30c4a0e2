package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/durable"
)

// openAgain opens what a node has left, and closes it.
func openAgain(t *testing.T, dir string, change func(*cluster.Config)) error {
	t.Helper()
	journal, err := history.Open(history.Config{Path: filepath.Join(dir, "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer func() { assert.NoError(t, journal.Close()) }()
	config := cluster.Config{Dir: dir, NodeID: "test", Journal: journal, Log: slog.New(slog.DiscardHandler), ElectionTimeout: 20 * time.Millisecond}
	if change != nil {
		change(&config)
	}
	node, err := cluster.Open(config)
	if err != nil {
		return err
	}
	return node.Close()
}

// copyDir copies the files of a stopped node.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(to, os.DirFS(from)))
	return to
}

// Raft's own formats would give back an entry with a changed bit as if nothing
// were wrong, and this node would differ from the others from then on.
func TestAChangedBitInTheLogIsRefused(t *testing.T) {
	n := clustertest.Start(t)
	token := newToken("marked")
	token.Description = "a description that stands in the log, and that somebody may change"
	require.True(t, n.Do(token).OK())
	n.Stop()
	// The stop has taken a snapshot; without it the log is what counts.
	snapshots := filepath.Join(n.Dir, "raft", "snapshots")
	require.NoError(t, os.RemoveAll(snapshots))
	require.NoError(t, openAgain(t, copyDir(t, n.Dir), nil))

	log, err := os.ReadFile(filepath.Join(n.Dir, "raft", "log.db"))
	require.NoError(t, err)
	at := bytes.Index(log, []byte(token.Description))
	require.Positive(t, at)
	for _, offset := range []int{0, 7, len(token.Description) - 1} {
		dir := copyDir(t, n.Dir)
		damaged := bytes.Clone(log)
		for from := 0; ; { // bbolt may have kept older copies of the page
			next := bytes.Index(damaged[from:], []byte(token.Description))
			if next < 0 {
				break
			}
			damaged[from+next+offset] ^= 1
			from += next + 1
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "raft", "log.db"), damaged, 0o600))
		err := openAgain(t, dir, nil)
		require.ErrorIs(t, err, cluster.ErrLogDamaged)
		assert.ErrorContains(t, err, "log.db")
		assert.ErrorContains(t, err, "differs from its checksum")
	}
}

func TestEntriesWithoutASumAreReadAndGetNone(t *testing.T) {
	dir := t.TempDir()
	journal, err := history.Create(history.Config{Path: filepath.Join(dir, "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.NoError(t, journal.Close())
	// As versions before the sums wrote it.
	require.NoError(t, os.Mkdir(filepath.Join(dir, "raft"), 0o700))
	store, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, "raft", "log.db"), MsgpackUseNewTimeFormat: true})
	require.NoError(t, err)
	snapshots, err := raft.NewFileSnapshotStore(filepath.Join(dir, "raft"), 2, nil)
	require.NoError(t, err)
	config := raft.DefaultConfig()
	config.LocalID = "test"
	_, transport := raft.NewInmemTransport("test")
	require.NoError(t, raft.BootstrapCluster(config, store, store, snapshots, transport, raft.Configuration{Servers: []raft.Server{{ID: "test", Address: "test"}}}))
	entry, err := fleet.EncodeEntry([]fleet.Command{mustCommand(t, newToken("old"))})
	require.NoError(t, err)
	require.NoError(t, store.StoreLog(&raft.Log{Index: 2, Term: 1, Type: raft.LogCommand, Data: entry}))
	require.NoError(t, store.Close())

	n := clustertest.Restart(t, dir)
	_, ok := n.State().View().EnrollmentToken("old")
	require.True(t, ok)
	require.True(t, n.Do(newToken("new")).OK())
	n.Stop()
	n = clustertest.Restart(t, dir)
	assert.Len(t, n.State().View().EnrollmentTokens(), 2)
}

func TestASnapshotThatIsCutShort(t *testing.T) {
	snapshotsOf := func(dir string) []string {
		files, err := filepath.Glob(filepath.Join(dir, "raft", "snapshots", "*", "state.bin"))
		require.NoError(t, err)
		return files
	}
	cut := func(t *testing.T, path string) {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(path, info.Size()/2))
	}
	n := clustertest.Start(t)
	require.True(t, n.Do(newToken("first")).OK())
	n.Stop()
	n = clustertest.Restart(t, n.Dir)
	require.True(t, n.Do(newToken("second")).OK())
	n.Stop()
	files := snapshotsOf(n.Dir)
	require.Len(t, files, 2)

	t.Run("the log reaches back to the one before", func(t *testing.T) {
		dir := copyDir(t, n.Dir)
		cut(t, snapshotsOf(dir)[1])
		n := clustertest.Restart(t, dir)
		assert.Len(t, n.State().View().EnrollmentTokens(), 2)
	})
	t.Run("and so is the one before", func(t *testing.T) {
		dir := copyDir(t, n.Dir)
		for _, file := range snapshotsOf(dir) {
			cut(t, file)
		}
		require.ErrorIs(t, openAgain(t, dir, nil), fleet.ErrSnapshotDamaged)
	})
	t.Run("the log does not", func(t *testing.T) {
		dir := copyDir(t, n.Dir)
		cut(t, snapshotsOf(dir)[1])
		store, err := raftboltdb.NewBoltStore(filepath.Join(dir, "raft", "log.db"))
		require.NoError(t, err)
		first, err := store.FirstIndex()
		require.NoError(t, err)
		last, err := store.LastIndex()
		require.NoError(t, err)
		require.NoError(t, store.DeleteRange(first, last-1))
		require.NoError(t, store.Close())
		err = openAgain(t, dir, nil)
		require.ErrorIs(t, err, fleet.ErrSnapshotDamaged)
	})
}

// Raft would end the program when it cannot store a term. The node waits instead,
// and goes on when there is room.
func TestANodeWaitsForItsDisk(t *testing.T) {
	dir := t.TempDir()
	journal, err := history.Create(history.Config{Path: filepath.Join(dir, "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, journal.Close()) })
	var full atomic.Bool
	var refused atomic.Int32
	config := cluster.Config{
		Dir: dir, NodeID: "test", Journal: journal, Log: slog.New(slog.DiscardHandler), ElectionTimeout: 20 * time.Millisecond,
		Hook: func(step durable.Step, path string, done bool) error {
			if full.Load() && !done {
				refused.Add(1)
				return fmt.Errorf("%s: %s: %w", step, path, syscall.ENOSPC)
			}
			return nil
		},
	}
	require.NoError(t, cluster.Bootstrap(config, nil))
	node, err := cluster.Open(config)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	require.Eventually(t, node.IsLeader, testPatience, time.Millisecond)

	full.Store(true)
	command := mustCommand(t, newToken("waits"))
	answer := make(chan error, 1)
	go func() {
		results, err := node.Propose(t.Context(), command)
		if err == nil {
			err = results[0].Err()
		}
		answer <- err
	}()
	require.Eventually(t, func() bool { return refused.Load() > 3 }, testPatience, time.Millisecond, "the entry, and then the terms")
	full.Store(false)
	err = <-answer
	var uncertain *cluster.UnknownOutcomeError
	if errors.As(err, &uncertain) { // nobody knows what a disk that fails has stored
		require.Eventually(t, node.IsLeader, testPatience, time.Millisecond)
		_, err = node.Propose(t.Context(), command)
	}
	require.NoError(t, err)
	assert.Len(t, node.State().View().EnrollmentTokens(), 1)
	assert.Empty(t, ended, "it runs on")
	stop()
	require.NoError(t, <-ended)
}

// A node that waits for its disk can be stopped. Raft would end the program if it
// heard that the term was not stored, and acts on it if it hears that it was.
func TestANodeThatWaitsForItsDiskStops(t *testing.T) {
	dir := t.TempDir()
	journal, err := history.Create(history.Config{Path: filepath.Join(dir, "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, journal.Close()) })
	var full atomic.Bool
	var refused atomic.Int32
	config := cluster.Config{
		Dir: dir, NodeID: "test", Journal: journal, Log: slog.New(slog.DiscardHandler), ElectionTimeout: 20 * time.Millisecond,
		Hook: func(step durable.Step, path string, done bool) error {
			if full.Load() && !done {
				if step == "cluster: store term and vote" {
					refused.Add(1)
				}
				return fmt.Errorf("%s: %s: %w", step, path, syscall.ENOSPC)
			}
			return nil
		},
	}
	require.NoError(t, cluster.Bootstrap(config, nil))
	run := func() (node *cluster.Node, stop func() error) {
		node, err := cluster.Open(config)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- node.Run(ctx) }()
		require.Eventually(t, node.IsLeader, testPatience, time.Millisecond)
		return node, func() error {
			cancel()
			return <-ended
		}
	}
	stored := func() (term, vote uint64) {
		store, err := raftboltdb.NewBoltStore(filepath.Join(dir, "raft", "log.db"))
		require.NoError(t, err)
		defer func() { assert.NoError(t, store.Close()) }()
		term, err = store.GetUint64([]byte("CurrentTerm"))
		require.NoError(t, err)
		vote, err = store.GetUint64([]byte("LastVoteTerm"))
		require.NoError(t, err)
		return term, vote
	}

	node, stop := run()
	term := node.Status().Term
	full.Store(true)
	command := mustCommand(t, newToken("waits"))
	answer := make(chan error, 1)
	go func() {
		_, err := node.Propose(t.Context(), command)
		answer <- err
	}()
	require.Eventually(t, func() bool { return refused.Load() > 0 }, testPatience, time.Millisecond, "it stands for election")
	require.NoError(t, stop())
	require.Error(t, <-answer)
	assert.Equal(t, term, node.Status().Term, "what was not stored is not acted upon")
	storedTerm, storedVote := stored()
	assert.Equal(t, term, storedTerm)
	assert.Equal(t, term, storedVote)

	full.Store(false)
	node, stop = run()
	assert.Greater(t, node.Status().Term, term)
	results, err := node.Propose(t.Context(), command)
	require.NoError(t, err)
	assert.True(t, results[0].OK())
	require.NoError(t, stop())
}
