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
		assert.Equal(t, want, addressOf(remote), remote)
	}
}

// Who guesses is slowed down, and keeps nobody out who comes from the same address.
func TestStrangersAreBoundedByAddress(t *testing.T) {
	reasons := map[string]int{}
	g := NewGate(0, 0, func(reason string) { reasons[reason]++ })
	now := time.Unix(1000, 0)
	unauthorized := newProblem(wire.CodeUnauthorized, "", "no", "x")
	for range strangersBurst {
		assert.Same(t, unauthorized, g.judged("192.0.2.7:2", nil, unauthorized, now))
	}
	p := g.judged("192.0.2.7:3", nil, unauthorized, now)
	if assert.NotNil(t, p) {
		assert.Equal(t, wire.CodeRateLimited, p.Code)
		assert.EqualValues(t, 1, p.RetryAfterSeconds)
		assert.NotEmpty(t, p.Mend)
	}
	good := &fleet.APIToken{ID: apitoken.New().ID, Name: "one that this node has not seen yet"}
	assert.Nil(t, g.judged("192.0.2.7:3", good, nil, now), "a token that is good")
	assert.Same(t, unauthorized, g.judged("192.0.2.8:3", nil, unauthorized, now), "another address")
	assert.Equal(t, wire.CodeRateLimited, g.judged("192.0.2.7:3", nil, unauthorized, now.Add(900*time.Millisecond)).Code)
	assert.Same(t, unauthorized, g.judged("192.0.2.7:3", nil, unauthorized, now.Add(time.Second)))
	assert.Equal(t, map[string]int{RefusedUnauthorized: strangersBurst + 2, RefusedAddress: 2}, reasons)
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
