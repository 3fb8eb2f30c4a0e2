package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/trust"
)

// complete checks what a coordinator must have before it serves.
func complete(t *testing.T, node BootstrapNode, authority *ca.CA, dir string) apitoken.Token {
	t.Helper()
	view := node.State().View()
	stored, ok := view.CA()
	require.True(t, ok)
	require.NotNil(t, authority.Root())
	assert.Equal(t, stored.Authorities[0].Certificate, authority.Root().Raw)
	root, err := os.ReadFile(filepath.Join(dir, RootFile))
	require.NoError(t, err)
	assert.Equal(t, authority.RootsPEM(), string(root))

	text, err := os.ReadFile(filepath.Join(dir, AdminTokenFile))
	require.NoError(t, err)
	token, err := apitoken.Parse(string(text))
	require.NoError(t, err)
	kept, ok := view.APIToken(token.ID)
	require.True(t, ok, "the state knows the token that is in the file")
	assert.True(t, token.Matches(kept.Hash))
	assert.Equal(t, fleet.RoleAdmin, kept.Role)
	assert.True(t, kept.Usable(time.Now()))
	if filepath.Separator == '/' {
		for name, mode := range map[string]os.FileMode{AdminTokenFile: 0o600, RootFile: 0o644, "seal.key": 0o600} {
			info, err := os.Stat(filepath.Join(dir, name))
			require.NoError(t, err)
			assert.Equal(t, mode, info.Mode().Perm(), name)
		}
	}
	return token
}

func TestBootstrap(t *testing.T) {
	node, authority, dir := bootstrapped(t)
	token := complete(t, node, authority, dir)

	index := node.AppliedIndex()
	again := newCA(t, dir)
	require.NoError(t, Bootstrap(t.Context(), node, again, dir, quiet))
	assert.Equal(t, index, node.AppliedIndex(), "a later start changes nothing")
	assert.Equal(t, token, complete(t, node, again, dir))
	assert.True(t, again.Root().Equal(authority.Root()))

	// A root file that was lost or changed is written again.
	require.NoError(t, os.WriteFile(filepath.Join(dir, RootFile), []byte("x"), 0o644))
	require.NoError(t, Bootstrap(t.Context(), node, newCA(t, dir), dir, quiet))
	complete(t, node, again, dir)
}

// A crash before or after any of the changes is continued by the next start,
// and so is a change of leadership, by the same one.
func TestBootstrapFaults(t *testing.T) {
	crash := errors.New("crash")
	unknown := &cluster.UnknownOutcomeError{Err: errors.New("leadership lost")}
	for name, c := range map[string]struct {
		before, after map[int]error
		crashes       bool
	}{
		"before the CA is stored":        {before: map[int]error{1: crash}, crashes: true},
		"after the CA is stored":         {after: map[int]error{1: crash}, crashes: true},
		"before the token is stored":     {before: map[int]error{2: crash}, crashes: true},
		"after the token is stored":      {after: map[int]error{2: crash}, crashes: true},
		"leadership lost before the CA":  {before: map[int]error{1: cluster.ErrNotLeader}},
		"leadership lost after the CA":   {after: map[int]error{1: unknown}},
		"leadership lost at the token":   {before: map[int]error{2: cluster.ErrNotLeader}},
		"leadership lost after a change": {after: map[int]error{2: unknown}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			node := &testNode{Node: clustertest.Start(t), before: c.before, after: c.after}
			authority := newCA(t, dir)
			err := Bootstrap(t.Context(), node, authority, dir, quiet)
			if c.crashes {
				require.ErrorIs(t, err, crash)
				authority = newCA(t, dir)
				err = Bootstrap(t.Context(), node, authority, dir, quiet)
			}
			require.NoError(t, err)
			complete(t, node, authority, dir)
			assert.Len(t, node.State().View().APITokens(), 1, "there is no token that nobody has")
		})
	}
}

