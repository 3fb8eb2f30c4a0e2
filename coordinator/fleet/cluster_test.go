package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func clusterAuthority(name string, state fleet.AuthorityState) fleet.ClusterAuthority {
	return fleet.ClusterAuthority{Certificate: []byte("certificate " + name), SealedKey: []byte("sealed " + name), State: state}
}

func clusterNode(id, key string) fleet.ClusterNode {
	return fleet.ClusterNode{ID: id, Address: id + ".example.com:8444", URL: "https://" + id + ".example.com:8443", Version: "1.0.0", Level: 2, KeyFingerprint: key}
}

func joinToken(id string) fleet.CreateJoinToken {
	return fleet.CreateJoinToken{Actor: "api_token:admin", ID: id, SecretHash: [32]byte{42}, Description: "third node", ExpiresAt: testTime.Add(time.Hour)}
}

func use(id string, node fleet.ClusterNode) fleet.UseJoinToken {
	return fleet.UseJoinToken{ID: id, SecretHash: [32]byte{42}, Node: node}
}

func (b *bench) lastFact() fleet.Fact {
	b.t.Helper()
	require.NotEmpty(b.t, b.facts)
	return b.facts[len(b.facts)-1]
}

func TestTheClusterCAIsMadeOnce(t *testing.T) {
	b := newBench(t)
	_, ok := b.view().ClusterCA()
	assert.False(t, ok)
	assert.Equal(t, wire.CodeNotFound, b.do(fleet.ChangeClusterCA{Authorities: []fleet.ClusterAuthority{clusterAuthority("a", "")}}).Code)
	assert.Equal(t, wire.CodeInvalid, b.do(fleet.InitClusterCA{Authority: clusterAuthority("a", fleet.AuthorityPublished)}).Code)

	var made, again fleet.InitializedClusterCA
	require.NoError(t, b.ok(fleet.InitClusterCA{Actor: "local", Authority: clusterAuthority("a", "")}).Decode(&made))
	assert.True(t, made.Created)
	fact := b.lastFact()
	assert.Equal(t, fleet.KindClusterCACreated, fact.Kind)
	assert.NotZero(t, fact.Audit)
	assert.NotContains(t, string(fact.Detail), "sealed")
	require.NoError(t, b.ok(fleet.InitClusterCA{Actor: "local", Authority: clusterAuthority("b", "")}).Decode(&again))
	assert.False(t, again.Created)
	assert.Equal(t, made.CA, again.CA, "who comes second gets the first one's")
	stored, ok := b.view().ClusterCA()
	require.True(t, ok)
	assert.Equal(t, made.CA, *stored)
	assert.Len(t, b.facts, 1)
}

func TestChangeClusterCA(t *testing.T) {
	b := newBench(t)
	b.ok(fleet.InitClusterCA{Authority: clusterAuthority("a", "")})
	first, _ := b.view().ClusterCA()
	published := []fleet.ClusterAuthority{clusterAuthority("a", ""), clusterAuthority("b", fleet.AuthorityPublished)}
	change := fleet.ChangeClusterCA{Actor: "api_token:x", PrevIndex: first.ModifyIndex, Authorities: published}
	var changed fleet.ClusterCA
	require.NoError(t, b.ok(change).Decode(&changed))
	assert.Equal(t, published, changed.Authorities)
	assert.Greater(t, changed.ModifyIndex, first.ModifyIndex)
	assert.Len(t, first.Authorities, 1, "who reads an earlier state sees that state")
	fact := b.lastFact()
	assert.Equal(t, fleet.KindClusterCAChanged, fact.Kind)
	assert.NotZero(t, fact.Audit)
	assert.Contains(t, string(fact.Detail), published[1].Fingerprint())
	assert.Equal(t, wire.CodeConflict, b.do(change).Code, "it was made for the CA before")

	many := []fleet.ClusterAuthority{clusterAuthority("0", "")}
	for i := range fleet.MaxClusterAuthorities {
		many = append(many, clusterAuthority(fmt.Sprint(i+1), fleet.AuthorityRetiring))
	}
	keyless := clusterAuthority("c", fleet.AuthorityPublished)
	keyless.SealedKey = nil
	for name, list := range map[string][]fleet.ClusterAuthority{
		"none":              nil,
		"too many":          many,
		"two that sign":     {clusterAuthority("a", ""), clusterAuthority("b", "")},
		"none that signs":   {clusterAuthority("a", fleet.AuthorityRetiring)},
		"not in order":      {clusterAuthority("a", fleet.AuthorityPublished), clusterAuthority("b", "")},
		"twice the same":    {clusterAuthority("a", ""), clusterAuthority("a", fleet.AuthorityRetiring)},
		"an unknown state":  {clusterAuthority("a", ""), clusterAuthority("b", fleet.AuthorityRetired)},
		"no key to sign by": {clusterAuthority("a", ""), keyless},
		"no certificate":    {{SealedKey: []byte("k")}},
		"large certificate": {{Certificate: make([]byte, 9<<10), SealedKey: []byte("k")}},
		"large key":         {{Certificate: []byte("c"), SealedKey: make([]byte, 5<<10)}},
	} {
		refused := b.do(fleet.ChangeClusterCA{PrevIndex: changed.ModifyIndex, Authorities: list})
		assert.Equal(t, wire.CodeInvalid, refused.Code, name)
		assert.True(t, strings.HasPrefix(refused.Field, "authorities"), name)
	}
	gone := clusterAuthority("a", fleet.AuthorityRetiring)
	gone.SealedKey = nil
	b.ok(fleet.ChangeClusterCA{PrevIndex: changed.ModifyIndex, Authorities: []fleet.ClusterAuthority{clusterAuthority("b", ""), gone}})
}

