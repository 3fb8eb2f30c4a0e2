package fleet_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestEnrolment(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(b *bench, token *fleet.CreateEnrollmentToken)
		change  func(p *fleet.EnrollAgent)
		want    wire.Code
		field   string
	}{
		"allowed":        {},
		"unknown token":  {change: func(p *fleet.EnrollAgent) { p.TokenID = "none" }, want: wire.CodeTokenUnknown, field: "token"},
		"wrong secret":   {change: func(p *fleet.EnrollAgent) { p.SecretHash[0]++ }, want: wire.CodeTokenUnknown, field: "token"},
		"no identity":    {change: func(p *fleet.EnrollAgent) { p.Identity = fleet.Identity{} }, want: wire.CodeInvalid, field: "csr"},
		"names refused":  {change: func(p *fleet.EnrollAgent) { p.Names = pki.MustParseNames("www.example.org") }, want: wire.CodeNamesRefused, field: "names"},
		"no names":       {change: func(p *fleet.EnrollAgent) { p.Names = pki.Names{} }},
		"expired":        {prepare: func(b *bench, _ *fleet.CreateEnrollmentToken) { b.now = b.now.Add(31 * 24 * time.Hour) }, want: wire.CodeTokenExpired, field: "token"},
		"last instant":   {prepare: func(b *bench, p *fleet.CreateEnrollmentToken) { p.ExpiresAt = b.now.Add(1) }},
		"expires now":    {prepare: func(b *bench, p *fleet.CreateEnrollmentToken) { p.ExpiresAt = b.now }, want: wire.CodeTokenExpired, field: "token"},
		"agent id taken": {prepare: func(b *bench, _ *fleet.CreateEnrollmentToken) { b.enroll("taken") }, change: func(p *fleet.EnrollAgent) { p.AgentID = "taken" }, want: wire.CodeConflict, field: "agent_id"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			create := token("used")
			if test.prepare != nil {
				test.prepare(b, &create)
			}
			b.ok(create)
			p := enrolment("used", "agent")
			if test.change != nil {
				test.change(&p)
			}
			result := b.do(p)
			assert.Equal(t, test.want, result.Code, result.Detail)
			assert.Equal(t, test.field, result.Field)
			stored, ok := b.view().EnrollmentToken("used")
			require.True(t, ok)
			_, enrolled := b.view().Agent("agent")
			if test.want != "" {
				assert.Zero(t, stored.Uses, "a refusal costs no use")
				assert.False(t, enrolled)
				assert.NotEmpty(t, result.Detail)
				return
			}
			var got fleet.Enrollment
			require.NoError(t, result.Decode(&got))
			assert.Equal(t, "agent", got.AgentID)
			assert.Equal(t, p.Identity, got.Identity)
			assert.Equal(t, map[string]string{"site": "north"}, got.Labels)
			assert.EqualValues(t, 1, stored.Uses)
			assert.True(t, enrolled)
		})
	}
}

func TestUnknownTokenAndWrongSecretCannotBeToldApart(t *testing.T) {
	b := newBench(t)
	b.ok(token("token"))
	wrong := enrolment("token", "agent")
	wrong.SecretHash[5]++
	assert.Equal(t, b.do(enrolment("none", "agent")), b.do(wrong))
}

func TestARepeatedEnrolmentCostsNoUse(t *testing.T) {
	b := newBench(t)
	create := token("single")
	create.MaxUses = 1
	b.ok(create)
	first := enrolment("single", "agent")
	var answer fleet.Enrollment
	require.NoError(t, b.ok(first).Decode(&answer))
	assert.False(t, answer.Repeated)

	// The answer was lost: the same key, a freshly signed certificate, another
	// proposed id; and the token is used up, revoked and expired by now.
	b.ok(fleet.RevokeEnrollmentToken{ID: "single"})
	b.now = b.now.Add(60 * 24 * time.Hour)
	again := first
	again.AgentID, again.Identity = "other", identity("agent", "signed again")
	var repeated fleet.Enrollment
	require.NoError(t, b.ok(again).Decode(&repeated))
	assert.True(t, repeated.Repeated)
	assert.Equal(t, "agent", repeated.AgentID)
	assert.Equal(t, first.Identity, repeated.Identity)
	assert.Equal(t, 1, b.view().Rows(fleet.TableAgents))

	stolen := enrolment("single", "thief")
	assert.Equal(t, wire.CodeTokenRevoked, b.do(stolen).Code)
	wrong := again
	wrong.SecretHash[0]++
	assert.Equal(t, wire.CodeTokenUnknown, b.do(wrong).Code, "a known key does not replace the secret")
	b.ok(token("second"))
	elsewhere := again
	elsewhere.TokenID = "second"
	assert.Equal(t, wire.CodeConflict, b.do(elsewhere).Code)
	b.ok(fleet.RetireAgent{AgentID: "agent"})
	assert.Equal(t, wire.CodeAgentRetired, b.do(again).Code)
}

