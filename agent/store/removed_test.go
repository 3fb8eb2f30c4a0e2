package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/wire"
)

func removalOf(r *Certificate) wire.Event {
	return wire.Event{Kind: wire.EventRemoved, Certificate: r.Name}
}

// What is set aside is in nothing that is looked at, and its key still counts.
func TestRetiredCertificateIsOnlyKept(t *testing.T) {
	s := openTest(t, Options{})
	put(t, s, "web", epoch, epoch.Add(time.Hour))
	require.NoError(t, s.PutOrder(Order{Request: wire.OrderRequest{ID: "o1", Certificate: "web"}}))
	require.NoError(t, s.PutOrder(Order{Request: wire.OrderRequest{ID: "o2", Certificate: "other"}}))
	before, _, err := s.Certificate("web")
	require.NoError(t, err)
	require.NoError(t, s.Retire([]string{"none", "web"}, epoch, removalOf))

	names, err := s.Names()
	require.NoError(t, err)
	assert.Empty(t, names)
	due, err := s.Due(epoch.Add(24*time.Hour), 0)
	require.NoError(t, err)
	assert.Empty(t, due)
	horizon, err := s.Horizon(epoch.Add(24 * time.Hour))
	require.NoError(t, err)
	assert.Zero(t, horizon)
	page, err := s.Changes(0, 0)
	require.NoError(t, err)
	assert.Empty(t, page.Rows)
	assert.Len(t, page.Removed, 1)
	ids, err := s.KeyIDs()
	require.NoError(t, err)
	assert.True(t, ids["key-of-web"], "a sweep must leave its key alone")
	open, err := s.OpenOrders()
	require.NoError(t, err)
	require.Len(t, open, 1, "its order waits")
	assert.Equal(t, "o2", open[0].Request.ID)
	removed, err := s.Removed()
	require.NoError(t, err)
	assert.Equal(t, []Removed{{Certificate: before, At: epoch}}, removed)
	requireWhole(t, s)

	require.NoError(t, s.Restore([]string{"web", "none"}))
	after, found, err := s.Certificate("web")
	require.NoError(t, err)
	require.True(t, found)
	assert.Equal(t, before, after)
	open, err = s.OpenOrders()
	require.NoError(t, err)
	assert.Len(t, open, 2, "its order goes on")
	requireWhole(t, s)
}

func TestForgottenCertificateLeavesNothing(t *testing.T) {
	s := openTest(t, Options{})
	put(t, s, "web", epoch, epoch.Add(time.Hour))
	require.NoError(t, s.PutOrder(Order{Request: wire.OrderRequest{ID: "o1", Certificate: "web"}}))
	forgotten, err := s.Forget("web")
	require.NoError(t, err)
	assert.Nil(t, forgotten, "only what was set aside can be forgotten")
	require.NoError(t, s.Retire([]string{"web"}, epoch, removalOf))
	forgotten, err = s.Forget("web")
	require.NoError(t, err)
	assert.Equal(t, "key-of-web", forgotten.Certificate.Current.KeyID)
	ids, err := s.KeyIDs()
	require.NoError(t, err)
	assert.Empty(t, ids)
	orders, err := s.OrdersOf("web")
	require.NoError(t, err)
	assert.Empty(t, orders)
	requireWhole(t, s)
}

// A record that was made under the same name while something is set aside, as
// only an earlier version of the agent does, is the one that counts.
func TestRestoreLeavesANewerRecordAlone(t *testing.T) {
	s := openTest(t, Options{})
	put(t, s, "web", epoch, epoch.Add(time.Hour))
	require.NoError(t, s.Retire([]string{"web"}, epoch, removalOf))
	put(t, s, "web", epoch, epoch.Add(2*time.Hour))
	require.NoError(t, s.PutOrder(Order{Request: wire.OrderRequest{ID: "o1", Certificate: "web"}}))
	require.NoError(t, s.Restore([]string{"web"}))
	now, _, err := s.Certificate("web")
	require.NoError(t, err)
	assert.Equal(t, epoch.Add(2*time.Hour), now.Current.NotAfter)
	forgotten, err := s.Forget("web")
	require.NoError(t, err)
	assert.NotNil(t, forgotten)
	orders, err := s.OrdersOf("web")
	require.NoError(t, err)
	assert.Len(t, orders, 1, "the order is the newer one's")
	requireWhole(t, s)
}
