// Package clustertest runs a node for tests, with its real log and journal in a
// temporary directory, and with short timeouts.
package clustertest

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
)

// patience bounds every wait of this package.
const patience = 60 * time.Second

// Node is a running cluster of one.
type Node struct {
	*cluster.Node
	Journal *history.Journal
	Dir     string

	t       testing.TB
	cancel  context.CancelFunc
	ended   chan struct{}
	failure error // valid once ended is closed
}

// Start bootstraps a node in a fresh directory, runs it, and returns when it is
// ready. The test's end stops it.
func Start(t testing.TB) *Node {
	t.Helper()
	return Restart(t, t.TempDir())
}

// Restart runs a node on a directory that an earlier one has left, or
// bootstraps it. prepare may register leader work before the node runs.
func Restart(t testing.TB, dir string, prepare ...func(*cluster.Node)) *Node {
	t.Helper()
	exists, err := cluster.HasState(dir)
	require.NoError(t, err)
	journal := openJournal(t, dir, exists)
	config := cluster.Config{
		Dir: dir, NodeID: "test", Journal: journal, Log: slog.New(slog.DiscardHandler),
		ElectionTimeout: 20 * time.Millisecond,
	}
	if !exists {
		require.NoError(t, cluster.Bootstrap(config, nil))
	}
	node, err := cluster.Open(config)
	require.NoError(t, err)
	for _, fn := range prepare {
		fn(node)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Node{Node: node, Journal: journal, Dir: dir, t: t, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(n.ended)
		n.failure = node.Run(ctx)
	}()
	t.Cleanup(n.Stop)
	require.Eventually(t, func() bool { return node.Ready().Ready() }, patience, time.Millisecond, "the node does not get ready")
	return n
}

func openJournal(t testing.TB, dir string, exists bool) *history.Journal {
	t.Helper()
	config := history.Config{Path: filepath.Join(dir, "journal.db"), Log: slog.New(slog.DiscardHandler)}
	open := history.Create
	if exists {
		open = history.Open
	}
	journal, err := open(config)
	require.NoError(t, err)
	return journal
}

// Stop stops the node as the program does and closes its journal. Stopping it
// again does nothing.
func (n *Node) Stop() {
	n.t.Helper()
	n.cancel()
	select {
	case <-n.ended:
	case <-time.After(patience):
		require.Fail(n.t, "the node does not stop")
	}
	require.NoError(n.t, n.failure)
	require.NoError(n.t, n.Journal.Close())
}

// Do proposes one command made of a payload at the present time, and returns
// its result.
func (n *Node) Do(payload fleet.Payload) fleet.Result {
	n.t.Helper()
	command, err := fleet.NewCommand(time.Now(), payload)
	require.NoError(n.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	results, err := n.Propose(ctx, command)
	require.NoError(n.t, err)
	require.Len(n.t, results, 1)
	return results[0]
}
