package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

func TestAddressesThatAreCountedTogether(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:4711": "192.0.2.7", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[2001:db8:1:2:3::4]:1": "2001:db8:1:2::", "[fe80::1%eth0]:1": "fe80::",
		"node-2": "node-2", "": "",
	} {
		key, _ := addressOf(remote)
		assert.Equal(t, want, key, remote)
	}
}

// Who guesses is slowed down before anything is looked up, and keeps nobody out who is
// known to come from the same address.
func TestStrangersAreBoundedByAddress(t *testing.T) {
	reasons := map[string]int{}
	g := NewGate(0, 0, func(reason string) { reasons[reason]++ })
	now := time.Unix(1000, 0)
	token := apitoken.New()
	stored := &fleet.APIToken{ID: token.ID, Name: "known"}
	header := "Bearer " + token.Reveal()
	assert.Nil(t, g.judged("192.0.2.7:1", stored, nil, now))
	unauthorized := newProblem(wire.CodeUnauthorized, "", "no", "x")
	for range strangersBurst {
		assert.Nil(t, g.enter("192.0.2.7:2", "", now))
		assert.Same(t, unauthorized, g.judged("192.0.2.7:2", nil, unauthorized, now))
	}
	p := g.enter("192.0.2.7:3", "Bearer "+apitoken.New().Reveal(), now)
	if assert.NotNil(t, p) {
		assert.Equal(t, wire.CodeRateLimited, p.Code)
		assert.EqualValues(t, 1, p.RetryAfterSeconds)
		assert.NotEmpty(t, p.Mend)
	}
	assert.Nil(t, g.enter("192.0.2.7:3", header, now), "the token that was used from there")
	assert.Nil(t, g.enter("192.0.2.8:3", "", now), "another address")
	assert.NotNil(t, g.enter("192.0.2.7:3", "", now.Add(900*time.Millisecond)))
	assert.Nil(t, g.enter("192.0.2.7:3", "", now.Add(time.Second)))
	assert.Equal(t, map[string]int{RefusedUnauthorized: strangersBurst, RefusedAddress: 2}, reasons)
}

// A token that is good is bounded whether it may do what it asks for or not.
func TestATokenIsBoundedWhereItsRoleIsRefusedToo(t *testing.T) {
	reasons := map[string]int{}
	g := NewGate(1, 2, func(reason string) { reasons[reason]++ })
	now := time.Unix(1000, 0)
	stored := &fleet.APIToken{ID: apitoken.New().ID, Name: "grafana", Role: fleet.RoleViewer}
	refusal := lacks(stored, fleet.RoleAdmin)
	for range 2 {
		assert.Same(t, refusal, g.judged("192.0.2.7:1", stored, refusal, now))
	}
	p := g.judged("192.0.2.7:1", stored, refusal, now)
	assert.Equal(t, wire.CodeRateLimited, p.Code)
	assert.Equal(t, map[string]int{RefusedRole: 2, RefusedRate: 1}, reasons)
}
