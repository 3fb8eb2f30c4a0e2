package agentapi

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestEnroll(t *testing.T) {
	w := newWorld(t)
	token := w.token(nil)
	key := w.newKey()
	request := wire.EnrollRequest{
		Protocol: wire.Protocol, Token: token.Reveal(), CSR: w.csr(key), Host: host, Names: pki.MustParseNames("www.example.com"),
	}
	var answer wire.EnrollResponse
	require.Nil(t, w.post(nil, wire.EnrollPath, request, &answer))
	assert.Equal(t, map[string]string{"env": "test"}, answer.Labels)
	assert.Equal(t, []string{"**.example.com", "192.0.2.0/24"}, answer.NamePatterns)
	assert.WithinDuration(t, time.Now(), answer.ServerTime, time.Minute)
	roots, err := pki.ParseChainPEM([]byte(answer.Roots))
	require.NoError(t, err)
	assert.Equal(t, token.RootPin, wire.PinOf(roots[0]))

	agent, ok := w.view().Agent(answer.AgentID)
	require.True(t, ok)
	assert.Equal(t, "web1", agent.Host.Hostname)
	stored, ok := w.view().EnrollmentToken(token.ID)
	require.True(t, ok)
	assert.EqualValues(t, 1, stored.Uses)

	// A lost answer costs nothing: the same key gets the same answer, and
	// nothing is stored or counted.
	w.unchanged(func() {
		var again wire.EnrollResponse
		require.Nil(t, w.post(nil, wire.EnrollPath, request, &again))
		assert.Equal(t, answer.AgentID, again.AgentID)
		assert.Equal(t, answer.Chain, again.Chain)
	})
}

