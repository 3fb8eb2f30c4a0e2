package fleet_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/trail"
)

// Acts that change an object say what it was and what it is.
func TestActsSayWhatTheyChanged(t *testing.T) {
	b := newBench(t)
	b.ok(fleet.BeginAuditChain{})
	var before, after string
	act := func(p fleet.Payload) fleet.Fact {
		t.Helper()
		b.now = b.now.Add(time.Second)
		made := len(b.facts)
		b.ok(p)
		for _, f := range b.facts[made:] {
			if f.Audit > 0 {
				before, after = string(f.Before), string(f.After)
				return f
			}
		}
		require.Fail(t, "it is not in the audit trail", "%T", p)
		return fleet.Fact{}
	}
	put := func(selector, definition string) {
		t.Helper()
		act(fleet.PutAssignment{Actor: "api_token:x", Name: "www", Selector: selector, Template: []byte(definition)})
	}
	put("env=prod", `{"names":["www.example.com"],"issuer":"le","key":{"type":"ecdsa","size":256}}`)
	assert.Empty(t, before)
	assert.JSONEq(t, `{"selector":"env=prod","revision":1,"definition":{"names":["www.example.com"],"issuer":"le","key":{"type":"ecdsa","size":256}}}`, after)
	put("env=prod", `{"names":["www.example.com","example.com"],"issuer":"le","key":{"type":"ecdsa","size":384},"renew":"30d"}`)
	assert.JSONEq(t, `{"revision":1,"definition":{"names":["www.example.com"],"key":{"size":256}}}`, before, "only what is different")
	assert.JSONEq(t, `{"revision":2,"definition":{"names":["www.example.com","example.com"],"key":{"size":384},"renew":"30d"}}`, after)
	put("env=test", `{"names":["www.example.com","example.com"],"issuer":"le","key":{"type":"ecdsa","size":384},"renew":"30d"}`)
	assert.JSONEq(t, `{"revision":2,"selector":"env=prod"}`, before)
	act(fleet.DeleteAssignment{Actor: "api_token:x", Name: "www"})
	assert.Contains(t, before, `"size":384`)
	assert.Empty(t, after)

	act(apiToken("admin", 1))
	assert.JSONEq(t, `{"name":"admin","role":"admin"}`, after)
	act(fleet.RotateAPIToken{ID: "admin", Hash: [32]byte{77}, Until: b.now.Add(time.Hour)})
	assert.Contains(t, after, "rotated_at")
	act(fleet.RevokeAPIToken{ID: "admin"})
	assert.NotContains(t, before, "revoked_at")
	assert.Contains(t, after, "revoked_at")
	act(token("token"))
	assert.Contains(t, after, `"name_patterns":["**.example.com"]`)
	b.enroll("a1")
	assert.Contains(t, string(b.lastFact().After), `"state":"active"`)
	act(fleet.SetPendingIdentity{AgentID: "a1", Identity: identity("k2", "c2")})
	assert.Equal(t, []string{`{}`, `{"pending_identity":"cert-c2"}`}, []string{before, after})
	act(fleet.PromoteIdentity{AgentID: "a1", Fingerprint: "cert-c2"})
	assert.Equal(t, []string{`{"identity":"cert-a1","pending_identity":"cert-c2"}`, `{"identity":"cert-c2"}`}, []string{before, after})
	act(fleet.RevokeEnrollmentToken{ID: "token"})
	assert.Contains(t, after, "revoked_at")

	act(fleet.InitCA{Authorities: authorities(1)})
	assert.Empty(t, before)
	ca, _ := b.view().CA()
	act(fleet.ChangeCA{Base: ca.ModifyIndex, What: "publish", Authorities: append(authorities(1), fleet.Authority{Name: "root", Certificate: []byte("c2"), SealedKey: []byte("sealed"), State: fleet.AuthorityPublished})})
	assert.Equal(t, 1, strings.Count(before, "fingerprint"))
	assert.Contains(t, after, `"state":"published"`)
	campaign := campaigns[0]
	act(fleet.BeginCampaign{ID: campaign, Selector: "*", Over: time.Hour, Targets: 3})
	assert.JSONEq(t, `{"selector":"*","over_seconds":3600,"targets":3}`, after)
	act(fleet.CancelCampaign{ID: campaign})
	assert.Contains(t, after, "cancelled_at")
	act(fleet.AnnounceNode{Node: clusterNode("n1", "k1")})
	assert.Contains(t, after, `"key_fingerprint":"k1"`)
	act(joinToken("join"))
	act(use("join", clusterNode("n2", "k2")))
	act(fleet.ForgetNode{ID: "n1"})
	assert.Contains(t, before, "n1.example.com")
	assert.Empty(t, after)
	act(fleet.RetireAgent{AgentID: "a1"})
	assert.Contains(t, before, `"state":"active"`)
	assert.Contains(t, after, `"state":"retired"`)
	b.checkTrail()
}