// Who has revoked all tokens, or lost them, gets back in from the coordinator's
// own disk.
func TestBootstrapMakesANewAdmin(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, *testNode, string, apitoken.Token){
		"revoked": func(*testing.T, *testNode, string, apitoken.Token) {},
		"revoked, file gone": func(t *testing.T, _ *testNode, dir string, _ apitoken.Token) {
			require.NoError(t, os.Remove(filepath.Join(dir, AdminTokenFile)))
		},
		"revoked, file damaged": func(t *testing.T, _ *testNode, dir string, _ apitoken.Token) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, AdminTokenFile), []byte("note to self"), 0o600))
		},
		"only viewers left": func(_ *testing.T, n *testNode, _ string, _ apitoken.Token) {
			other := apitoken.New()
			n.Do(fleet.CreateAPIToken{ID: other.ID, Hash: other.Hash(), Role: fleet.RoleViewer})
		},
	} {
		t.Run(name, func(t *testing.T) {
			node, authority, dir := bootstrapped(t)
			first := complete(t, node, authority, dir)
			require.NoError(t, node.Do(fleet.RevokeAPIToken{ID: first.ID}).Err())
			lose(t, node, dir, first)
			require.NoError(t, Bootstrap(t.Context(), node, newCA(t, dir), dir, quiet))
			assert.NotEqual(t, first.ID, complete(t, node, authority, dir).ID)
		})
	}
	t.Run("another admin is there", func(t *testing.T) {
		node, authority, dir := bootstrapped(t)
		first := complete(t, node, authority, dir)
		other := apitoken.New()
		require.NoError(t, node.Do(fleet.CreateAPIToken{ID: other.ID, Hash: other.Hash(), Role: fleet.RoleAdmin}).Err())
		require.NoError(t, node.Do(fleet.RevokeAPIToken{ID: first.ID}).Err())
		index := node.AppliedIndex()
		require.NoError(t, Bootstrap(t.Context(), node, newCA(t, dir), dir, quiet))
		assert.Equal(t, index, node.AppliedIndex())
	})
}

func TestBootstrapWithoutItsSealKey(t *testing.T) {
	node, _, dir := bootstrapped(t)
	index := node.AppliedIndex()
	require.NoError(t, os.Remove(filepath.Join(dir, "seal.key")))
	err := Bootstrap(t.Context(), node, newCA(t, dir), dir, quiet)
	require.ErrorIs(t, err, ca.ErrSealKeyMissing)
	assert.Contains(t, err.Error(), "restore it from its backup")
	assert.NoFileExists(t, filepath.Join(dir, "seal.key"), "another key would open nothing")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "seal.key"), []byte(ca.NewSealKey().Reveal()), 0o600))
	require.ErrorIs(t, Bootstrap(t.Context(), node, newCA(t, dir), dir, quiet), ca.ErrWrongSealKey)
	assert.Equal(t, index, node.AppliedIndex())
}

func TestBootstrapInADirectoryThatCannotBeWritten(t *testing.T) {
	node := &testNode{Node: clustertest.Start(t)}
	dir := filepath.Join(t.TempDir(), "gone")
	require.Error(t, Bootstrap(t.Context(), node, newCA(t, dir), dir, quiet))
	_, ok := node.State().View().CA()
	assert.False(t, ok, "a CA whose seal key is nowhere is not stored")
}

// Before the log is applied, a CA that exists looks like none: nothing may be
// made then.
func TestBootstrapWaitsForTheState(t *testing.T) {
	dir := t.TempDir()
	node := &testNode{Node: clustertest.Start(t)}
	node.readiness.Store(&cluster.Readiness{Running: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, Bootstrap(ctx, node, newCA(t, dir), dir, quiet), context.DeadlineExceeded)
	assert.Zero(t, node.proposals)
	assert.NoFileExists(t, filepath.Join(dir, "seal.key"))

	// A follower waits for the leader's CA and makes no token.
	leaderDir := t.TempDir()
	follower := &cluster.Readiness{Running: true, LeaderKnown: true, Applied: true}
	node.readiness.Store(follower)
	done := make(chan error, 1)
	authority, err := ca.New(ca.Config{SealKeyFile: filepath.Join(leaderDir, "seal.key"), Name: "Example", LeafLifetime: time.Hour, IdentityLifetime: time.Hour})
	require.NoError(t, err)
	go func() { done <- Bootstrap(t.Context(), node, authority, dir, quiet) }()
	leader := newCA(t, leaderDir)
	authorities, err := leader.Create()
	require.NoError(t, err)
	require.NoError(t, node.Do(fleet.InitCA{Authorities: authorities}).Err())
	require.NoError(t, <-done)
	assert.NotNil(t, authority.Root())
	assert.NoFileExists(t, filepath.Join(dir, AdminTokenFile))
	assert.Zero(t, node.proposals)
}

// A state that was stored before there were generations of trust gets its first
// one at the next start, once.
func TestBootstrapOfAnEarlierState(t *testing.T) {
	node, dir := clustertest.Start(t), t.TempDir()
	authority := newCA(t, dir)
	authorities, err := authority.Create()
	require.NoError(t, err)
	require.NoError(t, node.Do(fleet.InitCA{Actor: "local", Authorities: authorities}).Err())
	for range 2 {
		require.NoError(t, Bootstrap(t.Context(), node, newCA(t, dir), dir, quiet))
		stored, ok := node.State().View().CA()
		require.True(t, ok)
		require.Len(t, stored.Generations, 1)
		first, err := trust.Parse(stored.Generations[0])
		require.NoError(t, err)
		assert.Equal(t, stored.CreatedAt.Unix(), first.CreatedAt.Unix())
		assert.Equal(t, authorities[0].Certificate, first.Roots[0].Raw)
		assert.Equal(t, authorities, stored.Authorities)
	}
}
