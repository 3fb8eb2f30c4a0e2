package agentapi

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// refused expects a sync to be refused, and the state to stay.
func (a *agent) refused(code wire.Code, status int) {
	a.w.t.Helper()
	a.w.unchanged(func() {
		p := a.w.post(a, wire.SyncPath, a.request(), nil)
		require.NotNil(a.w.t, p)
		assert.Equal(a.w.t, code, p.Code)
		assert.Equal(a.w.t, status, p.Status)
		assert.NotEmpty(a.w.t, p.Mend)
	})
}

// The old identity is good until the new one is first used, and then no more.
func TestIdentityRenewal(t *testing.T) {
	w := newWorld(t)
	old := w.enrolled()
	old.sync()
	key := w.newKey()
	chain, p := old.renew(key)
	require.Nil(t, p)

	renewed := *old
	renewed.use(key, chain)
	require.NotEqual(t, old.chain[0].SerialNumber, renewed.chain[0].SerialNumber)
	old.sync()
	w.unchanged(func() {
		again, p := old.renew(key)
		require.Nil(t, p)
		assert.Equal(t, chain, again, "a lost answer costs nothing")
	})

	renewed.sequence = old.sequence
	renewed.sync()
	stored, ok := w.view().Agent(old.id)
	require.True(t, ok)
	assert.Equal(t, pki.Fingerprint(renewed.chain[0]), stored.Current.Fingerprint)
	assert.Nil(t, stored.Pending)
	old.refused(wire.CodeIdentityUnknown, http.StatusUnauthorized)
	_, p = old.renew(w.newKey())
	require.NotNil(t, p)
	assert.Equal(t, wire.CodeIdentityUnknown, p.Code)
	renewed.sync()
	_, p = renewed.renew(w.newKey())
	require.Nil(t, p)
	old.refused(wire.CodeIdentityUnknown, http.StatusUnauthorized) // it is not the one that is pending
}

// A request that was let in with the old identity and then had to wait does not
// act for the agent after the new one has replaced it.
func TestAnIdentityReplacedMeanwhile(t *testing.T) {
	w := newWorld(t)
	old := w.enrolled()
	old.sync()
	key := w.newKey()
	chain, p := old.renew(key)
	require.Nil(t, p)

	held, err := w.service.sessions.arrive(old.id)
	require.NoError(t, err)
	require.NoError(t, held.begin(t.Context()))
	present := func() int {
		w.service.sessions.mu.Lock()
		defer w.service.sessions.mu.Unlock()
		return held.present
	}
	stolen := make(chan *wire.Problem)
	go func() {
		_, p := old.renew(w.newKey())
		stolen <- p
	}()
	require.Eventually(t, func() bool { return present() == 2 }, 60*time.Second, time.Millisecond)
	renewed := *old
	renewed.use(key, chain)
	w.do(fleet.PromoteIdentity{AgentID: old.id, Fingerprint: pki.Fingerprint(renewed.chain[0])})
	held.leave()

	p = <-stolen
	require.NotNil(t, p)
	assert.Equal(t, wire.CodeIdentityUnknown, p.Code)
	stored, ok := w.view().Agent(old.id)
	require.True(t, ok)
	assert.Nil(t, stored.Pending)
}

// Another key takes the place of the one that is pending: the host may have
// lost it.
func TestIdentityRenewalWithAnotherKey(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	first, p := a.renew(w.newKey())
	require.Nil(t, p)
	key := w.newKey()
	second, p := a.renew(key)
	require.Nil(t, p)
	assert.NotEqual(t, first, second)
	a.use(key, second)
	a.sync()
}

// An agent that was off for a year gets back in by renewing, and by nothing else.
func TestAnExpiredIdentity(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	a.sync()
	w.sleep(365 * 24 * time.Hour)
	a.refused(wire.CodeIdentityExpired, http.StatusUnauthorized)
	key := w.newKey()
	chain, p := a.renew(key)
	require.Nil(t, p)
	a.use(key, chain)
	a.restart()
	a.sync()

	// The same with an identity that was handed out and never used.
	late := w.newKey()
	chain, p = a.renew(late)
	require.Nil(t, p)
	w.sleep(365 * 24 * time.Hour)
	a.use(late, chain)
	a.refused(wire.CodeIdentityExpired, http.StatusUnauthorized)
	chain, p = a.renew(late)
	require.Nil(t, p)
	a.use(late, chain)
	a.sync()
}

