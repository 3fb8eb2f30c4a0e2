package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestChangesPages(t *testing.T) {
	s := openTest(t, Options{})
	const rows = 700
	require.NoError(t, s.write(commitCertificates, func(c *change) error { // one transaction, for speed
		for i := range rows {
			record := &Certificate{Name: fmt.Sprintf("c-%04d", i), Deployments: map[string]Deployment{},
				LastError: strings.Repeat("x", wire.MaxTextLen), NeedsAttention: strings.Repeat("y", wire.MaxTextLen)}
			for d := range 3 {
				record.Deployments[fmt.Sprint(d)] = Deployment{Detail: strings.Repeat("z", wire.MaxTextLen)}
			}
			if err := c.storeCertificate(places{}, record, true); err != nil {
				return err
			}
		}
		return nil
	}))
	after, total, pages := uint64(0), 0, 0
	for {
		page, err := s.Changes(after, 0)
		require.NoError(t, err)
		body, err := json.Marshal(page.Rows)
		require.NoError(t, err)
		require.LessOrEqual(t, len(body), maxChangesBytes)
		require.LessOrEqual(t, len(page.Rows), wire.MaxRows)
		require.Equal(t, page.Rows[len(page.Rows)-1].Revision, page.Upto)
		total += len(page.Rows)
		after = page.Upto
		pages++
		if page.Upto == page.Head {
			break
		}
	}
	assert.Equal(t, rows, total)
	assert.Greater(t, pages, 1)

	page, err := s.Changes(after, 0)
	require.NoError(t, err)
	assert.Empty(t, page.Rows)
	assert.Equal(t, page.Head, page.Upto)
	page, err = s.Changes(after+100, 0)
	require.NoError(t, err)
	assert.Equal(t, after, page.Upto, "a coordinator that knows more than we do gets nothing")
}

func TestClockMark(t *testing.T) {
	s := openTest(t, Options{})
	mark, err := s.ClockMark()
	require.NoError(t, err)
	assert.Zero(t, mark)
	want := ClockMark{Time: epoch, Elapsed: time.Hour, BootID: "b", Vouched: true}
	require.NoError(t, s.SaveClockMark(want))
	mark, err = s.ClockMark()
	require.NoError(t, err)
	assert.Equal(t, want, mark)
	requireWhole(t, s)
}

func TestRemovalsLastUntilAcknowledged(t *testing.T) {
	s := openTest(t, Options{})
	put(t, s, "a", epoch, epoch) // revision 1
	put(t, s, "b", epoch, epoch) // 2
	removed, err := remove(s, "a", eventOf(wire.EventRemoved, "a"))
	require.NoError(t, err)
	require.Equal(t, "a", removed.Name)
	_, err = remove(s, "b")
	require.NoError(t, err)
	page, err := s.Changes(2, 0)
	require.NoError(t, err)
	assert.Equal(t, []wire.Removal{{Name: "a", Revision: 3}, {Name: "b", Revision: 4}}, page.Removed)
	assert.Equal(t, wire.Digest{}, page.Digest)

	require.NoError(t, s.SaveSyncState(SyncState{AckedRevision: 3, LastSuccess: epoch}))
	page, err = s.Changes(2, 0)
	require.NoError(t, err)
	assert.Equal(t, []wire.Removal{{Name: "b", Revision: 4}}, page.Removed)
	state, err := s.SyncState()
	require.NoError(t, err)
	assert.Equal(t, SyncState{AckedRevision: 3, LastSuccess: epoch}, state)

	put(t, s, "b", epoch, epoch)
	page, err = s.Changes(3, 0)
	require.NoError(t, err)
	assert.Empty(t, page.Removed, "it is back")
	require.Len(t, page.Rows, 1)
	assert.Equal(t, uint64(5), page.Rows[0].Revision)

	require.NoError(t, s.SaveSyncState(SyncState{AckedRevision: 900}), "the coordinator knows more than this copy of the file")
	put(t, s, "c", epoch, epoch)
	page, err = s.Changes(900, 0)
	require.NoError(t, err)
	require.Len(t, page.Rows, 1)
	assert.Equal(t, uint64(901), page.Rows[0].Revision)
	require.Error(t, s.SaveSyncState(SyncState{AckedRevision: 1 << 63}))
	requireWhole(t, s)
}

