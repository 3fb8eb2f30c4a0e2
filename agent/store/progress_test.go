package store

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/wire"
)

// What an order waits for is kept with it, written only when it is news, and never of
// an order that has a result or is not known here.
func TestProgressOfAnOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "state.db")
	s, err := Open(path, Options{})
	require.NoError(t, err)
	for _, id := range []string{"order-0001", "order-0002"} {
		require.NoError(t, s.PutOrder(Order{Request: wire.OrderRequest{ID: id, Certificate: "web", CSR: []byte("csr")}}))
	}
	waits := wire.OrderProgress{Stage: wire.OrderNeedsPerson, Detail: "waits for approval", Mend: "approve it"}
	set := func(id string, p wire.OrderProgress) bool {
		t.Helper()
		changed, err := s.SetOrderProgress(id, p)
		require.NoError(t, err)
		return changed
	}
	assert.True(t, set("order-0001", waits))
	assert.False(t, set("order-0001", waits), "it is known")
	assert.False(t, set("order-0003", waits))
	_, known, err := s.Order("order-0003")
	require.NoError(t, err)
	assert.False(t, known)
	_, err = s.SetOrderProgress("", waits)
	require.Error(t, err)

	require.NoError(t, s.Close())
	s, err = Open(path, Options{})
	require.NoError(t, err)
	defer s.Close()
	order, _, err := s.Order("order-0001")
	require.NoError(t, err)
	assert.Equal(t, waits, order.Progress)
	_, err = s.SetOrderResult(wire.OrderResult{ID: "order-0001", State: wire.OrderIssued, Chain: "chain"})
	require.NoError(t, err)
	assert.False(t, set("order-0001", wire.OrderProgress{Stage: wire.OrderAtAuthority}), "a late answer")
	open, err := s.OpenOrders()
	require.NoError(t, err)
	require.Len(t, open, 1)
	assert.Zero(t, open[0].Progress)
}