func TestARetiredAgent(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	a.sync()
	w.do(fleet.RetireAgent{Actor: "local", AgentID: a.id})
	a.refused(wire.CodeAgentRetired, http.StatusForbidden)
	w.unchanged(func() {
		_, p := a.renew(w.newKey())
		require.NotNil(t, p)
		assert.Equal(t, wire.CodeAgentRetired, p.Code)
	})
	w.sleep(365 * 24 * time.Hour)
	a.refused(wire.CodeAgentRetired, http.StatusForbidden)
}

func TestWhoIsNoAgent(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	a := w.enrolled()

	p := w.post(nil, wire.SyncPath, a.request(), nil)
	require.NotNil(t, p)
	assert.Equal(t, wire.CodeIdentityMissing, p.Code)
	assert.Equal(t, http.StatusUnauthorized, p.Status)

	foreign := other.enrolled()
	foreign.w = w
	foreign.refused(wire.CodeIdentityUnknown, http.StatusUnauthorized)

	// Issued by the right CA, but to nobody that the state knows of.
	ghost := &agent{w: w, key: w.newKey(), boot: newAgentID()}
	cert, err := w.ca.IssueIdentity("ghost", ghost.key.Public())
	require.NoError(t, err)
	ghost.chain = []*x509.Certificate{cert}
	ghost.refused(wire.CodeIdentityUnknown, http.StatusUnauthorized)

	// For an agent that exists, but not the certificate that it has. It is older
	// than that: a newer one would be one that the state has lost.
	w.sleep(-time.Minute)
	cert, err = w.ca.IssueIdentity(a.id, ghost.key.Public())
	require.NoError(t, err)
	w.sleep(time.Minute)
	ghost.chain = []*x509.Certificate{cert}
	ghost.refused(wire.CodeIdentityUnknown, http.StatusUnauthorized)

	// What an agent can order opens no door.
	order := a.order("www.example.com")
	request := a.request()
	leafKey := w.newKey()
	order.CSR, err = pki.CreateCSR(leafKey, pki.MustParseNames("www.example.com"))
	require.NoError(t, err)
	request.Orders = []wire.OrderRequest{order}
	answer := a.send(request)
	require.Len(t, answer.Orders, 1)
	require.Equal(t, wire.OrderIssued, answer.Orders[0].State)
	leaf := *a
	leaf.use(leafKey, answer.Orders[0].Chain)
	leaf.refused(wire.CodeIdentityUnknown, http.StatusUnauthorized)
}

func TestIdentityRequestRefusals(t *testing.T) {
	w := newWorld(t)
	a := w.enrolled()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		request wire.IdentityRequest
		code    wire.Code
	}{
		"no CSR":   {wire.IdentityRequest{Protocol: wire.Protocol}, wire.CodeInvalid},
		"garbage":  {wire.IdentityRequest{Protocol: wire.Protocol, CSR: []byte("x")}, wire.CodeCSRInvalid},
		"weak key": {wire.IdentityRequest{Protocol: wire.Protocol, CSR: w.csr(weak)}, wire.CodeKeyRefused},
		"protocol": {wire.IdentityRequest{Protocol: 2, CSR: w.csr(w.newKey())}, wire.CodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.unchanged(func() {
				p := w.post(a, wire.IdentityPath, c.request, nil)
				require.NotNil(t, p)
				assert.Equal(t, c.code, p.Code)
				assert.True(t, p.Field != "" && p.Detail != "")
			})
		})
	}
}

// A renewal whose fate is not known is asked for again with the same key, and
// there is one new identity.
func TestIdentityRenewalFaults(t *testing.T) {
	cut := error(&cluster.UnknownOutcomeError{Err: errors.New("leadership lost")})
	for name, arm := range map[string]func(*faultyNode){
		"not stored": func(n *faultyNode) { n.before.Store(&cut) },
		"stored":     func(n *faultyNode) { n.after.Store(&cut) },
	} {
		t.Run(name, func(t *testing.T) {
			w := stillWorld(t)
			a := w.enrolled()
			key := w.newKey()
			arm(w.node)
			_, p := a.renew(key)
			require.NotNil(t, p)
			assert.Equal(t, wire.CodeUnavailable, p.Code)
			a.sync() // the old identity is as good as before
			chain, p := a.renew(key)
			require.Nil(t, p)
			a.use(key, chain)

			arm(w.node) // now at the promotion
			p = w.post(a, wire.SyncPath, a.request(), nil)
			require.NotNil(t, p)
			assert.Equal(t, wire.CodeUnavailable, p.Code)
			a.sync()
			stored, ok := w.view().Agent(a.id)
			require.True(t, ok)
			assert.Equal(t, pki.Fingerprint(a.chain[0]), stored.Current.Fingerprint)
		})
	}
}
