package cluster

import (
	"log/slog"
	"testing"
	"time"

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
	c.watch(func(servers []raft.Server) { told = append(told, servers[0].ID) })
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

// By which key a member is known: by its record, unless something newer was heard;
// and where its record cannot be here yet, by what was heard, or not at all.
func TestTheKeyOfAMember(t *testing.T) {
	state, err := fleet.New()
	require.NoError(t, err)
	c := &configurations{}
	n := &Node{machine: newMachine(state, nil, c, slog.New(slog.DiscardHandler)), members: c}
	entry := func(payload fleet.Payload) []byte {
		command, err := fleet.NewCommand(time.Unix(1, 0), payload)
		require.NoError(t, err)
		data, err := fleet.EncodeEntry([]fleet.Command{command})
		require.NoError(t, err)
		return data
	}
	record := func(key string) []byte {
		return entry(fleet.AnnounceNode{Node: fleet.ClusterNode{ID: "b", Address: "b", Level: 1, KeyFingerprint: key}})
	}
	key := func(id string) string {
		fingerprint, known := n.Key(id)
		if !known {
			return "unknown"
		}
		return fingerprint
	}
	assert.Equal(t, "unknown", key("b"), "a node that joins knows nothing")
	c.hear(map[string]string{"b": "told"}, 0)
	assert.Equal(t, "told", key("b"), "but what it was told")
	c.hear(keysOf([]wireMember{{ID: "b"}}), 3)
	assert.Equal(t, "told", key("b"), "an earlier version does not say it")

	// In the log that was here at the start, and is not applied.
	logs := raft.NewInmemStore()
	require.NoError(t, logs.StoreLogs([]*raft.Log{
		{Index: 5, Type: raft.LogCommand, Data: record("in the snapshot")}, {Index: 6, Type: raft.LogCommand, Data: record("in the log")},
		{Index: 7, Type: raft.LogNoop}, {Index: 8, Type: raft.LogCommand, Data: record("not of this configuration")},
	}))
	require.NoError(t, tellKeys(logs, 5, 7, c.hear))
	assert.Equal(t, "in the log", key("b"))

	_, _, err = state.Apply(6, record("stored"))
	require.NoError(t, err)
	assert.Equal(t, "stored", key("b"))
	c.hear(map[string]string{"b": "heard"}, 9)
	assert.Equal(t, "heard", key("b"), "by a member that knows more")
	c.hear(map[string]string{"b": "late"}, 8)
	assert.Equal(t, "heard", key("b"), "and not by one that knows less")
	_, _, err = state.Apply(10, record("stored later"))
	require.NoError(t, err)
	assert.Equal(t, "stored later", key("b"))

	// The founder is in the first configuration, and tells about itself later: a
	// snapshot may lie in between, and its receiver goes by what it was told.
	c.hear(map[string]string{"founder": "told"}, 0)
	c.install(11, []raft.Server{{ID: "founder"}, {ID: "c"}})
	assert.Equal(t, "told", key("founder"))
	assert.Equal(t, "unknown", key("c"))
	c.hear(fleet.NodeKeys(entry(fleet.ForgetNode{ID: "founder"})), 12)
	assert.Equal(t, "unknown", key("founder"))
}