func TestAJoinTokenLetsOneNodeIn(t *testing.T) {
	b := newBench(t)
	b.ok(joinToken("join"))
	assert.Equal(t, wire.CodeConflict, b.do(joinToken("join")).Code)
	assert.Equal(t, wire.CodeTokenUnknown, b.do(use("none", clusterNode("n2", "k2"))).Code)
	wrong := use("join", clusterNode("n2", "k2"))
	wrong.SecretHash = [32]byte{1}
	assert.Equal(t, b.do(use("none", clusterNode("n2", "k2"))), b.do(wrong), "ids cannot be probed")

	var joined, again fleet.JoinedNode
	require.NoError(t, b.ok(use("join", clusterNode("n2", "k2"))).Decode(&joined))
	assert.False(t, joined.Repeated)
	assert.Equal(t, testTime, joined.Node.JoinedAt)
	fact := b.lastFact()
	assert.Equal(t, fleet.KindNodeJoined, fact.Kind)
	assert.Equal(t, "join_token:join", fact.Actor)
	assert.Equal(t, "n2", fact.Object)
	assert.NotZero(t, fact.Audit)
	token, ok := b.view().JoinToken("join")
	require.True(t, ok)
	assert.Equal(t, "n2", token.UsedBy)
	assert.False(t, token.Open(testTime))

	// The answer was lost, for longer than the token lasts.
	b.now = b.now.Add(2 * time.Hour)
	facts := len(b.facts)
	require.NoError(t, b.ok(use("join", clusterNode("n2", "k2"))).Decode(&again))
	assert.True(t, again.Repeated)
	assert.Equal(t, joined.Node, again.Node)
	assert.Len(t, b.facts, facts)
	moved := clusterNode("n2", "k2")
	moved.Address = "n2.example.org:8444"
	require.NoError(t, b.ok(use("join", moved)).Decode(&again))
	assert.Equal(t, moved.Address, again.Node.Address, "it may have moved meanwhile")
	assert.Equal(t, testTime, again.Node.JoinedAt)

	assert.Equal(t, wire.CodeTokenUsed, b.do(use("join", clusterNode("n3", "k3"))).Code)
	assert.Equal(t, wire.CodeTokenUsed, b.do(use("join", clusterNode("n3", "k2"))).Code)
	assert.Len(t, b.view().ClusterNodes(), 1)

	b.ok(fleet.ForgetNode{Actor: "api_token:x", ID: "n2"})
	assert.Equal(t, fleet.KindNodeRemoved, b.lastFact().Kind)
	assert.NotZero(t, b.lastFact().Audit)
	b.ok(fleet.NoteTransfer{Actor: "api_token:x", From: "n1", To: "n2"})
	assert.Equal(t, fleet.KindTransferAsked, b.lastFact().Kind)
	assert.Equal(t, "api_token:x", b.lastFact().Actor)
	assert.NotZero(t, b.lastFact().Audit)
	assert.JSONEq(t, `{"from":"n1","to":"n2"}`, string(b.lastFact().Detail))
	refused := b.do(use("join", clusterNode("n2", "k2")))
	assert.Equal(t, wire.CodeTokenUsed, refused.Code)
	assert.Contains(t, refused.Detail, "removed", "who was removed does not come back by itself")
	assert.Equal(t, wire.CodeNotFound, b.do(fleet.ForgetNode{ID: "n2"}).Code)
}