// What is resolved of an order is what it was and what it became, at the end of the
// command.
func TestOrdersSayWhatBecameOfThem(t *testing.T) {
	b := newBench(t)
	b.ok(fleet.BeginAuditChain{})
	b.furnish()
	acts := map[fleet.Kind]fleet.Fact{}
	note := func() {
		for _, f := range b.facts {
			if f.Audit > 0 && strings.HasPrefix(string(f.Kind), "order.") {
				acts[f.Kind] = f
			}
		}
	}
	note()
	claimed := acts[fleet.KindOrderClaimed]
	require.NotZero(t, claimed)
	assert.Contains(t, string(claimed.Before), `"stage":"requested"`)
	assert.Contains(t, string(claimed.After), `"stage":"placing"`)
	resolved := 0
	for _, order := range b.view().OpenOrders("", 0) {
		if order.State != fleet.OrderPlacing {
			continue
		}
		b.changed(b.next(order.Agent, order.ID, fleet.OrderUnknown))
		b.ok(fleet.ResolveOrder{Actor: "api_token:x", Agent: order.Agent, ID: order.ID, Action: fleet.ResolveGiveUp, Note: "nobody knows"})
		resolved++
	}
	require.NotZero(t, resolved, "one is being placed")
	note()
	assert.Contains(t, string(acts[fleet.KindOrderResolved].Before), `"stage":"unknown_outcome"`)
	assert.Contains(t, string(acts[fleet.KindOrderResolved].After), `"stage":"rejected"`, "as it is at the end of the command")
	for _, order := range b.view().OpenOrders("", 0) {
		b.do(fleet.CancelOrder{Actor: "api_token:x", Agent: order.Agent, ID: order.ID, Note: "not wanted"})
	}
	note()
	cancel := acts[fleet.KindOrderCancelAsked]
	require.NotZero(t, cancel)
	assert.NotContains(t, string(cancel.Before), "cancel_asked_by")
	assert.Contains(t, string(cancel.After), `"cancel_asked_by":"api_token:x"`)
	b.checkTrail()
}

// Before the chain has begun facts are, octet for octet, what nodes of every version make
// of the same commands; and at no time is there a secret in one, or the hash of one.
func TestFactsOfBeforeTheChainStayAsTheyWere(t *testing.T) {
	old, chained := newBench(t), newBench(t)
	old.furnish()
	chained.ok(fleet.BeginAuditChain{})
	chained.furnish()
	require.Len(t, chained.facts, len(old.facts)+1)
	hash := [32]byte{42}
	for i, f := range old.facts {
		require.Empty(t, string(f.Before)+string(f.After))
		require.True(t, f.Hash.IsZero() && f.Prev.IsZero())
		with := chained.facts[i+1]
		require.Equal(t, []any{f.Kind, f.Actor, f.Object, f.Agent}, []any{with.Kind, with.Actor, with.Object, with.Agent})
		form, err := trail.Canonical(f.Detail)
		require.NoError(t, err)
		if f.Kind == fleet.KindAPITokenCreated {
			// Without an end since the chain: what was a moment before is left out.
			const never = `"expires_at":"0001-01-01T00:00:00Z",`
			require.Contains(t, string(form), never)
			form = []byte(strings.Replace(string(form), never, "", 1))
		}
		if f.Audit > 0 {
			require.Equal(t, string(form), string(with.Detail))
		} else if f.Kind != fleet.KindAgentResync { // whose id is that of the command
			require.Equal(t, string(f.Detail), string(with.Detail))
		}
		text := fmt.Sprintf("%s %s %s", with.Detail, with.Before, with.After)
		for _, secret := range []string{hex.EncodeToString(hash[:4]), base64.StdEncoding.EncodeToString(hash[:]), "42,0,0", "sealed"} {
			assert.NotContains(t, strings.ToLower(text), strings.ToLower(secret), "%s", with.Kind)
		}
	}
}