// Each of these gets one clear error, and changes nothing.
func TestEnrollRefuses(t *testing.T) {
	w := newWorld(t)
	good := w.token(nil)
	key := w.newKey()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)

	wrongSecret := good
	wrongSecret.Secret[0] ^= 1
	unknown := good
	unknown.ID = "unknown1"
	expired := w.token(func(c *fleet.CreateEnrollmentToken) { c.ExpiresAt = w.now().Add(-time.Second) })
	revoked := w.token(nil)
	w.do(fleet.RevokeEnrollmentToken{Actor: "local", ID: revoked.ID})
	used := w.token(nil)
	first := w.enroll(w.newKey(), used)
	unlimited := w.token(func(c *fleet.CreateEnrollmentToken) { c.MaxUses = 0 })
	ofRetired := w.newKey()
	w.do(fleet.RetireAgent{AgentID: w.enroll(ofRetired, unlimited).id})

	request := func(token wire.EnrollmentToken, change func(*wire.EnrollRequest)) []byte {
		r := wire.EnrollRequest{Protocol: wire.Protocol, Token: token.Reveal(), CSR: w.csr(key), Host: host}
		if change != nil {
			change(&r)
		}
		body, err := json.Marshal(r)
		require.NoError(t, err)
		return body
	}
	whole := request(good, nil)
	for name, c := range map[string]struct {
		body   []byte
		code   wire.Code
		status int
		field  string
	}{
		"no JSON":       {[]byte("hello"), wire.CodeInvalid, http.StatusBadRequest, ""},
		"truncated":     {whole[:len(whole)-20], wire.CodeInvalid, http.StatusBadRequest, ""},
		"a wrong type":  {[]byte(`{"protocol":1,"token":7}`), wire.CodeInvalid, http.StatusBadRequest, "token"},
		"too large":     {append(whole, bytes.Repeat([]byte(" "), wire.MaxEnrollBody)...), wire.CodeBodyTooLarge, http.StatusRequestEntityTooLarge, ""},
		"protocol":      {request(good, func(r *wire.EnrollRequest) { r.Protocol = 99 }), wire.CodeProtocol, http.StatusBadRequest, "protocol"},
		"no CSR":        {request(good, func(r *wire.EnrollRequest) { r.CSR = nil }), wire.CodeInvalid, http.StatusBadRequest, "csr"},
		"damaged CSR":   {request(good, func(r *wire.EnrollRequest) { r.CSR[10] ^= 1 }), wire.CodeCSRInvalid, http.StatusUnprocessableEntity, "csr"},
		"weak key":      {request(good, func(r *wire.EnrollRequest) { r.CSR = w.csr(weak) }), wire.CodeKeyRefused, http.StatusUnprocessableEntity, "csr"},
		"no token":      {request(good, func(r *wire.EnrollRequest) { r.Token = "" }), wire.CodeTokenUnknown, http.StatusUnauthorized, "token"},
		"cut token":     {request(good, func(r *wire.EnrollRequest) { r.Token = r.Token[:40] }), wire.CodeTokenUnknown, http.StatusUnauthorized, "token"},
		"unknown token": {request(unknown, nil), wire.CodeTokenUnknown, http.StatusUnauthorized, "token"},
		"wrong secret":  {request(wrongSecret, nil), wire.CodeTokenUnknown, http.StatusUnauthorized, "token"},
		"expired token": {request(expired, nil), wire.CodeTokenExpired, http.StatusUnauthorized, "token"},
		"revoked token": {request(revoked, nil), wire.CodeTokenRevoked, http.StatusUnauthorized, "token"},
		"stolen token":  {request(used, nil), wire.CodeTokenUsed, http.StatusUnauthorized, "token"},
		"other names": {request(good, func(r *wire.EnrollRequest) { r.Names = pki.MustParseNames("www.example.org") }),
			wire.CodeNamesRefused, http.StatusForbidden, "names"},
		"the coordinator's name": {request(good, func(r *wire.EnrollRequest) { r.Names = pki.MustParseNames("www.example.com", "pki.example.com") }),
			wire.CodeNamesRefused, http.StatusForbidden, "names"},
		"a key enrolled with another token": {request(good, func(r *wire.EnrollRequest) { r.CSR = w.csr(first.key) }),
			wire.CodeConflict, http.StatusConflict, "csr"},
		"a retired agent's key": {request(unlimited, func(r *wire.EnrollRequest) { r.CSR = w.csr(ofRetired) }),
			wire.CodeAgentRetired, http.StatusForbidden, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.unchanged(func() {
				p := w.postRaw(nil, wire.EnrollPath, bytes.NewReader(c.body), int64(len(c.body)), nil)
				require.NotNil(t, p)
				assert.Equal(t, c.code, p.Code)
				assert.Equal(t, c.status, p.Status)
				assert.Equal(t, c.field, p.Field)
				assert.False(t, secretIn(p.Error(), good), "a secret in the answer")
			})
		})
	}
	// The log leads from a token to where it was tried, and holds no secret.
	w.t = t
	logged := len(w.log.since(0))
	stolen := request(used, nil)
	require.NotNil(t, w.postRaw(nil, wire.EnrollPath, bytes.NewReader(stolen), int64(len(stolen)), nil))
	said := w.log.since(logged)
	assert.Contains(t, said, "enrolment refused")
	assert.Contains(t, said, "token_id="+used.ID)
	assert.False(t, secretIn(w.log.since(0), used) || secretIn(w.log.since(0), good), "a secret in the log")

	// The token that was tried so often is as good as before.
	w.enroll(key, good)
}

// One token for one agent: of many that try at once, one is enrolled.
func TestEnrollRace(t *testing.T) {
	w := newWorld(t)
	token := w.token(nil)
	const hosts = 8
	codes := make([]wire.Code, hosts)
	concurrently(hosts, func(i int) {
		var answer wire.EnrollResponse
		p := w.post(nil, wire.EnrollPath, wire.EnrollRequest{Protocol: wire.Protocol, Token: token.Reveal(), CSR: w.csr(w.newKey()), Host: host}, &answer)
		if p != nil {
			codes[i] = p.Code
		}
	})
	enrolled := 0
	for _, code := range codes {
		if code == "" {
			enrolled++
		} else {
			assert.Equal(t, wire.CodeTokenUsed, code)
		}
	}
	assert.Equal(t, 1, enrolled)
	assert.Equal(t, 1, w.view().Rows(fleet.TableAgents))
}

