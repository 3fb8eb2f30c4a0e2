package agentapi

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/trust"
	"github.com/certctl/certctl/shared/wire"
)

// rotate takes one step of a rotation, and this node along.
func (w *world) rotate(authority string, step ca.Step) {
	w.t.Helper()
	stored, ok := w.view().CA()
	require.True(w.t, ok)
	change, err := w.ca.Rotate(stored, ca.Rotation{Actor: "test", Authority: authority, Step: step})
	require.NoError(w.t, err)
	w.do(change)
	stored, _ = w.view().CA()
	require.NoError(w.t, w.ca.Refresh(stored))
}

func (w *world) rotateRoot() {
	w.t.Helper()
	for _, step := range []ca.Step{ca.StepPublish, ca.StepActivate, ca.StepRetire} {
		w.rotate("root", step)
	}
}

func position(held trust.Held) *wire.TrustPosition {
	if held.Number == 0 {
		return new(wire.TrustPosition)
	}
	return &wire.TrustPosition{Generation: held.Number, Digest: held.Digest[:]}
}

func TestSyncCarriesTrust(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	held := trust.Held{}
	var err error
	held.Roots, err = pki.ParseChainPEM([]byte(w.ca.RootsPEM()))
	require.NoError(t, err)
	sync := func() *wire.SyncResponse {
		request := a.request()
		request.Trust = position(held)
		return a.send(request)
	}
	stored := func() uint64 {
		agent, ok := w.view().Agent(a.id)
		require.True(t, ok)
		return agent.TrustGeneration
	}
	assert.Empty(t, sync().Trust, "a CA of an earlier version has no generations")
	w.rotate("root", ca.StepPublish)
	assert.Empty(t, a.sync().Trust, "an agent of an earlier version is sent nothing that it does not know")
	chain := sync().Trust
	assert.Len(t, chain, 2)
	assert.Zero(t, stored())
	held, err = held.Follow(chain)
	require.NoError(t, err)
	assert.Empty(t, sync().Trust)
	assert.EqualValues(t, 2, stored())
	w.unchanged(func() { sync() })

	w.rotate("root", ca.StepActivate)
	w.unchanged(func() { assert.Empty(t, sync().Trust) })
	w.rotate("root", ca.StepRetire)
	chain = sync().Trust
	assert.Len(t, chain, 1, "only what is new")
	held, err = held.Follow(chain)
	require.NoError(t, err)
	sync()
	assert.EqualValues(t, 3, stored())

	// It has followed a chain of which this coordinator knows nothing.
	right := held
	held.Digest = trust.Digest{1}
	assert.Len(t, sync().Trust, 3)
	assert.Zero(t, stored())
	held = right

	request := a.request()
	request.Trust = &wire.TrustPosition{Generation: 3, Digest: []byte("short")}
	p := w.post(a, wire.SyncPath, request, nil)
	require.NotNil(t, p)
	assert.Equal(t, wire.CodeInvalid, p.Code)
	assert.Equal(t, "trust", p.Field)
}

func TestTrustIsForEverybody(t *testing.T) {
	w := newWorld(t)
	ask := func(request wire.TrustRequest) [][]byte {
		t.Helper()
		request.Protocol = wire.Protocol
		var answer wire.TrustResponse
		w.unchanged(func() { require.Nil(t, w.post(nil, wire.TrustPath, request, &answer)) })
		return answer.Generations
	}
	assert.Empty(t, ask(wire.TrustRequest{}))
	pin := wire.PinOf(w.ca.Root())
	w.rotateRoot()
	w.node.follower.Store(true) // any node knows it
	whole := ask(wire.TrustRequest{})
	require.Len(t, whole, 3)
	held, err := trust.FromPin(pin, whole)
	require.NoError(t, err)
	assert.True(t, held.Roots[0].Equal(w.ca.Root()))
	assert.Empty(t, ask(wire.TrustRequest{Trust: *position(held)}))
	assert.Len(t, ask(wire.TrustRequest{Trust: wire.TrustPosition{Generation: 1, Digest: make([]byte, 32)}}), 3)

	for field, request := range map[string]wire.TrustRequest{
		"protocol": {Protocol: wire.Protocol + 1},
		"trust":    {Protocol: wire.Protocol, Trust: wire.TrustPosition{Digest: make([]byte, 32)}},
	} {
		p := w.post(nil, wire.TrustPath, request, nil)
		require.NotNil(t, p, field)
		assert.Equal(t, http.StatusBadRequest, p.Status)
		assert.Equal(t, field, p.Field)
	}
	p := w.post(nil, wire.TrustPath, wire.TrustRequest{Protocol: wire.Protocol, Trust: wire.TrustPosition{Digest: make([]byte, wire.MaxTrustRequest)}}, nil)
	require.NotNil(t, p)
	assert.Equal(t, wire.CodeBodyTooLarge, p.Code)
}