func TestJoinTokensThatAreNoGood(t *testing.T) {
	b := newBench(t)
	for _, id := range []string{"revoked", "expired", "used"} {
		b.ok(joinToken(id))
	}
	assert.Equal(t, wire.CodeNotFound, b.do(fleet.RevokeJoinToken{ID: "none"}).Code)
	b.ok(fleet.RevokeJoinToken{Actor: "api_token:x", ID: "revoked"})
	assert.Equal(t, fleet.KindJoinTokenRevoked, b.lastFact().Kind)
	facts := len(b.facts)
	b.ok(fleet.RevokeJoinToken{Actor: "api_token:x", ID: "revoked"})
	assert.Len(t, b.facts, facts)
	assert.Equal(t, wire.CodeTokenRevoked, b.do(use("revoked", clusterNode("n2", "k2"))).Code)
	b.ok(use("used", clusterNode("n2", "k2")))
	b.ok(fleet.RevokeJoinToken{ID: "used"})
	assert.Equal(t, wire.CodeTokenRevoked, b.do(use("used", clusterNode("n2", "k2"))).Code, "it gives its answer no more")
	assert.Equal(t, wire.CodeConflict, b.do(use("expired", clusterNode("n2", "other"))).Code, "an id cannot be taken over")
	b.now = testTime.Add(time.Hour)
	assert.Equal(t, wire.CodeTokenExpired, b.do(use("expired", clusterNode("n3", "k3"))).Code)

	for field, change := range map[string]func(p *fleet.CreateJoinToken){
		"id":          func(p *fleet.CreateJoinToken) { p.ID = strings.Repeat("x", 41) },
		"description": func(p *fleet.CreateJoinToken) { p.Description = strings.Repeat("x", 257) },
		"expires_at":  func(p *fleet.CreateJoinToken) { p.ExpiresAt = b.now },
	} {
		p := joinToken("bad")
		p.ExpiresAt = b.now.Add(time.Hour)
		change(&p)
		refused := b.do(p)
		assert.Equal(t, wire.CodeInvalid, refused.Code, field)
		assert.Equal(t, field, refused.Field)
	}
	long := joinToken("long")
	long.ExpiresAt = b.now.Add(fleet.MaxJoinTokenLife + 1)
	assert.Equal(t, wire.CodeInvalid, b.do(long).Code)
}

func TestJoinTokensHaveBounds(t *testing.T) {
	b := newBench(t)
	create := func(i int) fleet.Result {
		p := joinToken(fmt.Sprintf("token%04d", i))
		p.ExpiresAt = b.now.Add(time.Hour)
		return b.do(p)
	}
	for i := range fleet.MaxOpenJoinTokens {
		require.True(t, create(i).OK())
	}
	assert.Equal(t, wire.CodeOverloaded, create(64).Code)
	b.ok(fleet.RevokeJoinToken{ID: "token0000"})
	assert.True(t, create(64).OK(), "one that was revoked makes room")
	b.now = b.now.Add(2 * time.Hour)
	for i := 65; i < 500; i++ {
		b.now = b.now.Add(2 * time.Minute)
		require.True(t, create(i).OK(), i)
		require.LessOrEqual(t, b.view().Rows(fleet.TableJoinTokens), 256)
	}
	_, ok := b.view().JoinToken("token0001")
	assert.False(t, ok, "those that ended first are dropped")
	b.now = b.now.Add(31 * 24 * time.Hour)
	require.True(t, create(500).OK())
	assert.Equal(t, 1, b.view().Rows(fleet.TableJoinTokens))
}