func TestSchedule(t *testing.T) {
	s := openTest(t, Options{})
	_, ok, err := s.NextDue()
	require.NoError(t, err)
	require.False(t, ok)
	horizon, err := s.Horizon(epoch)
	require.NoError(t, err)
	require.Zero(t, horizon)

	put(t, s, "late", epoch.Add(time.Hour), epoch.AddDate(0, 1, 0))
	put(t, s, "b", epoch, time.Time{})
	put(t, s, "a", epoch, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC))
	put(t, s, "first", epoch.Add(-time.Nanosecond), time.Time{})
	put(t, s, "never", time.Time{}, time.Time{})
	due, err := s.Due(epoch, 0)
	require.NoError(t, err)
	assert.Equal(t, []string{"first", "a", "b"}, due)
	due, err = s.Due(epoch, 2)
	require.NoError(t, err)
	assert.Equal(t, []string{"first", "a"}, due)
	due, err = s.Due(epoch.Add(-2), 0)
	require.NoError(t, err)
	assert.Empty(t, due)
	next, ok, err := s.NextDue()
	require.NoError(t, err)
	assert.True(t, ok && next.Equal(epoch.Add(-time.Nanosecond)))
	for _, name := range []string{"b", "first", "never"} {
		_, err = remove(s, name)
		require.NoError(t, err)
	}
	horizon, err = s.Horizon(epoch)
	require.NoError(t, err)
	assert.True(t, horizon.SafeUntil.Equal(epoch.AddDate(0, 1, 0)))
	_, err = remove(s, "late")
	require.NoError(t, err)
	horizon, err = s.Horizon(epoch)
	require.NoError(t, err)
	assert.Equal(t, 9999, horizon.SafeUntil.Year())
	assert.Empty(t, horizon.NotSafe)
}

func TestOrders(t *testing.T) {
	s := openTest(t, Options{})
	request := wire.OrderRequest{ID: "o-2", Certificate: "web", CSR: []byte{1}}
	require.NoError(t, s.PutOrder(Order{Request: request}))
	require.NoError(t, s.PutOrder(Order{Request: wire.OrderRequest{ID: "o-1", CSR: []byte{1}}, PlacedAt: epoch.Add(time.Second)}))
	require.NoError(t, s.PutOrder(Order{Request: request, PlacedAt: epoch.Add(time.Hour)}), "the same again changes nothing")
	open, err := s.OpenOrders()
	require.NoError(t, err)
	require.Len(t, open, 2)
	assert.Equal(t, Order{Request: request, PlacedAt: epoch}, open[0])

	other := request
	other.CSR = []byte{2}
	require.ErrorIs(t, s.PutOrder(Order{Request: other}), ErrOrderConflict)
	require.Error(t, s.PutOrder(Order{}))
	require.Error(t, s.PutOrder(Order{Request: wire.OrderRequest{ID: "o-9"}, Collected: true}))
	for _, bad := range []wire.OrderResult{
		{ID: "o-2", State: wire.OrderIssued}, {ID: "o-2", State: wire.OrderRejected}, {ID: "o-2", State: "magic"}, {State: wire.OrderPending},
	} {
		_, err := s.SetOrderResult(bad)
		require.Error(t, err)
	}

	known, err := s.SetOrderResult(wire.OrderResult{ID: "o-2", State: wire.OrderPending})
	require.NoError(t, err)
	assert.True(t, known)
	order, found, err := s.Order("o-2")
	require.NoError(t, err)
	require.True(t, found)
	require.Nil(t, order.Result)

	issued := wire.OrderResult{ID: "o-2", State: wire.OrderIssued, Chain: "PEM"}
	for range 2 {
		known, err = s.SetOrderResult(issued)
		require.NoError(t, err)
		assert.True(t, known)
	}
	_, err = s.SetOrderResult(wire.OrderResult{ID: "o-2", State: wire.OrderIssued, Chain: "another"})
	require.NoError(t, err)
	order, _, err = s.Order("o-2")
	require.NoError(t, err)
	assert.Equal(t, &issued, order.Result, "the first result stays")
	assert.True(t, order.Collected)
	open, err = s.OpenOrders()
	require.NoError(t, err)
	assert.Len(t, open, 1)

	known, err = s.SetOrderResult(wire.OrderResult{ID: "gone", State: wire.OrderRejected, Problem: &wire.Problem{}})
	require.NoError(t, err)
	assert.False(t, known)
	require.NoError(t, s.DeleteOrder("o-2"))
	collected, err := s.CollectedOrders()
	require.NoError(t, err)
	assert.Equal(t, []string{"gone", "o-2"}, collected, "the coordinator is told though the orders are gone")
	require.NoError(t, s.ForgetOrders(collected))
	collected, err = s.CollectedOrders()
	require.NoError(t, err)
	assert.Empty(t, collected)
	_, found, err = s.Order("o-2")
	require.NoError(t, err)
	assert.False(t, found)
	requireWhole(t, s)
}

