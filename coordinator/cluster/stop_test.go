package cluster_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/durable"
)

// open bootstraps a node and does not run it.
func open(t *testing.T, change func(c *cluster.Config)) *cluster.Node {
	t.Helper()
	dir := t.TempDir()
	journal, err := history.Create(history.Config{Path: filepath.Join(dir, "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = journal.Close() })
	config := cluster.Config{Dir: dir, NodeID: "n", Journal: journal, Log: slog.New(slog.DiscardHandler), ElectionTimeout: 20 * time.Millisecond}
	change(&config)
	require.NoError(t, cluster.Bootstrap(config, nil))
	n, err := cluster.Open(config)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, n.Close()) })
	return n
}

func TestAFullQueueRefusesWithATimeToComeBack(t *testing.T) {
	n := open(t, func(c *cluster.Config) { c.MaxWaiting = 2 })
	assert.False(t, n.Ready().Ready())
	ctx, cancel := context.WithCancel(t.Context())
	answers := make(chan error, 3)
	for _, id := range []string{"a", "b", "c"} {
		command := mustCommand(t, newToken(id))
		go func() {
			_, err := n.Propose(ctx, command)
			answers <- err
		}()
	}
	var overloaded *cluster.OverloadedError
	require.ErrorAs(t, <-answers, &overloaded, "two wait, one is refused")
	assert.Positive(t, overloaded.RetryAfter)
	cancel()
	for range 2 {
		err := <-answers
		require.ErrorIs(t, err, context.Canceled)
		var unknown *cluster.UnknownOutcomeError
		assert.False(t, errors.As(err, &unknown), "what was still waiting was not done, and that is known")
	}
}

func TestRunEndsWithTheMendWhenTheLogCannotBeApplied(t *testing.T) {
	n := open(t, func(*cluster.Config) {})
	ended := make(chan error, 1)
	go func() { ended <- n.Run(t.Context()) }()
	require.Eventually(t, n.IsLeader, testPatience, time.Millisecond)
	later := mustCommand(t, newToken("a"))
	later.Type = 250
	_, err := n.Propose(t.Context(), later)
	var level *cluster.LevelError
	require.ErrorAs(t, err, &level, "what a node does not understand does not get into the log")
	assert.Equal(t, []string{"n"}, level.Nodes)
	entry, err := fleet.EncodeEntry([]fleet.Command{later})
	require.NoError(t, err)
	_ = n.ApplyUnchecked(entry) // answered, or ended by the end of the node
	err = <-ended
	require.ErrorIs(t, err, fleet.ErrUnknownCommand)
	require.ErrorContains(t, err, "upgrade this node")
	require.Error(t, n.Ready().Failure)
	assert.Zero(t, n.AppliedIndex())
}

// A start on a full disk gets as far as it can, where a stop reaches it.
func TestAStartOnAFullDiskCanBeStopped(t *testing.T) {
	dir := t.TempDir()
	journal, err := history.Create(history.Config{Path: filepath.Join(dir, "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = journal.Close() })
	config := cluster.Config{Dir: dir, NodeID: "n", Journal: journal, Log: slog.New(slog.DiscardHandler), ElectionTimeout: 20 * time.Millisecond}
	require.NoError(t, cluster.Bootstrap(config, nil))
	config.Hook = func(durable.Step, string, bool) error { return syscall.ENOSPC }
	ctx, cancel := context.WithCancel(t.Context())
	opened, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		n, err := cluster.Open(config)
		opened <- err
		if err == nil {
			ended <- n.Run(ctx)
		}
	}()
	select {
	case err := <-opened:
		require.NoError(t, err)
	case <-time.After(testPatience):
		require.Fail(t, "the start hangs")
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(testPatience):
		require.Fail(t, "the stop hangs")
	}
}
