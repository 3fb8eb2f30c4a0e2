package cluster

import (
	"log/slog"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

// A log may end in a configuration that never was committed. Until the log is cut
// off, or a snapshot takes its place, it is what counts.
func TestASnapshotOfALeaderTakesThePlaceOfTheTail(t *testing.T) {
	server := func(id string) []raft.Server { return []raft.Server{{ID: raft.ServerID(id)}} }
	c := &configurations{tail: configuration{index: 30, servers: server("stale")}}
	var told []raft.ServerID
	c.watchers = append(c.watchers, func(servers []raft.Server) { told = append(told, servers[0].ID) })
	c.store(10, server("own snapshot"))
	assert.Equal(t, uint64(30), c.index())
	assert.Empty(t, told, "on the way to what was known before")
	c.install(20, server("leader's snapshot"))
	assert.Equal(t, uint64(20), c.index())
	assert.Equal(t, []raft.ServerID{"leader's snapshot"}, told)

	c.tail = configuration{index: 30, servers: server("stale")}
	c.install(20, server("leader's snapshot"))
	assert.Equal(t, uint64(20), c.index(), "the configuration is the same, the tail is not")
}

type listedSnapshots struct {
	raft.SnapshotStore
	index uint64
}

func (s listedSnapshots) List() ([]*raft.SnapshotMeta, error) {
	return []*raft.SnapshotMeta{{Index: s.index}}, nil
}

// Where an entry is missing that no snapshot covers, nobody knows whether it is a
// command that a read has to wait for.
func TestAMissingEntryIsNotTakenForACutLog(t *testing.T) {
	state, err := fleet.New()
	require.NoError(t, err)
	logs := raft.NewInmemStore()
	n := &Node{logs: logs, machine: newMachine(state, nil, &configurations{}, slog.New(slog.DiscardHandler))}
	n.snapshots = listedSnapshots{index: 4}
	require.NoError(t, logs.StoreLogs([]*raft.Log{{Index: 5, Type: raft.LogNoop}, {Index: 7, Type: raft.LogNoop}}))

	index, err := n.lastCommand(5)
	require.NoError(t, err)
	assert.Zero(t, index, "the snapshot covers the rest")
	_, err = n.lastCommand(7)
	require.ErrorIs(t, err, raft.ErrLogNotFound)
	assert.ErrorContains(t, err, "entry 6")
	assert.False(t, n.caughtUp(7))

	require.NoError(t, logs.StoreLog(&raft.Log{Index: 6, Type: raft.LogCommand}))
	index, err = n.lastCommand(7)
	require.NoError(t, err)
	assert.Equal(t, uint64(6), index)
}
