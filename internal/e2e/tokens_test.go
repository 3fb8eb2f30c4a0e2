//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/coordinator/api/resource"
)

// oneComplaint checks that a call failed with status 1 and one line on standard
// error that has all the words.
func oneComplaint(t *testing.T, r result, words ...string) {
	t.Helper()
	assert.Equal(t, 1, r.status)
	complaint := strings.TrimSpace(r.stderr)
	assert.NotContains(t, complaint, "\n", "one error, in one line")
	assert.Empty(t, r.stdout)
	for _, word := range words {
		assert.Contains(t, complaint, word)
	}
}

// altered is the token with another last letter of its secret.
func altered(token string) string {
	parts := strings.Split(token, ".")
	secret := []byte(parts[2])
	if secret[3] == 'a' {
		secret[3] = 'b'
	} else {
		secret[3] = 'a'
	}
	parts[2] = string(secret)
	return strings.Join(parts, ".")
}

// Tokens that must not work do not, say why, use nothing up, and stand in the
// way of nothing.
func TestBadTokens(t *testing.T) {
	t.Parallel()
	c := startCoordinator(t)
	short, err := c.tryToken(resource.CreateEnrollmentToken{TTLSeconds: 60})
	require.NoError(t, err)
	wanted := section{"certificates": []section{certificate("www", "coordinator", "www.example.com")}}
	a := newAgent(t, "the agent", wanted)

	good := c.newToken("www.example.com")
	t.Run("garbage", func(t *testing.T) {
		oneComplaint(t, a.enrollWith(c.url(), "not-a-token"), "token", "certctl token create")
	})
	t.Run("wrong secret", func(t *testing.T) {
		oneComplaint(t, a.enrollWith(c.url(), altered(good.Token)), "token", "certctl token create")
	})
	t.Run("for other names", func(t *testing.T) {
		oneComplaint(t, a.enrollWith(c.url(), c.newToken("*.other.example").Token), "www.example.com", "certctl token create")
	})
	t.Run("revoked", func(t *testing.T) {
		token := c.newToken("www.example.com")
		require.NoError(t, c.try("POST", "/api/v1/enrollment-tokens/"+token.ID+"/revoke", nil, nil))
		oneComplaint(t, a.enrollWith(c.url(), token.Token), "revoked", "certctl token create")
	})
	t.Run("of another coordinator", func(t *testing.T) {
		other := startCoordinator(t)
		oneComplaint(t, a.enrollWith(c.url(), other.newToken("www.example.com").Token), c.url(), "another coordinator")
	})
	for _, token := range c.enrollmentTokens() {
		assert.Zero(t, token.Uses, "a refused token is not used up")
	}
	assert.Empty(t, c.agents(), "nobody was enrolled")

	a.startAndAwait()
	assert.Nil(t, a.status().Enrollment, "the agent knows that it is not enrolled")
	t.Run("by way of the running agent", func(t *testing.T) {
		oneComplaint(t, a.enrollWith(c.url(), altered(good.Token)), "token", "certctl token create")
	})

	a.enrolled(a.enrollWith(c.url(), good.Token))
	a.awaitSettled(2 * time.Minute)

	t.Run("stolen", func(t *testing.T) {
		thief := newAgent(t, "the thief", wanted)
		oneComplaint(t, thief.enrollWith(c.url(), good.Token), "used", "certctl token create")
	})
	t.Run("again", func(t *testing.T) {
		oneComplaint(t, a.enrollWith(c.url(), c.newToken("www.example.com").Token), a.id, "--replace")
		before := a.id
		replaced := a.enrollWith(c.url(), c.newToken("www.example.com").Token, "--replace")
		a.enrolled(replaced)
		var done control.Enrollment
		require.NoError(t, json.Unmarshal([]byte(replaced.stdout), &done))
		assert.Equal(t, before, done.Replaced, "it is still valid, and somebody has to end it")
	})
	t.Run("expired", func(t *testing.T) {
		await(t, 3*time.Minute, "the short token expires", func() error {
			for _, token := range c.enrollmentTokens() {
				if token.ID == short.ID && token.State != resource.TokenExpired {
					return fmt.Errorf("it is %s", token.State)
				}
			}
			return nil
		})
		late := newAgent(t, "the late agent", nil)
		oneComplaint(t, late.enrollWith(c.url(), short.Token), "expired", "certctl token create")
		late.enroll(c)
	})

	agents := c.agents()
	require.Len(t, agents, 3, "the good agent, the one that it was before, and the late one")
	assert.Equal(t, a.id, a.status().Enrollment.AgentID, "the enrolment is as it was")
}