func TestTwoAgentsRaceForTheLastUse(t *testing.T) {
	b := newBench(t)
	create := token("two")
	create.MaxUses = 2
	results := b.entry(b.command(create), b.command(enrolment("two", "a")), b.command(enrolment("two", "b")), b.command(enrolment("two", "c")))
	assert.True(t, results[1].OK())
	assert.True(t, results[2].OK())
	assert.Equal(t, wire.CodeTokenUsed, results[3].Code)
}

func TestIdentityIsRenewedInTwoPhases(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	find := func(fingerprint string) (pending, ok bool) {
		agent, pending, ok := b.view().AgentByIdentity(fingerprint)
		return pending, ok && agent.ID == "agent"
	}
	second := identity("second", "second")
	var got fleet.Identity
	require.NoError(t, b.ok(fleet.SetPendingIdentity{AgentID: "agent", Identity: second}).Decode(&got))
	assert.Equal(t, second, got)

	require.NoError(t, b.ok(fleet.SetPendingIdentity{AgentID: "agent", Identity: identity("second", "signed again")}).Decode(&got))
	assert.Equal(t, second, got, "the same key gets the same certificate")
	for fingerprint, wantPending := range map[string]bool{"cert-agent": false, "cert-second": true} {
		pending, ok := find(fingerprint)
		assert.True(t, ok, "both are accepted")
		assert.Equal(t, wantPending, pending)
	}
	_, ok := find("cert-signed again")
	assert.False(t, ok)
	_, ok = find("")
	assert.False(t, ok)

	b.ok(fleet.PromoteIdentity{AgentID: "agent", Fingerprint: "cert-agent"}) // the old one was used: nothing happens
	assert.NotNil(t, b.agent("agent").Pending)
	b.ok(fleet.PromoteIdentity{AgentID: "agent", Fingerprint: "cert-second"})
	b.ok(fleet.PromoteIdentity{AgentID: "agent", Fingerprint: "cert-second"}) // two connections at once
	assert.Nil(t, b.agent("agent").Pending)
	_, ok = find("cert-agent")
	assert.False(t, ok, "the old one ends with the first use of the new one")
	assert.Equal(t, wire.CodeIdentityUnknown, b.do(fleet.PromoteIdentity{AgentID: "agent", Fingerprint: "cert-agent"}).Code)

	require.NoError(t, b.ok(fleet.SetPendingIdentity{AgentID: "agent", Identity: identity("third", "third")}).Decode(&got))
	require.NoError(t, b.ok(fleet.SetPendingIdentity{AgentID: "agent", Identity: identity("fourth", "fourth")}).Decode(&got))
	_, ok = find("cert-third")
	assert.False(t, ok, "another key replaces what was pending")
	assert.Equal(t, wire.CodeConflict, b.do(fleet.SetPendingIdentity{AgentID: "agent", Identity: identity("fifth", "second")}).Code)

	assert.Equal(t, "agent", b.agentByKey("key-agent"), "the key of the enrolment still finds it")
	assert.Equal(t, wire.CodeIdentityUnknown, b.do(fleet.SetPendingIdentity{AgentID: "none", Identity: second}).Code)
}

func (b *bench) agentByKey(fingerprint string) string {
	agent, ok := b.view().AgentByPublicKey(fingerprint)
	if !ok {
		return ""
	}
	return agent.ID
}

func TestRetiringEndsAnAgent(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.enroll("agent2")
	for _, id := range []string{"agent", "agent2"} {
		b.ok(fleet.SyncAgent{AgentID: id, BootID: "boot", Sequence: 1, Revision: 1, HeadRevision: 1,
			Rows:   []fleet.Row{row(t, wireRow("web", 1, "www.example.com", testTime))},
			Orders: []fleet.OrderPlacement{placement("order", "www.example.com")}})
	}
	b.ok(fleet.RetireAgent{Actor: "local", AgentID: "agent", Reason: "gone"})
	index := b.agent("agent").ModifyIndex
	b.ok(fleet.RetireAgent{Actor: "local", AgentID: "agent"})
	assert.Equal(t, index, b.agent("agent").ModifyIndex, "once is enough")
	assert.Equal(t, wire.CodeNotFound, b.do(fleet.RetireAgent{AgentID: "none"}).Code)

	assert.Equal(t, fleet.AgentRetired, b.agent("agent").State)
	_, ok := b.view().Certificate("agent", "web")
	assert.False(t, ok)
	_, ok = b.view().Certificate("agent2", "web")
	assert.True(t, ok, "an agent whose id begins alike keeps its own")
	assert.Empty(t, b.view().OrdersOf("agent"))
	assert.Len(t, b.view().OrdersOf("agent2"), 1)
	for _, payload := range []fleet.Payload{
		fleet.SyncAgent{AgentID: "agent", BootID: "boot", Sequence: 2},
		fleet.SetPendingIdentity{AgentID: "agent", Identity: identity("x", "x")},
		fleet.PromoteIdentity{AgentID: "agent", Fingerprint: "cert-agent"},
	} {
		assert.Equal(t, wire.CodeAgentRetired, b.do(payload).Code)
	}
	_, _, ok = b.view().AgentByIdentity("cert-agent")
	assert.True(t, ok, "it is still known, to be told so")
}

