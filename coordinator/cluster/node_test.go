package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/wire"
)

const testPatience = 60 * time.Second

func newToken(id string) fleet.CreateEnrollmentToken {
	return fleet.CreateEnrollmentToken{
		Actor: "local", ID: id, SecretHash: [32]byte{1, 2, 3}, NamePatterns: []string{"**.example.com"},
		ExpiresAt: time.Now().Add(time.Hour),
	}
}

func mustCommand(t testing.TB, payload fleet.Payload) fleet.Command {
	t.Helper()
	command, err := fleet.NewCommand(time.Now(), payload)
	require.NoError(t, err)
	return command
}

func facts(t testing.TB, journal *history.Journal, kind fleet.Kind) []fleet.Fact {
	t.Helper()
	var all []fleet.Fact
	for query := (history.Query{Kinds: []fleet.Kind{kind}, Limit: history.MaxLimit}); ; {
		page, next, err := journal.Read(query)
		require.NoError(t, err)
		all = append(all, page...)
		if next == "" {
			return all
		}
		query.After = next
	}
}

// journalReaches waits until the journal, which is written behind the answers,
// has n facts of a kind.
func journalReaches(t testing.TB, journal *history.Journal, kind fleet.Kind, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return len(facts(t, journal, kind)) >= n }, testPatience, 5*time.Millisecond)
}

func TestARestartKeepsEverything(t *testing.T) {
	n := clustertest.Start(t)
	for i := range 20 {
		require.True(t, n.Do(newToken(fmt.Sprintf("token%d", i))).OK())
	}
	index := n.AppliedIndex()
	n.Stop()

	for range 2 { // once from the last snapshot, once more with nothing new
		n = clustertest.Restart(t, n.Dir)
		assert.Equal(t, index, n.AppliedIndex())
		assert.Len(t, n.State().View().EnrollmentTokens(), 20)
		assert.Len(t, facts(t, n.Journal, fleet.KindEnrollmentTokenCreated), 20, "each fact is in the journal once")
		n.Stop()
	}
}

func TestARepeatedCommandIsAppliedOnceAcrossRestarts(t *testing.T) {
	n := clustertest.Start(t)
	command := mustCommand(t, newToken("once"))
	first, err := n.Propose(t.Context(), command)
	require.NoError(t, err)
	n.Stop()
	n = clustertest.Restart(t, n.Dir)
	again, err := n.Propose(t.Context(), command)
	require.NoError(t, err)
	assert.Equal(t, first, again, "not CodeConflict, which a new command for the same token gets")
	assert.Equal(t, wire.CodeConflict, n.Do(newToken("once")).Code)
	n.Stop()
	n = clustertest.Restart(t, n.Dir)
	assert.Len(t, facts(t, n.Journal, fleet.KindEnrollmentTokenCreated), 1)
}

func TestConcurrentProposalsShareEntries(t *testing.T) {
	n := clustertest.Start(t)
	before := n.AppliedIndex()
	const callers, each = 64, 20
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := range each {
				results, err := n.Propose(t.Context(),
					mustCommand(t, newToken(fmt.Sprintf("a%dx%d", caller, i))),
					mustCommand(t, newToken(fmt.Sprintf("b%dx%d", caller, i))),
					mustCommand(t, fleet.RevokeEnrollmentToken{ID: fmt.Sprintf("none%dx%d", caller, i)}))
				if assert.NoError(t, err) && assert.Len(t, results, 3) {
					assert.True(t, results[0].OK())
					assert.True(t, results[1].OK())
					assert.Equal(t, wire.CodeNotFound, results[2].Code, "results belong to their own proposal")
				}
			}
		})
	}
	wg.Wait()
	assert.Len(t, n.State().View().EnrollmentTokens(), 2*callers*each)
	entries := n.AppliedIndex() - before
	assert.Less(t, entries, uint64(callers*each/2), "concurrent proposals must gather in entries")
}

