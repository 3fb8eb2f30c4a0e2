package daemon_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/coordinator/daemon"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/wire"
)

// operatorOf talks to a node as the administrator of the first start.
func operatorOf(t *testing.T, first, n *daemontest.Node) *client.Client {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(first.Settings.DataDir, server.AdminTokenFile))
	require.NoError(t, err)
	token, err := apitoken.Parse(string(text[:len(text)-1]))
	require.NoError(t, err)
	roots, err := os.ReadFile(filepath.Join(first.Settings.DataDir, server.RootFile))
	require.NoError(t, err)
	c, err := client.New(client.Config{Servers: []string{n.URL()}, Token: token, Roots: string(roots)})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// The leader of three leaves by request: refused first, since the two that remain
// would bear no failure, then forced. It hands over, is out, ends by itself, and does
// not start until its directory was cleared on purpose; then it joins again under its
// name.
func TestALeaderLeaves(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 3, nil)
	leaver := c.Leader()
	first := c.Nodes[0]
	operator := operatorOf(t, first, leaver)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ask := func(wish resource.LeaveCluster) (*resource.Departure, error) { return operator.LeaveCluster(ctx, wish) }

	plan, err := ask(resource.LeaveCluster{DryRun: true})
	require.NoError(t, err)
	assert.True(t, plan.Leader)
	assert.Equal(t, 1, plan.ToleranceBefore)
	assert.Zero(t, plan.ToleranceAfter)
	assert.Len(t, plan.Remaining, 2)
	assert.True(t, plan.Forcible)
	assert.Contains(t, plan.Refusal, "bears no failure any more")
	_, err = ask(resource.LeaveCluster{})
	problem, ok := errors.AsType[*wire.Problem](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, wire.CodeConflict, problem.Code)
	_, err = ask(resource.LeaveCluster{Force: true, PrevIndex: plan.ConfigurationIndex - 1})
	require.Error(t, err, "the members are other ones than the caller has seen")
	require.True(t, leaver.Node().Ready().Member)

	done, err := ask(resource.LeaveCluster{Force: true, PrevIndex: plan.ConfigurationIndex})
	require.NoError(t, err)
	assert.True(t, done.Left)
	left, ok := errors.AsType[*daemon.LeftError](leaver.Ended())
	require.True(t, ok)
	assert.Equal(t, leaver.ID, left.NodeID)

	// The others are a cluster of two that stores, and knows nothing of it.
	rest := slices.DeleteFunc(slices.Clone(c.Nodes), func(n *daemontest.Node) bool { return n == leaver })
	require.Eventually(t, func() bool {
		members, _ := rest[0].Node().Members()
		id, _ := rest[0].Node().Leader()
		_, known := rest[0].Node().State().View().ClusterNode(leaver.ID)
		return len(members) == 2 && id != "" && id != leaver.ID && !known
	}, patience, 20*time.Millisecond)

	// It does not start, whatever it is told, and says how it can join again.
	refused := func(err error) {
		t.Helper()
		_, left := errors.AsType[*daemon.LeftError](err)
		require.True(t, left, "%v", err)
		assert.ErrorContains(t, err, "certctl-coordinator join --put-aside")
	}
	refused(leaver.TryStart())
	_, err = daemon.SetUpAs(leaver.Settings.DataDir)
	refused(err)
	token := rest[0].JoinToken()
	_, err = leaver.TryJoin(token)
	refused(err)

	aside, err := daemon.PutAside(leaver.Settings.DataDir)
	require.NoError(t, err)
	assert.DirExists(t, filepath.Join(aside, "raft"))
	again, err := daemon.PutAside(leaver.Settings.DataDir)
	require.NoError(t, err)
	assert.Empty(t, again, "there is nothing to put aside any more")
	leaver.Join(token)
	leaver.Start()
	require.Eventually(t, func() bool {
		members, _ := rest[0].Node().Members()
		voters := 0
		for _, m := range members {
			if m.Voter {
				voters++
			}
		}
		return voters == 3
	}, patience, 50*time.Millisecond, "it is a member again")
}

// A leader that is asked to remove itself says that it is removed, and ends: it would
// have no answer to wait for, as the others talk to it no more.
func TestALeaderRemovesItself(t *testing.T) {
	t.Parallel()
	c := daemontest.Start(t, 3, nil)
	leaver := c.Leader()
	operator := operatorOf(t, c.Nodes[0], leaver)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	members, err := operator.RemoveMember(ctx, client.RemoveMemberParams{ID: leaver.ID})
	require.NoError(t, err)
	assert.Len(t, members.Items, 2)
	assert.False(t, slices.ContainsFunc(members.Items, func(m resource.Member) bool { return m.ID == leaver.ID }))
	left, ok := errors.AsType[*daemon.LeftError](leaver.Ended())
	require.True(t, ok)
	assert.Equal(t, leaver.ID, left.NodeID)
	rest := slices.DeleteFunc(slices.Clone(c.Nodes), func(n *daemontest.Node) bool { return n == leaver })
	require.Eventually(t, func() bool {
		members, _ := rest[0].Node().Members()
		_, known := rest[0].Node().State().View().ClusterNode(leaver.ID)
		return len(members) == 2 && !known
	}, patience, 20*time.Millisecond)
}

// The only node is the cluster, and does not leave.
func TestTheOnlyNodeDoesNotLeave(t *testing.T) {
	t.Parallel()
	n := daemontest.NewNode(t, "alone", daemontest.Options{})
	n.Start()
	operator := operatorOf(t, n, n)
	_, err := operator.LeaveCluster(t.Context(), resource.LeaveCluster{Force: true})
	require.ErrorContains(t, err, "only one with a vote")
	_, err = operator.RemoveMember(t.Context(), client.RemoveMemberParams{ID: "alone", Force: true})
	require.ErrorContains(t, err, "only one with a vote")
	assert.True(t, n.Node().Ready().Member)
}

// What a node had is put aside whatever happens in between.
func TestPutAsideGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("left.json", `{"node_id":"c2","time":"2026-01-02T03:04:05Z","actor":"root"}`)
	write("node-id", "c2\n")
	write("seal.key", "key")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "raft"), 0o700))
	// An attempt was cut off after the first piece.
	aside := filepath.Join(dir, "left-20260102T030405Z")
	require.NoError(t, os.Mkdir(aside, 0o700))
	require.NoError(t, os.Rename(filepath.Join(dir, "raft"), filepath.Join(aside, "raft")))
	_, err := daemon.SetUpAs(dir)
	require.Error(t, err, "it has left until all is aside")
	got, err := daemon.PutAside(dir)
	require.NoError(t, err)
	assert.Equal(t, aside, got)
	for _, name := range []string{"raft", "seal.key", "left.json"} {
		_, err := os.Lstat(filepath.Join(aside, name))
		require.NoError(t, err, name)
	}
	id, err := daemon.SetUpAs(dir)
	require.NoError(t, err)
	assert.Empty(t, id)
	write("left.json", "{")
	_, err = daemon.PutAside(dir)
	require.ErrorContains(t, err, "cannot be read")
}
