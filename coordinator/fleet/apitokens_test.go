package fleet_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// Nodes of before do not know of scopes: what they can apply has none.
func TestWhatLimitsATokenNeedsNodesThatKnowIt(t *testing.T) {
	b := newBench(t)
	plain := fleet.CreateAPIToken{ID: "t1", Hash: [32]byte{1}, Role: fleet.RoleViewer}
	assert.EqualValues(t, 1, fleet.RequiredLevel(b.command(plain)))
	scoped, fixed := plain, plain
	scoped.Scope = fleet.Scope{"env": {"prod"}}
	fixed.FixedExpiry = true
	assert.EqualValues(t, 4, fleet.RequiredLevel(b.command(scoped)))
	assert.EqualValues(t, 4, fleet.RequiredLevel(b.command(fixed)))
	assert.EqualValues(t, 4, fleet.RequiredLevel(b.command(fleet.RotateAPIToken{ID: "t1"})))
}

func TestScopesAreStoredOrRefused(t *testing.T) {
	b := newBench(t)
	many := fleet.Scope{}
	for i := range fleet.MaxScopeLabels + 1 {
		many[string(rune('a'+i))] = []string{"x"}
	}
	for name, scope := range map[string]fleet.Scope{
		"a label without values": {"env": nil}, "values out of order": {"env": {"b", "a"}}, "a value twice": {"env": {"a", "a"}},
		"a value that no selector has": {"env": {"a b"}}, "a label that no selector has": {"a b": {"x"}}, "too many labels": many,
	} {
		assert.Equal(t, wire.CodeInvalid, b.do(fleet.CreateAPIToken{ID: "t1", Hash: [32]byte{1}, Role: fleet.RoleViewer, Scope: scope}).Code, name)
	}
	b.ok(fleet.CreateAPIToken{Actor: "local", ID: "t1", Hash: [32]byte{1}, Role: fleet.RoleViewer, Scope: fleet.Scope{"env": {"prod"}, "region": {"eu", "us"}}})
	copied := b.copied()
	stored, ok := copied.view().APIToken("t1")
	require.True(t, ok)
	assert.Equal(t, "env=prod,region in (eu,us)", stored.Scope.String())
	assert.JSONEq(t, `{"name":"","role":"viewer","expires_at":"0001-01-01T00:00:00Z","scope":"env=prod,region in (eu,us)"}`, string(b.facts[len(b.facts)-1].Detail))
}

func TestRotationOfAPITokens(t *testing.T) {
	b := newBench(t)
	b.ok(fleet.CreateAPIToken{ID: "t1", Name: "ci", Hash: [32]byte{1}, Role: fleet.RoleOperator, ExpiresAt: testTime.Add(10 * time.Hour), Scope: fleet.Scope{"env": {"prod"}}})
	b.ok(fleet.CreateAPIToken{ID: "fixed", Hash: [32]byte{2}, Role: fleet.RoleViewer, ExpiresAt: testTime.Add(10 * time.Hour), FixedExpiry: true})
	b.ok(fleet.CreateAPIToken{ID: "lasting", Hash: [32]byte{3}, Role: fleet.RoleViewer})
	b.now = testTime.Add(4 * time.Hour)
	rotation := fleet.RotateAPIToken{Actor: "api_token:t1", ID: "t1", Hash: [32]byte{11}, Until: b.now.Add(time.Hour)}
	b.ok(rotation)
	token, _ := b.view().APIToken("t1")
	assert.Equal(t, [32]byte{11}, token.Hash)
	assert.Equal(t, testTime.Add(14*time.Hour), token.ExpiresAt, "as long as it was made for")
	assert.Equal(t, fleet.Rotation{At: b.now, By: "api_token:t1", Hash: [32]byte{1}, Until: b.now.Add(time.Hour)}, *token.Rotation)
	assert.Equal(t, "ci", token.Name)
	assert.Equal(t, fleet.Scope{"env": {"prod"}}, token.Scope)
	assert.Equal(t, fleet.KindAPITokenRotated, b.facts[len(b.facts)-1].Kind)
	assert.NotZero(t, b.facts[len(b.facts)-1].Audit)

	// A request that is sent again, because nobody knew what came of it, changes nothing.
	facts := len(b.facts)
	b.now = b.now.Add(time.Minute)
	rotation.Until = b.now.Add(time.Hour)
	b.ok(rotation)
	again, _ := b.view().APIToken("t1")
	assert.Equal(t, token, again)
	assert.Len(t, b.facts, facts)

	rotation.Hash = [32]byte{1}
	assert.Equal(t, wire.CodeConflict, b.do(rotation).Code, "the secret of before")
	rotation.Hash = [32]byte{3}
	assert.Equal(t, wire.CodeConflict, b.do(rotation).Code, "the secret of another token")
	rotation.Hash = [32]byte{12}
	b.now = testTime.Add(13 * time.Hour)
	b.ok(rotation)
	token, _ = b.view().APIToken("t1")
	assert.Equal(t, testTime.Add(23*time.Hour), token.ExpiresAt, "not longer each time")

	b.now = testTime.Add(5 * time.Hour)
	b.ok(fleet.RotateAPIToken{ID: "fixed", Hash: [32]byte{21}})
	token, _ = b.view().APIToken("fixed")
	assert.Equal(t, testTime.Add(10*time.Hour), token.ExpiresAt)
	b.ok(fleet.RotateAPIToken{ID: "lasting", Hash: [32]byte{31}})
	token, _ = b.view().APIToken("lasting")
	assert.Zero(t, token.ExpiresAt)

	b.now = testTime.Add(10 * time.Hour)
	assert.Equal(t, wire.CodeConflict, b.do(fleet.RotateAPIToken{ID: "fixed", Hash: [32]byte{22}}).Code, "it has expired")
	b.ok(fleet.RevokeAPIToken{ID: "lasting"})
	assert.Equal(t, wire.CodeConflict, b.do(fleet.RotateAPIToken{ID: "lasting", Hash: [32]byte{32}}).Code)
	assert.Equal(t, wire.CodeNotFound, b.do(fleet.RotateAPIToken{ID: "none", Hash: [32]byte{33}}).Code)
}
