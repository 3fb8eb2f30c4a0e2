package daemon_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/peer"
)

// everybody is who a node knows that takes any member's key.
type everybody map[string]string

func (e everybody) Member(id string) bool { _, ok := e[id]; return ok }
func (e everybody) At(address string) (string, bool) {
	for id, at := range e {
		if at == address {
			return id, true
		}
	}
	return "", false
}
func (everybody) Key(string) (string, bool)     { return "", false }
func (everybody) Refresh(context.Context) error { return nil }

// pose makes the connections of somebody who has the seal key of a node, and the
// cluster's CA, and has signed itself the name of another one.
func pose(t *testing.T, as string, keyOf *daemontest.Node, stored *fleet.ClusterCA, members everybody) *peer.Network {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(keyOf.Settings.DataDir, "seal.key"))
	require.NoError(t, err)
	seal, err := ca.ParseSealKey(string(text))
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	identity, err := peer.Create(peer.Config{Dir: t.TempDir(), NodeID: as, SealKey: seal, Log: log}, stored)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	network, err := peer.New(peer.NetworkConfig{Listener: listener, Advertise: listener.Addr().String(), Identity: identity, Log: log})
	require.NoError(t, err)
	network.SetMembers(members)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- network.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
	return network
}

// A node that was removed keeps the seal key, and with it the key that signs the
// certificates of nodes. It cannot pose as one of those that stayed, nor, to a node
// that just joins, as the leader.
func TestARemovedNodeCannotPoseAsAMember(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 3, nil)
	leader := c.Leader()
	var gone, stays *daemontest.Node
	for _, n := range c.Nodes {
		if n != leader {
			gone, stays = stays, n
		}
	}
	stored, ok := gone.Node().State().View().ClusterCA()
	require.True(t, ok)
	members := everybody{}
	for _, n := range c.Nodes {
		members[n.ID] = n.PeerAddress()
	}
	gone.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, leader.Node().RemoveMember(ctx, gone.ID, 0, ""))

	posing := pose(t, stays.ID, gone, stored, members)
	_, err := posing.Call(ctx, leader.ID, leader.PeerAddress(), "configuration", nil)
	require.ErrorIs(t, err, peer.ErrOtherKey)
	layer := posing.StreamLayer()
	defer layer.Close()
	_, err = layer.Dial(raft.ServerAddress(leader.PeerAddress()), patience)
	require.ErrorIs(t, err, peer.ErrOtherKey)
	posing = pose(t, leader.ID, gone, stored, members)
	_, err = posing.Call(ctx, stays.ID, stays.PeerAddress(), "term", nil)
	require.ErrorIs(t, err, peer.ErrOtherKey)
	assert.EqualValues(t, 2, leader.Peers().Refused["key"])
	assert.Zero(t, leader.Peers().UnknownKeys)

	// A node that joins was told the members' keys with everything else; before it
	// hears anything of the log, they are all that it can know them by.
	fresh := daemontest.NewNode(t, "fresh", daemontest.Options{})
	fresh.Join(leader.JoinToken())
	leader.Stop()
	stays.Stop()
	ready := fresh.Begin()
	posing = pose(t, leader.ID, gone, stored, everybody{"fresh": fresh.PeerAddress()})
	_, err = posing.Call(ctx, "fresh", fresh.PeerAddress(), "term", nil)
	require.ErrorIs(t, err, peer.ErrOtherKey)
	leader.Start()
	stays.Start()
	select {
	case <-ready:
	case <-ctx.Done():
		require.Fail(t, "the real members are not let in")
	}
	assert.Zero(t, fresh.Peers().UnknownKeys)
}

// A node that has lost its key is not let in with a new one, by which nobody knows
// it. It says so, and is back when the key is.
func TestANodeThatHasLostItsKey(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 3, nil)
	leader := c.Leader()
	n := c.Nodes[2]
	if n == leader {
		n = c.Nodes[1]
	}
	n.Stop()
	key, kept := filepath.Join(n.Settings.DataDir, peer.Directory, "node.key"), filepath.Join(t.TempDir(), "node.key")
	require.NoError(t, os.Rename(key, kept))
	n.Begin()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.Eventually(t, func() bool { return errors.Is(n.Node().Refresh(ctx), peer.ErrOtherKey) }, patience, 50*time.Millisecond)
	require.Eventually(t, func() bool { return leader.Peers().Refused["key"] > 0 }, patience, 50*time.Millisecond)
	n.Stop()

	require.NoError(t, os.Rename(kept, key))
	n.Start()
	leader.Do(fleet.CreateEnrollmentToken{ID: "after", SecretHash: [32]byte{1}, ExpiresAt: time.Now().Add(time.Hour)})
	c.AwaitEqual()

	// One that is a cluster of its own is known by the key that it has.
	alone := daemontest.Start(t, 1, nil).Nodes[0]
	require.Eventually(t, func() bool {
		_, ok := alone.Node().State().View().ClusterNode(alone.ID)
		return ok
	}, patience, 20*time.Millisecond)
	before := daemontest.Fingerprint(t, alone)
	alone.Stop()
	require.NoError(t, os.Remove(filepath.Join(alone.Settings.DataDir, peer.Directory, "node.key")))
	alone.Start()
	require.Eventually(t, func() bool { return daemontest.Fingerprint(t, alone) != before }, patience, 20*time.Millisecond)
}
