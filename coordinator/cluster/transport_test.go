package cluster_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/history"
)

type plainStreams struct{ net.Listener }

func (s plainStreams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(address), timeout)
}

// A node that has the only vote leads without a pause in which nobody could answer,
// however long the others would wait for a leader.
func TestANodeThatIsAloneLeadsAtOnce(t *testing.T) {
	dir := t.TempDir()
	journal, err := history.Create(history.Config{Path: filepath.Join(dir, "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer journal.Close()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	config := cluster.Config{
		Dir: dir, NodeID: "alone", Journal: journal, Log: slog.New(slog.DiscardHandler),
		Transport: cluster.NewTransport(plainStreams{listener}, slog.New(slog.DiscardHandler)), ElectionTimeout: time.Hour,
	}
	require.NoError(t, cluster.Bootstrap(config, nil))
	node, err := cluster.Open(config)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	require.Eventually(t, node.IsLeader, testPatience, time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
}