// Whatever fails around the change, the same request leads to one agent.
func TestEnrollFaults(t *testing.T) {
	cut := error(&cluster.UnknownOutcomeError{Err: errors.New("leadership lost")})
	busy := error(&cluster.OverloadedError{RetryAfter: 3 * time.Second})
	notLeader := cluster.ErrNotLeader
	defect := errors.New("the disk of the coordinator is on fire")
	for name, c := range map[string]struct {
		arm    func(*faultyNode)
		code   wire.Code
		status int
	}{
		"not stored: no leader":     {func(n *faultyNode) { n.before.Store(&notLeader) }, wire.CodeUnavailable, http.StatusServiceUnavailable},
		"not stored: too busy":      {func(n *faultyNode) { n.before.Store(&busy) }, wire.CodeOverloaded, http.StatusServiceUnavailable},
		"not stored, not known":     {func(n *faultyNode) { n.before.Store(&cut) }, wire.CodeUnavailable, http.StatusServiceUnavailable},
		"stored, and not known":     {func(n *faultyNode) { n.after.Store(&cut) }, wire.CodeUnavailable, http.StatusServiceUnavailable},
		"stored, and then a defect": {func(n *faultyNode) { n.after.Store(&defect) }, wire.CodeInternal, http.StatusInternalServerError},
	} {
		t.Run(name, func(t *testing.T) {
			w := stillWorld(t)
			token, key := w.token(nil), w.newKey()
			c.arm(w.node)
			p := w.post(nil, wire.EnrollPath, wire.EnrollRequest{Protocol: wire.Protocol, Token: token.Reveal(), CSR: w.csr(key), Host: host}, nil)
			require.NotNil(t, p)
			assert.Equal(t, c.code, p.Code)
			assert.Equal(t, c.status, p.Status)
			assert.Equal(t, c.code != wire.CodeInternal, p.RetryAfterSeconds > 0)
			assert.NotContains(t, p.Error(), "fire", "what is wrong inside is for the log")

			agent := w.enroll(key, token)
			agent.sync()
			assert.Equal(t, 1, w.view().Rows(fleet.TableAgents))
			stored, ok := w.view().EnrollmentToken(token.ID)
			require.True(t, ok)
			assert.EqualValues(t, 1, stored.Uses)
		})
	}
}

func TestAFollowerAndASealedCASayWhenToComeBack(t *testing.T) {
	w := newWorld(t)
	agent := w.enrolled()
	w.node.follower.Store(true)
	for _, path := range []string{wire.EnrollPath, wire.SyncPath, wire.IdentityPath} {
		p := w.post(agent, path, agent.request(), nil)
		require.NotNil(t, p)
		assert.Equal(t, wire.CodeUnavailable, p.Code)
		assert.Positive(t, p.RetryAfterSeconds)
	}

	sealed := sealedWorld(t)
	agent.w = sealed
	p := sealed.post(agent, wire.SyncPath, agent.request(), nil)
	require.NotNil(t, p)
	assert.Equal(t, wire.CodeUnavailable, p.Code)
}

func TestPathsAndMethods(t *testing.T) {
	w := newWorld(t)
	p := w.post(nil, "/agent/v1/elsewhere", nil, nil)
	require.NotNil(t, p)
	assert.Equal(t, http.StatusNotFound, p.Status)

	response, err := w.client(nil).Get(w.server.URL + wire.SyncPath)
	require.NoError(t, err)
	assert.Equal(t, "POST", response.Header.Get("Allow"))
	p = w.read(response, nil)
	assert.Equal(t, http.StatusMethodNotAllowed, p.Status)
	assert.True(t, strings.Contains(p.Mend, "POST"))
}