func TestIdentityAndIssuerState(t *testing.T) {
	s := openTest(t, Options{})
	none, err := s.Identity()
	require.NoError(t, err)
	require.Nil(t, none)
	want := &Identity{AgentID: "a", Servers: []string{"https://c"}, KeyID: "k1", RenewAt: epoch, Pending: &PendingIdentity{KeyID: "k2"}}
	require.NoError(t, s.SaveIdentity(want))
	got, err := s.Identity()
	require.NoError(t, err)
	assert.Equal(t, want, got)

	state, err := s.IssuerState("le")
	require.NoError(t, err)
	require.Nil(t, state)
	require.NoError(t, s.SaveIssuerState("le", json.RawMessage(`{"account":{"key_id":"k3"},"list":["k4",5,null]}`)))
	state, err = s.IssuerState("le")
	require.NoError(t, err)
	assert.JSONEq(t, `{"account":{"key_id":"k3"},"list":["k4",5,null]}`, string(state))
	require.Error(t, s.SaveIssuerState("le", json.RawMessage(`{`)))
	require.Error(t, s.SaveIssuerState("", json.RawMessage(`{}`)))

	require.NoError(t, s.Update("web", func(tx *CertificateTx) error {
		tx.Record.Current = &Generation{KeyID: "k5", KeyAlgorithm: pki.ECDSAP256}
		tx.Record.Next = &Generation{KeyID: "k6", KeyAlgorithm: pki.ECDSAP256}
		tx.Record.Previous = &Generation{KeyID: "k7", KeyAlgorithm: pki.ECDSAP256}
		tx.Record.OrderState = json.RawMessage(`"k8"`)
		tx.Record.Deployments = map[string]Deployment{"d": {State: json.RawMessage(`{"k9":{}}`)}}
		return nil
	}))
	ids, err := s.KeyIDs()
	require.NoError(t, err)
	for i := 1; i <= 9; i++ {
		assert.True(t, ids[fmt.Sprintf("k%d", i)], "k%d", i)
	}
	assert.False(t, ids[""])

	require.NoError(t, s.SaveIdentity(nil))
	require.NoError(t, s.SaveIssuerState("le", nil))
	_, err = remove(s, "web")
	require.NoError(t, err)
	ids, err = s.KeyIDs()
	require.NoError(t, err)
	assert.Empty(t, ids)
	records, err := s.Certificates()
	require.NoError(t, err)
	assert.Empty(t, records)
}

func TestUpdateIdentity(t *testing.T) {
	s := openTest(t, Options{})
	set := func(id string) func(*Identity) (*Identity, error) {
		return func(*Identity) (*Identity, error) { return &Identity{AgentID: id}, nil }
	}
	require.NoError(t, s.UpdateIdentity(set("a"), eventOf(wire.EventIdentityRenewed, "")))
	refused := errors.New("refused")
	err := s.UpdateIdentity(func(current *Identity) (*Identity, error) {
		require.Equal(t, "a", current.AgentID)
		current.AgentID = "b"
		return current, refused
	}, eventOf("x", ""))
	require.Equal(t, refused, err)
	got, err := s.Identity()
	require.NoError(t, err)
	assert.Equal(t, "a", got.AgentID)
	commit := lastCommit(t, s)
	require.NoError(t, s.UpdateIdentity(set("a")))
	assert.Equal(t, commit, lastCommit(t, s))
	require.NoError(t, s.UpdateIdentity(func(*Identity) (*Identity, error) { return nil, nil }))
	got, err = s.Identity()
	require.NoError(t, err)
	assert.Nil(t, got)
	events, err := s.Events(0)
	require.NoError(t, err)
	assert.Len(t, events, 1)
}

func TestOrdersOf(t *testing.T) {
	s := openTest(t, Options{})
	for _, id := range []string{"o-2", "o-1"} {
		require.NoError(t, s.PutOrder(Order{Request: wire.OrderRequest{ID: id, Certificate: "web"}}))
	}
	require.NoError(t, s.PutOrder(Order{Request: wire.OrderRequest{ID: "o-3", Certificate: "mail"}}))
	_, err := s.SetOrderResult(wire.OrderResult{ID: "o-2", State: wire.OrderRejected, Problem: &wire.Problem{}})
	require.NoError(t, err)
	orders, err := s.OrdersOf("web")
	require.NoError(t, err)
	require.Len(t, orders, 2)
	assert.Equal(t, "o-1", orders[0].Request.ID)
	assert.False(t, orders[0].Collected)
	assert.True(t, orders[1].Collected)
	orders, err = s.OrdersOf("none")
	require.NoError(t, err)
	assert.Empty(t, orders)
}
