package store_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// An identity and the fact about it are stored together or not at all.
func TestUpdateIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "state.db")
	s, err := store.Open(path, store.Options{})
	require.NoError(t, err)
	refused := errors.New("not now")
	fact := wire.Event{Kind: wire.EventIdentityRenewed, Serial: "01"}
	err = s.UpdateIdentity(func(current *store.Identity) (*store.Identity, error) {
		assert.Nil(t, current)
		return &store.Identity{AgentID: "a"}, refused
	}, fact)
	require.ErrorIs(t, err, refused)
	require.NoError(t, s.UpdateIdentity(func(*store.Identity) (*store.Identity, error) {
		return &store.Identity{AgentID: "a", Enrolling: &store.Enrolling{TokenID: "t", KeyID: "k1"}}, nil
	}, fact))
	require.NoError(t, s.Close())

	s, err = store.Open(path, store.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	ids, err := s.KeyIDs()
	require.NoError(t, err)
	assert.Equal(t, map[string]bool{"k1": true}, ids)
	events, err := s.Events(0)
	require.NoError(t, err)
	require.Len(t, events, 1)
	assert.Equal(t, "01", events[0].Serial)
	require.NoError(t, s.UpdateIdentity(func(current *store.Identity) (*store.Identity, error) {
		assert.Equal(t, "a", current.AgentID)
		return nil, nil
	}))
	identity, err := s.Identity()
	require.NoError(t, err)
	assert.Nil(t, identity)
}

func TestOrdersOf(t *testing.T) {
	s, err := store.Open(filepath.Join(t.TempDir(), "state", "state.db"), store.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	for _, id := range []string{"order-1", "order-2", "order-3"} {
		certificate := "web"
		if id == "order-2" {
			certificate = "mail"
		}
		require.NoError(t, s.PutOrder(store.Order{Request: wire.OrderRequest{ID: id, Certificate: certificate}}))
	}
	_, err = s.SetOrderResult(wire.OrderResult{ID: "order-3", State: wire.OrderIssued, Chain: "x"})
	require.NoError(t, err)
	orders, err := s.OrdersOf("web")
	require.NoError(t, err)
	require.Len(t, orders, 2)
	assert.Equal(t, "order-1", orders[0].Request.ID)
	assert.False(t, orders[0].Collected)
	assert.True(t, orders[1].Collected)
}
