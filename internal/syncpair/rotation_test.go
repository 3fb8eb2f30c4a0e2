package syncpair

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/enroll"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

const year = 365 * 24 * time.Hour

// rotate takes one step of a rotation, and the server along.
func (c *coordinator) rotate(authority string, step ca.Step) {
	c.t.Helper()
	stored, ok := c.view().CA()
	require.True(c.t, ok)
	change, err := c.ca.Rotate(stored, ca.Rotation{Actor: "test", Authority: authority, Step: step})
	require.NoError(c.t, err)
	require.NoError(c.t, c.node.Do(change).Err())
	stored, _ = c.view().CA()
	require.NoError(c.t, c.ca.Refresh(stored))
}

func (c *coordinator) rotateRoot() {
	c.t.Helper()
	for _, step := range []ca.Step{ca.StepPublish, ca.StepActivate, ca.StepRetire} {
		c.rotate("root", step)
	}
}

// certifyNow gives the server a certificate that is good by the clock of the
// hosts, whatever the coordinator's says.
func (c *coordinator) certifyNow() {
	c.t.Helper()
	skew := c.skew.Swap(0)
	c.certify()
	c.skew.Store(skew)
}

func (c *coordinator) agent(h *host) *fleet.Agent {
	c.t.Helper()
	agent, ok := c.view().Agent(h.id)
	require.True(c.t, ok)
	return agent
}

// longAgo is a coordinator whose clock says that it is a year and a day ago.
func longAgo(t *testing.T) *coordinator {
	t.Helper()
	return newCoordinatorAt(t, -year-24*time.Hour)
}

// renewed waits until the host has an identity that is good today.
func (c *coordinator) renewed(h *host) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		identity, err := h.store.Identity()
		return err == nil && identity.Pending == nil && c.agent(h).Current.NotAfter.After(c.now())
	}, patience, 10*time.Millisecond, "the identity is not renewed")
}

// Off for a year. Meanwhile the root was rotated three times, the CA of
// identities replaced, and everything that the host knew of the coordinator has
// gone. It comes back by itself: its identity is renewed by proof of its key, its
// inventory and its facts arrive, and its order, which was placed before, gives
// one certificate. One that was retired meanwhile stays away.
func TestAYearOfRotations(t *testing.T) {
	c := longAgo(t)
	h, retired := c.enrolled(), c.enrolled()
	c.restart(false) // it stores orders, and signs none
	key, err := pki.GenerateKey(pki.DefaultKeyAlgorithm)
	require.NoError(t, err)
	csr, err := pki.CreateCSR(key, pki.MustParseNames("www.example.com"))
	require.NoError(t, err)
	const id = "order-0001"
	require.NoError(t, h.store.PutOrder(store.Order{Request: wire.OrderRequest{ID: id, Certificate: "www", CSR: csr}}))
	h.certificates(3)
	stop := h.run()
	c.agree(h)
	require.Eventually(t, func() bool {
		_, ok := c.view().Order(h.id, id)
		return ok
	}, patience, 10*time.Millisecond)
	stop()
	c.restart(true)
	before, err := h.store.Identity()
	require.NoError(t, err)
	first := c.ca.Root()

	for range 3 {
		c.skew.Add(int64(year / 4))
		c.rotateRoot()
		c.restart(true) // a kill between rotations loses nothing
	}
	c.rotate("identity", ca.StepPublish)
	c.rotate("issuing", ca.StepPublish)
	c.rotateRoot()
	c.skew.Store(0)
	require.NoError(t, c.node.Do(fleet.RetireAgent{Actor: "test", AgentID: retired.id}).Err())
	c.certify()
	require.False(t, first.Equal(c.ca.Root()))

	h.certificates(4)
	for _, detail := range []string{"one", "two", "three"} {
		require.NoError(t, h.store.Append(wire.Event{Kind: wire.EventIssued, Certificate: "www", Detail: detail}))
	}
	defer h.run()()
	c.agree(h)
	c.renewed(h)
	require.Eventually(t, func() bool {
		events, err := h.store.Events(0)
		return err == nil && len(events) == 0 && c.agent(h).TrustGeneration == 9
	}, patience, 10*time.Millisecond, "facts wait, or the coordinator has not heard of the newest generation")
	after, err := h.store.Identity()
	require.NoError(t, err)
	assert.EqualValues(t, 9, after.TrustGeneration, "four rotations of two generations each")
	assert.NotEqual(t, before.ChainPEM, after.ChainPEM)
	assert.Equal(t, c.ca.RootsPEM(), after.RootsPEM)
	assert.Equal(t, h.id, after.AgentID)
	require.Eventually(t, func() bool { return h.client.State().Standing == sync.Connected }, patience, 10*time.Millisecond, "the round that told it ends well")

	require.Eventually(t, func() bool {
		order, ok := c.view().Order(h.id, id)
		return ok && order.State == fleet.OrderCollected
	}, patience, 10*time.Millisecond)
	order, known, err := h.store.Order(id)
	require.NoError(t, err)
	require.True(t, known)
	require.Equal(t, wire.OrderIssued, order.Result.State)
	assert.Equal(t, 1, c.view().Rows(fleet.TableOrders), "nothing was ordered twice")

	stop = retired.run()
	require.Eventually(t, func() bool { return retired.client.State().Standing == sync.Retired }, patience, 10*time.Millisecond)
	stop()
	agent := c.agent(retired)
	assert.Equal(t, fleet.AgentRetired, agent.State)
	assert.Nil(t, agent.Pending, "it gets no new identity")
}