func TestNodesSayWhatTheyAre(t *testing.T) {
	b := newBench(t)
	node := clusterNode("n1", "k1")
	b.ok(fleet.AnnounceNode{Node: node})
	assert.Equal(t, fleet.KindNodeJoined, b.lastFact().Kind)
	first, ok := b.view().ClusterNode("n1")
	require.True(t, ok)
	b.now = b.now.Add(time.Minute)
	b.ok(fleet.AnnounceNode{Node: node})
	again, _ := b.view().ClusterNode("n1")
	assert.Equal(t, first, again, "what is known changes nothing")

	facts := len(b.facts)
	node.Trusts, node.CertificateNotAfter = []string{"r1"}, testTime
	b.ok(fleet.AnnounceNode{Node: node})
	assert.Len(t, b.facts, facts, "a renewed certificate is no news")
	node.Version = "1.1.0"
	b.ok(fleet.AnnounceNode{Node: node})
	assert.Equal(t, fleet.KindNodeChanged, b.lastFact().Kind)
	assert.Zero(t, b.lastFact().Audit)
	changed, _ := b.view().ClusterNode("n1")
	assert.Equal(t, first.JoinedAt, changed.JoinedAt)
	assert.Equal(t, b.now, changed.UpdatedAt)
	assert.Equal(t, "1.1.0", changed.Version)

	for field, change := range map[string]func(n *fleet.ClusterNode){
		"node.id":              func(n *fleet.ClusterNode) { n.ID = "" },
		"node.address":         func(n *fleet.ClusterNode) { n.Address = "a\nb" },
		"node.url":             func(n *fleet.ClusterNode) { n.URL = strings.Repeat("x", 513) },
		"node.version":         func(n *fleet.ClusterNode) { n.Version = strings.Repeat("x", 129) },
		"node.key_fingerprint": func(n *fleet.ClusterNode) { n.KeyFingerprint = strings.Repeat("x", 65) },
		"node.signer":          func(n *fleet.ClusterNode) { n.Signer = strings.Repeat("x", 65) },
		"node.trusts":          func(n *fleet.ClusterNode) { n.Trusts = make([]string, fleet.MaxClusterAuthorities+1) },
		"node.level":           func(n *fleet.ClusterNode) { n.Level = 0 },
	} {
		bad := node
		change(&bad)
		refused := b.do(fleet.AnnounceNode{Node: bad})
		assert.Equal(t, wire.CodeInvalid, refused.Code, field)
		assert.Equal(t, field, refused.Field)
	}

	for i := 1; i < fleet.MaxClusterNodes; i++ {
		b.ok(fleet.AnnounceNode{Node: clusterNode(fmt.Sprintf("more%d", i), "k")})
	}
	assert.Equal(t, wire.CodeOverloaded, b.do(fleet.AnnounceNode{Node: clusterNode("last", "k")}).Code)
	b.ok(joinToken("join"))
	assert.Equal(t, wire.CodeOverloaded, b.do(use("join", clusterNode("last", "k"))).Code)
	token, _ := b.view().JoinToken("join")
	assert.True(t, token.Open(testTime), "a refused use spends nothing")
}

func TestARestoreIsNoted(t *testing.T) {
	b := newBench(t)
	b.ok(fleet.NoteRestore{Actor: "api_token:x", Snapshot: "monday.snapshot", TakenAt: testTime, SnapshotIndex: 7, ReplacedIndex: 9, Digest: "ab"})
	fact := b.lastFact()
	assert.Equal(t, fleet.KindStateRestored, fact.Kind)
	assert.NotZero(t, fact.Audit)
	assert.JSONEq(t, `{"snapshot":"monday.snapshot","snapshot_index":7,"replaced_index":9,"cluster_id":"","sha256":"ab","taken_at":"2026-05-01T12:00:00Z"}`, string(fact.Detail))
	assert.Equal(t, wire.CodeInvalid, b.do(fleet.NoteRestore{Snapshot: strings.Repeat("x", 257)}).Code)
}

func TestThatHistoryIsPrunedIsNoted(t *testing.T) {
	b := newBench(t)
	b.ok(fleet.NotePrune{Actor: "api_token:x", Before: testTime, Months: 2, First: "2025-01", Last: "2025-02", Facts: 9})
	fact := b.lastFact()
	assert.Equal(t, fleet.KindHistoryPruned, fact.Kind)
	assert.Equal(t, "api_token:x", fact.Actor)
	assert.NotZero(t, fact.Audit)
	assert.JSONEq(t, `{"before":"2026-05-01T12:00:00Z","months":2,"first":"2025-01","last":"2025-02","facts":9}`, string(fact.Detail))
	assert.Equal(t, wire.CodeInvalid, b.do(fleet.NotePrune{First: "2025-01"}).Code)
	assert.Equal(t, wire.CodeInvalid, b.do(fleet.NotePrune{Before: testTime, First: "2025-01-01 00"}).Code)
	assert.Equal(t, wire.CodeInvalid, b.do(fleet.NotePrune{Before: testTime, Last: "2025-01-01 00"}).Code)
}