func TestOpenRefusesWhatItCannotUse(t *testing.T) {
	setUp := func(t *testing.T) (cluster.Config, *history.Journal) {
		dir := t.TempDir()
		journal, err := history.Create(history.Config{Path: filepath.Join(dir, "journal.db"), Log: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		t.Cleanup(func() { _ = journal.Close() })
		return cluster.Config{Dir: dir, NodeID: "n", Journal: journal, Log: slog.New(slog.DiscardHandler)}, journal
	}
	t.Run("no state", func(t *testing.T) {
		config, _ := setUp(t)
		_, err := cluster.Open(config)
		require.ErrorIs(t, err, cluster.ErrNoState)
	})
	t.Run("bootstrap twice", func(t *testing.T) {
		config, _ := setUp(t)
		require.NoError(t, cluster.Bootstrap(config, nil))
		require.ErrorIs(t, cluster.Bootstrap(config, nil), cluster.ErrStateExists)
	})
	t.Run("half a bootstrap", func(t *testing.T) {
		config, _ := setUp(t)
		require.NoError(t, os.MkdirAll(filepath.Join(config.Dir, "raft.new", "raft"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(config.Dir, "raft.new", "raft", "log.db"), []byte("torn"), 0o600))
		_, err := cluster.Open(config)
		require.ErrorIs(t, err, cluster.ErrNoState)
		require.NoError(t, cluster.Bootstrap(config, nil))
		n, err := cluster.Open(config)
		require.NoError(t, err)
		require.NoError(t, n.Close())
	})
	t.Run("in use", func(t *testing.T) {
		config, _ := setUp(t)
		require.NoError(t, cluster.Bootstrap(config, nil))
		n, err := cluster.Open(config)
		require.NoError(t, err)
		_, err = cluster.Open(config)
		require.ErrorIs(t, err, cluster.ErrInUse)
		require.NoError(t, n.Close())
	})
	t.Run("no log", func(t *testing.T) {
		config, _ := setUp(t)
		require.NoError(t, cluster.Bootstrap(config, nil))
		path := filepath.Join(config.Dir, "raft", "log.db")
		require.NoError(t, os.Remove(path))
		_, err := cluster.Open(config)
		require.ErrorIs(t, err, cluster.ErrLogMissing)
		require.ErrorContains(t, err, path)
		assert.NoFileExists(t, path, "no new log in its place")
	})
	t.Run("log cut short or overwritten", func(t *testing.T) {
		for name, damage := range map[string]func(content []byte) []byte{
			"cut":       func(c []byte) []byte { return c[:len(c)/2] },
			"empty":     func([]byte) []byte { return nil },
			"foreign":   func([]byte) []byte { return []byte("this is a text file and no log at all") },
			"headers":   func(c []byte) []byte { clear(c[:8192]); return c },
			"all pages": func(c []byte) []byte { clear(c[8192:]); return c },
		} {
			config, _ := setUp(t)
			require.NoError(t, cluster.Bootstrap(config, nil))
			path := filepath.Join(config.Dir, "raft", "log.db")
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			damaged := damage(content)
			require.NoError(t, os.WriteFile(path, damaged, 0o600))
			_, err = cluster.Open(config)
			require.ErrorIs(t, err, cluster.ErrLogDamaged, name)
			after, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.Equal(t, string(damaged), string(after), "%s: the file must be left as it is", name)
		}
	})
	t.Run("journal ahead", func(t *testing.T) {
		config, journal := setUp(t)
		require.NoError(t, cluster.Bootstrap(config, nil))
		require.NoError(t, journal.Append(1000, nil))
		_, err := cluster.Open(config)
		require.ErrorIs(t, err, cluster.ErrJournalAhead)
	})
	t.Run("damaged snapshot", func(t *testing.T) {
		n := clustertest.Start(t)
		n.Do(newToken("one"))
		n.Stop()
		files, err := filepath.Glob(filepath.Join(n.Dir, "raft", "snapshots", "*", "state.bin"))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			require.NoError(t, os.Truncate(file, 30))
		}
		journal, err := history.Open(history.Config{Path: filepath.Join(n.Dir, "journal.db"), Log: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		t.Cleanup(func() { _ = journal.Close() })
		_, err = cluster.Open(cluster.Config{Dir: n.Dir, NodeID: "test", Journal: journal, Log: slog.New(slog.DiscardHandler)})
		require.Error(t, err)
	})
	t.Run("configuration", func(t *testing.T) {
		_, err := cluster.Open(cluster.Config{Dir: "relative"})
		require.ErrorContains(t, err, "Dir")
		require.ErrorContains(t, err, "NodeID")
	})
}

func TestLeaderWorkRunsAfterTheBarrierAndIsWaitedFor(t *testing.T) {
	n := clustertest.Start(t)
	n.Do(newToken("before"))
	n.Stop()

	var starts, failures, ends atomic.Int32
	n = clustertest.Restart(t, n.Dir, func(node *cluster.Node) {
		node.Lead("work", func(ctx context.Context) error {
			starts.Add(1)
			_, ok := node.State().View().EnrollmentToken("before")
			assert.True(t, ok, "work must see what was committed before")
			if failures.Add(1) == 1 {
				return errors.New("the first try fails")
			}
			<-ctx.Done()
			<-time.After(20 * time.Millisecond) // work that takes its time to end
			ends.Add(1)
			return nil
		})
	})
	require.Eventually(t, func() bool { return starts.Load() == 2 }, testPatience, time.Millisecond, "failed work is started again")
	n.Stop()
	assert.EqualValues(t, 1, ends.Load(), "Run must wait for the work")
}

func TestAStoppedNodeRefuses(t *testing.T) {
	n := clustertest.Start(t)
	n.Stop()
	_, err := n.Propose(t.Context(), mustCommand(t, newToken("late")))
	require.ErrorIs(t, err, cluster.ErrStopped)
	require.Error(t, n.VerifyLeader(t.Context()))
	assert.False(t, n.Ready().Ready())
	require.Error(t, n.Run(t.Context()), "Run is called once")
}

func TestProposeHonoursItsContextAndItsBounds(t *testing.T) {
	n := clustertest.Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := n.Propose(ctx, mustCommand(t, newToken("cancelled")))
	require.ErrorIs(t, err, context.Canceled)
	_, ok := n.State().View().EnrollmentToken("cancelled")
	assert.False(t, ok)

	big := newToken("big")
	big.Description = string(make([]byte, fleet.MaxCommand-4096))
	_, err = n.Propose(t.Context(), mustCommand(t, big), mustCommand(t, big), mustCommand(t, big))
	require.ErrorIs(t, err, cluster.ErrTooLarge)
	results, err := n.Propose(t.Context(), mustCommand(t, big))
	require.NoError(t, err, "one command of the largest size fits")
	assert.True(t, results[0].OK())

	results, err = n.Propose(t.Context())
	require.NoError(t, err)
	assert.Empty(t, results)
}

func TestWaitIndex(t *testing.T) {
	n := clustertest.Start(t)
	target := n.AppliedIndex() + 3
	waited := make(chan error, 1)
	go func() { waited <- n.WaitIndex(t.Context(), target) }()
	for i := 0; n.AppliedIndex() < target; i++ {
		n.Do(newToken(fmt.Sprintf("token%d", i)))
	}
	require.NoError(t, <-waited)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, n.WaitIndex(ctx, target+1000), context.DeadlineExceeded)
	require.NoError(t, n.VerifyLeader(t.Context()))
}