// Off for years, while everything that its identity led to was replaced: it may
// renew itself with its key, and nothing else; if it was retired, not even that.
func TestAnIdentityOfAnEarlierAge(t *testing.T) {
	w := newWorld(t)
	a, retired := w.enrolled(), w.enrolled()
	a.sync()
	retired.sync()
	for range 3 {
		w.sleep(3 * 365 * 24 * time.Hour)
		w.rotate("identity", ca.StepPublish)
		w.rotate("issuing", ca.StepPublish)
		w.rotateRoot()
	}
	w.do(fleet.RetireAgent{Actor: "test", AgentID: retired.id})

	a.refused(wire.CodeIdentityExpired, http.StatusUnauthorized)
	key := w.newKey()
	chain, p := a.renew(key)
	require.Nil(t, p)
	again, p := a.renew(key)
	require.Nil(t, p)
	assert.Equal(t, chain, again, "a lost answer is repeated")
	a.use(key, chain)
	a.sync()
	agent, ok := w.view().Agent(a.id)
	require.True(t, ok)
	assert.Equal(t, pki.Fingerprint(a.chain[0]), agent.Current.Fingerprint)

	retired.refused(wire.CodeAgentRetired, http.StatusForbidden)
	_, p = retired.renew(w.newKey())
	require.NotNil(t, p)
	assert.Equal(t, wire.CodeAgentRetired, p.Code)
}

// A certificate that was handed out and never arrived leads to a root that is
// gone: it is not handed out again.
func TestLostAnswersOfAnEarlierAge(t *testing.T) {
	w := newWorld(t)
	a, key := w.enrolled(), w.newKey()
	_, p := a.renew(key)
	require.Nil(t, p)
	fresh, token := w.newKey(), w.token(nil)
	w.enroll(fresh, token)
	w.rotate("identity", ca.StepPublish)
	w.rotateRoot()
	_, p = a.renew(key)
	require.NotNil(t, p)
	assert.Equal(t, wire.CodeConflict, p.Code)
	_, p = a.renew(w.newKey())
	require.Nil(t, p, "another key gets another certificate")
	p = w.post(nil, wire.EnrollPath, wire.EnrollRequest{Protocol: wire.Protocol, Token: token.Reveal(), CSR: w.csr(fresh), Host: host}, nil)
	require.NotNil(t, p)
	assert.Equal(t, wire.CodeConflict, p.Code)
	assert.Contains(t, p.Mend, "a new token")
}

// The coordinator was restored to a state of before the agent's last renewal:
// the identity that it has lost may renew itself, and one that was replaced may
// not.
func TestAnIdentityThatTheStateHasLost(t *testing.T) {
	w := newWorld(t)
	a, gone := w.enrolled(), w.enrolled()
	a.sync()
	lose := func(a *agent) {
		w.sleep(time.Minute)
		key := w.newKey()
		cert, err := w.ca.IssueIdentity(a.id, key.Public())
		require.NoError(t, err)
		chain, err := w.ca.IdentityChain(cert)
		require.NoError(t, err)
		a.key, a.chain = key, chain
	}
	replaced := *a
	lose(a)
	lose(gone)
	a.refused(wire.CodeIdentityExpired, http.StatusUnauthorized)
	key := w.newKey()
	w.sleep(time.Minute)
	chain, p := a.renew(key)
	require.Nil(t, p)
	lost := *a
	a.use(key, chain)
	a.sync()
	for _, old := range []*agent{&replaced, &lost} {
		old.refused(wire.CodeIdentityUnknown, http.StatusUnauthorized)
		_, p = old.renew(w.newKey())
		require.NotNil(t, p)
		assert.Equal(t, wire.CodeIdentityUnknown, p.Code)
	}
	w.do(fleet.RetireAgent{Actor: "test", AgentID: gone.id})
	_, p = gone.renew(w.newKey())
	require.NotNil(t, p)
	assert.Equal(t, wire.CodeAgentRetired, p.Code)

	// While a renewed one waits to be used, only a newer one is of another time.
	key = w.newKey()
	stale := *a
	_, p = a.renew(key)
	require.Nil(t, p)
	stale.sync()
	lose(&stale)
	_, p = stale.renew(w.newKey())
	require.Nil(t, p)
}
