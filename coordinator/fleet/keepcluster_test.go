package fleet_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func apiToken(id string, hash byte) fleet.CreateAPIToken {
	return fleet.CreateAPIToken{Actor: "local", ID: id, Name: id, Hash: [32]byte{hash}, Role: fleet.RoleAdmin}
}

// copied is the state of a snapshot of b's state.
func (b *bench) copied() *bench {
	b.t.Helper()
	other := newBench(b.t)
	other.now = b.now
	restore(b.t, other.state, snapshot(b.t, b.state))
	return other
}

func TestARestoreKeepsTheCluster(t *testing.T) {
	old := newBench(t)
	old.enroll("agent")
	old.ok(fleet.InitCA{Authorities: authorities(1)})
	old.ok(fleet.InitClusterCA{Authority: clusterAuthority("old", "")})
	old.ok(fleet.AnnounceNode{Node: clusterNode("old", "k")})
	old.ok(joinToken("old"))
	old.ok(apiToken("first", 1))
	old.ok(apiToken("both", 2))

	live := newBench(t)
	live.ok(fleet.InitClusterCA{Authority: clusterAuthority("live", "")})
	for _, id := range []string{"n1", "n2", "n3"} {
		live.ok(fleet.AnnounceNode{Node: clusterNode(id, "k"+id)})
	}
	live.ok(joinToken("live"))
	live.ok(apiToken("admin", 3))
	live.ok(apiToken("gone", 4))
	for range 4 {
		live.ok(fleet.PublishRevocations{ThisUpdate: testTime, NextUpdate: testTime.Add(time.Hour)})
	}
	live.enroll("lost")
	before := snapshot(t, live.state)

	restored := old.copied()
	require.ErrorContains(t, restored.state.KeepCluster(live.view(), "admin", live.state.Index()), "index")
	require.ErrorContains(t, restored.state.KeepCluster(live.view(), "nobody", 1000), "nobody")
	assert.Equal(t, snapshot(t, old.state), snapshot(t, restored.state), "what failed changed nothing")
	require.NoError(t, restored.state.KeepCluster(live.view(), "admin", 1000))
	assert.Equal(t, before, snapshot(t, live.state))

	restored = restored.copied() // as every node takes it over
	view := restored.view()
	assert.EqualValues(t, 1000, view.Index())
	liveCA, _ := live.view().ClusterCA()
	ca, ok := view.ClusterCA()
	require.True(t, ok)
	assert.Equal(t, liveCA, ca)
	assert.Equal(t, live.view().ClusterNodes(), view.ClusterNodes())
	assert.Equal(t, live.view().JoinTokens(), view.JoinTokens())
	for _, table := range []fleet.Table{fleet.TableClusterCA, fleet.TableNodes, fleet.TableJoinTokens} {
		assert.Equal(t, live.view().Rows(table), view.Rows(table), table)
	}
	for id, want := range map[string]bool{"first": true, "both": true, "admin": true, "gone": false} {
		_, ok := view.APIToken(id)
		assert.Equal(t, want, ok, id)
	}
	restored.agent("agent")
	_, ok = view.Agent("lost")
	assert.False(t, ok)
	_, ok = view.CA()
	assert.True(t, ok, "the fleet's CA is the snapshot's")
	for _, table := range fleet.Tables() {
		assert.EqualValues(t, 1000, view.Version(table), table)
	}

	// It goes on: the numbers of audit facts and of lists do not come twice.
	restored.ok(fleet.NoteRestore{Actor: "api_token:admin", Snapshot: "old"})
	assert.Equal(t, live.facts[len(live.facts)-1].Audit+1, restored.lastFact().Audit)
	_, behind, ok := view.NewestList()
	require.True(t, ok)
	assert.True(t, behind)
	var list fleet.RevocationList
	require.NoError(t, restored.ok(fleet.PublishRevocations{ThisUpdate: testTime, NextUpdate: testTime.Add(time.Hour)}).Decode(&list))
	assert.EqualValues(t, 6, list.Number, "the fifth is that of the restored state")
	assert.True(t, restored.do(enrolment("token", "lost")).OK())
	assert.True(t, restored.do(use("live", clusterNode("n4", "k4"))).OK())
	assert.Equal(t, wire.CodeTokenUnknown, restored.do(use("old", clusterNode("n5", "k5"))).Code)
}

func TestTheKeptTokenReplacesWhatHasItsIDOrSecret(t *testing.T) {
	for name, inSnapshot := range map[string][]fleet.CreateAPIToken{
		"the same":               {apiToken("admin", 1)},
		"its id":                 {apiToken("admin", 9)},
		"its secret":             {apiToken("other", 1)},
		"its id, and its secret": {apiToken("admin", 9), apiToken("other", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			old, live := newBench(t), newBench(t)
			old.ok(apiToken("stays", 7))
			for _, p := range inSnapshot {
				old.ok(p)
			}
			old.do(fleet.RevokeAPIToken{ID: "admin"})
			live.ok(apiToken("admin", 1))
			require.NoError(t, old.state.KeepCluster(live.view(), "admin", 50))
			view := old.copied().view()
			token, ok := view.APITokenByHash([32]byte{1})
			require.True(t, ok)
			assert.Equal(t, "admin", token.ID)
			assert.True(t, token.Usable(testTime))
			_, ok = view.APITokenByHash([32]byte{9})
			assert.False(t, ok)
			assert.Len(t, view.APITokens(), 2)
		})
	}
}

// TestKeepClusterOfAnyStates: whatever the two states are, the outcome is a state
// that a snapshot carries and that goes on like any other.
func TestKeepClusterOfAnyStates(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		benches := []*bench{newBench(rt), newBench(rt)}
		for _, b := range benches {
			for range rapid.IntRange(0, 20).Draw(rt, "entries") {
				b.entry(b.command(randomPayload(rt, b.now)))
			}
		}
		old, live := benches[0], benches[1]
		id := ""
		if tokens := live.view().APITokens(); len(tokens) > 0 {
			id = tokens[0].ID
		}
		index := max(old.state.Index(), live.state.Index()) + 1 + small(rt, "gap")
		require.NoError(rt, old.state.KeepCluster(live.view(), id, index))
		other := old.copied()
		for range rapid.IntRange(0, 5).Draw(rt, "after") {
			command := other.command(randomPayload(rt, old.now))
			require.Equal(rt, old.entry(command), other.entry(command))
		}
		require.True(rt, bytes.Equal(snapshot(rt, old.state), snapshot(rt, other.state)))
		for _, token := range other.view().APITokens() {
			byHash, ok := other.view().APITokenByHash(token.Hash)
			require.True(rt, ok)
			require.Equal(rt, token, byHash)
		}
	})
}