func TestLastSeenOnlyMovesForwardAndTouchesNoOtherTable(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	version := b.view().Version(fleet.TableAgents)
	later := testTime.Add(time.Minute)
	b.ok(fleet.TouchAgents{Seen: []fleet.Seen{{Agent: "agent", At: later}, {Agent: "none", At: later}}})
	b.ok(fleet.TouchAgents{Seen: []fleet.Seen{{Agent: "agent", At: testTime}}})
	assert.Equal(t, later, b.view().LastSeen("agent"))
	assert.True(t, b.view().LastSeen("none").IsZero())
	assert.Equal(t, version, b.view().Version(fleet.TableAgents))
}

func TestAuthorityIsMadeOnce(t *testing.T) {
	b := newBench(t)
	assert.Equal(t, wire.CodeInvalid, b.do(fleet.InitCA{}).Code)
	_, ok := b.view().CA()
	assert.False(t, ok)
	var first, second fleet.InitializedCA
	require.NoError(t, b.ok(fleet.InitCA{Authorities: []fleet.Authority{{Name: "root", Certificate: []byte("one")}}}).Decode(&first))
	require.NoError(t, b.ok(fleet.InitCA{Authorities: []fleet.Authority{{Name: "root", Certificate: []byte("two")}}}).Decode(&second))
	assert.True(t, first.Created)
	assert.False(t, second.Created)
	assert.Equal(t, first.CA, second.CA)
}

func TestAPITokens(t *testing.T) {
	b := newBench(t)
	create := fleet.CreateAPIToken{Actor: "local", ID: "t1", Name: "ci", Hash: [32]byte{7}, Role: fleet.RoleOperator, ExpiresAt: testTime.Add(time.Hour)}
	b.ok(create)
	assert.Equal(t, wire.CodeConflict, b.do(create).Code)
	sameHash := create
	sameHash.ID = "t2"
	assert.Equal(t, wire.CodeConflict, b.do(sameHash).Code)
	wrongRole := create
	wrongRole.ID, wrongRole.Role = "t3", "root"
	assert.Equal(t, wire.CodeInvalid, b.do(wrongRole).Code)

	found, ok := b.view().APITokenByHash([32]byte{7})
	require.True(t, ok)
	assert.True(t, found.Usable(testTime))
	assert.False(t, found.Usable(testTime.Add(time.Hour)))
	_, ok = b.view().APITokenByHash([32]byte{8})
	assert.False(t, ok)
	b.ok(fleet.RevokeAPIToken{ID: "t1"})
	b.ok(fleet.RevokeAPIToken{ID: "t1"})
	found, _ = b.view().APIToken("t1")
	assert.False(t, found.Usable(testTime))
	assert.Equal(t, wire.CodeNotFound, b.do(fleet.RevokeAPIToken{ID: "none"}).Code)
	assert.Len(t, b.view().APITokens(), 1)

	assert.True(t, fleet.RoleAdmin.Includes(fleet.RoleViewer))
	assert.False(t, fleet.RoleViewer.Includes(fleet.RoleOperator))
	assert.False(t, fleet.Role("").Includes(fleet.Role("")), "no role includes nothing")
}

func TestAuditFactsAreNumberedWithoutAHole(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	b.ok(fleet.SyncAgent{AgentID: "agent", BootID: "boot", Sequence: 1, Events: []wire.Event{{Sequence: 1, Kind: wire.EventStarted}}})
	b.do(fleet.RevokeEnrollmentToken{ID: "none"})
	b.ok(fleet.RevokeEnrollmentToken{Actor: "api_token:x", ID: "token"})
	b.ok(fleet.RetireAgent{Actor: "local", AgentID: "agent"})
	var audit uint64
	for _, fact := range b.facts {
		if fact.Audit == 0 {
			assert.Equal(t, fleet.Kind(wire.EventStarted), fact.Kind)
			continue
		}
		audit++
		assert.Equal(t, audit, fact.Audit)
		assert.NotEmpty(t, fact.Actor)
		assert.Equal(t, testTime, fact.Time)
	}
	assert.EqualValues(t, 4, audit)
}