// The coordinator is restored from a backup of a year ago, which knows the host's
// first identity, and neither the one that it has renewed it for nor the
// rotations since.
func TestRestoredFromAnOlderState(t *testing.T) {
	c := longAgo(t)
	h := c.enrolled()
	h.certificates(1)
	stop := h.run()
	c.agree(h)
	c.node.Stop()
	backup := filepath.Join(t.TempDir(), "backup")
	require.NoError(t, os.CopyFS(backup, os.DirFS(c.dir)))
	c.start(true)
	c.rotate("root", ca.StepPublish)
	require.Eventually(t, func() bool { return c.agent(h).TrustGeneration == 2 }, patience, 10*time.Millisecond)
	c.skew.Store(-24 * int64(time.Hour))
	c.renewed(h)
	stop()
	c.node.Stop()
	c.dir = backup
	c.start(true)
	c.skew.Store(0)
	c.certify()
	stored, ok := c.view().CA()
	require.True(t, ok)
	require.Len(t, stored.Generations, 1)

	h.certificates(2)
	defer h.run()()
	c.agree(h)
	c.renewed(h)
	assert.Zero(t, c.agent(h).TrustGeneration, "it goes by a generation that the coordinator has lost: it shows as behind")
	behind, count := c.view().AgentsBehind(1, 10)
	assert.Equal(t, 1, count)
	require.Len(t, behind, 1)
	assert.Equal(t, h.id, behind[0].ID)
}

// A token that was made before a rotation enrols after it.
func TestATokenFromBeforeARotation(t *testing.T) {
	c := newCoordinator(t)
	token := c.token()
	c.rotateRoot()
	c.rotateRoot()
	c.certify()
	h := c.enrolledWith(token)
	defer h.run()()
	require.Eventually(t, func() bool { return c.agent(h).TrustGeneration == 5 }, patience, 10*time.Millisecond)
}

// The key of the identity is gone after a year: the host says what to do, and
// enrolling it anew is what it says.
func TestAKeyLostInAYear(t *testing.T) {
	c := longAgo(t)
	h := c.enrolled()
	identity, err := h.store.Identity()
	require.NoError(t, err)
	c.rotateRoot()
	c.skew.Store(0)
	c.certify()
	require.NoError(t, h.keys.Remove(identity.KeyID))
	_, err = h.keys.Load(identity.KeyID)
	require.ErrorIs(t, err, keys.ErrNotFound)
	stop := h.run()
	require.Eventually(t, func() bool { return h.client.State().LastError != "" }, patience, 10*time.Millisecond)
	assert.Contains(t, h.client.State().LastError, "enrol again with --replace")
	stop()
	_, err = enroll.Enroll(t.Context(), enroll.Config{
		Servers: []string{c.url}, Token: c.token(), Replace: true, Store: h.store, Keys: h.keys, Log: quiet,
	})
	require.NoError(t, err)
	defer h.run()()
	require.Eventually(t, func() bool { return h.client.State().Standing == sync.Connected }, patience, 10*time.Millisecond)
}
