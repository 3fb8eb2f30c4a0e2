package syncpair

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	issuer "github.com/certctl/certctl/agent/issuer/coordinator"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/runner"
	"github.com/certctl/certctl/shared/wire"
)

// slow is the authority of these tests, which only a coordinator speaks with. What its
// leader would do for an order, the test does.
const slow = "slow"

// slowly runs an agent with one certificate of that authority and returns its engine
// and what stops it.
func (h *host) slowly() (engine *renewal.Engine, stop func()) {
	h.t.Helper()
	log := slog.New(slog.NewTextHandler(h.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	client, err := sync.New(sync.Config{
		Store: h.store, Keys: h.keys, Log: log, Host: wire.HostReport{Hostname: "web1", OS: "linux", Arch: "amd64", Version: "1.0.0"},
		OnResult: func(name string) { engine.Wake(name) }, Dial: h.dial,
	})
	require.NoError(h.t, err)
	brokered, err := issuer.New(issuer.Config{Orders: h.store, Courier: client, Issuer: slow})
	require.NoError(h.t, err)
	engine, err = renewal.New(renewal.Config{
		Store: h.store, Keys: h.keys, ScratchDir: filepath.Join(h.t.TempDir(), "scratch"), Pace: renewal.Pace{TickInterval: 30 * time.Minute}, Log: log,
		Managed: []renewal.Managed{{
			Name: "www", Names: pki.MustParseNames("www.example.com"), KeyAlgorithm: pki.ECDSAP256,
			Issuers: []renewal.NamedIssuer{{Name: "coordinator/" + slow, Issuer: brokered}},
		}},
	})
	require.NoError(h.t, err)
	// Changes wait for the next sync, of which there are enough.
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- runner.Run(ctx, runner.Task{Name: "sync", Run: client.Run}, runner.Task{Name: "renewal", Run: engine.Run})
	}()
	return engine, func() {
		cancel()
		assert.NoError(h.t, <-ended)
	}
}

func (h *host) recorded() *store.Certificate {
	h.t.Helper()
	record, found, err := h.store.Certificate("www")
	require.NoError(h.t, err)
	require.True(h.t, found)
	return record
}

// orders are those of a host that the coordinator knows.
func (v *virtual) orders(host string) (list []*fleet.Order) {
	for order := range v.view().AllOrders() {
		if order.Agent == host {
			list = append(list, order)
		}
	}
	return list
}

// theOrder is the one order of a host.
func (v *virtual) theOrder(host string) *fleet.Order {
	v.t.Helper()
	orders := v.orders(host)
	require.Len(v.t, orders, 1, "one renewal is one order")
	return orders[0]
}

// says has the leader record how the order of a host stands.
func (v *virtual) says(host string, state fleet.OrderState, change func(*fleet.RecordOrder)) {
	v.t.Helper()
	if order := v.theOrder(host); order.State == fleet.OrderRequested {
		v.do(fleet.ClaimOrder{Agent: host, ID: order.ID, Revision: order.ModifyIndex, Node: "n1", Term: 1})
	}
	order := v.theOrder(host)
	p := fleet.RecordOrder{Agent: host, ID: order.ID, Revision: order.ModifyIndex, State: state, Brokering: *order.Brokering}
	if change != nil {
		change(&p)
	}
	v.do(p)
}

// TestAnOrderThatTakesWeeks: an order at a slow authority waits for a person for three
// weeks, while its agent is restarted every other day. It is one order, at both ends;
// host and coordinator show what it waits for; its agent comes no oftener than others,
// and the log stands still. When the authority has issued, the certificate is in
// service.
func TestAnOrderThatTakesWeeks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			interval = time.Hour
			days     = 21
			patience = 3 * interval // an agent comes after one and a half intervals at the latest
		)
		v, stopServer := newVirtual(t, 80, 100, interval)
		defer stopServer()
		h := v.host("host000000000001")
		_, stop := h.slowly()
		defer func() { stop() }()
		pass(30 * time.Second)
		id := v.theOrder(h.id).ID
		assert.Equal(t, "the order waits to be placed at slow", h.recorded().Waiting, "nobody waits for what takes its time")

		v.says(h.id, fleet.OrderPending, func(p *fleet.RecordOrder) {
			p.Brokering.Handle.Order, p.Brokering.Raw, p.Brokering.Detail = "4711", "processing", "order 4711 is being processed"
		})
		pass(time.Minute)
		assert.Equal(t, "slow works on the order: order 4711 is being processed", h.recorded().Waiting)
		assert.Empty(t, h.recorded().NeedsAttention)
		v.says(h.id, fleet.OrderNeedsPerson, func(p *fleet.RecordOrder) {
			p.Brokering.Detail, p.Brokering.Mend = "order 4711 waits for approval", "approve it in the account's portal"
		})
		pass(patience)
		const want = "the order at slow waits for a person: order 4711 waits for approval; approve it in the account's portal"
		assert.Equal(t, want, h.recorded().NeedsAttention)
		row, ok := v.view().Certificate(h.id, "www")
		require.True(t, ok)
		assert.True(t, row.Columns.Attention, "the centre sees it")
		assert.Contains(t, string(row.Data), `"waiting":"`+want)
		assert.Equal(t, wire.StateRenewing, row.Columns.State, "it is no failure")

		tables := []fleet.Table{fleet.TableOrders, fleet.TableCertificates}
		version := v.view().Version(tables...)
		v.mu.Lock()
		before := len(v.arrivals)
		v.mu.Unlock()
		for day := range days {
			if day%2 == 1 {
				stop()
				_, stop = h.slowly()
			}
			pass(24 * time.Hour)
			require.Equal(t, id, v.theOrder(h.id).ID, "day %d", day)
			require.Equal(t, want, h.recorded().NeedsAttention, "day %d", day)
		}
		assert.Equal(t, version, v.view().Version(tables...), "nothing is written for an order that waits")
		v.mu.Lock()
		syncs := len(v.arrivals) - before
		v.mu.Unlock()
		assert.Less(t, syncs, int(2*days*24*time.Hour/interval), "its agent comes no oftener than others")
		t.Logf("%d syncs in %d days", syncs, days)

		// Somebody approves it.
		v.says(h.id, fleet.OrderReady, nil)
		csr, err := pki.ParseCSR(v.theOrder(h.id).CSR)
		require.NoError(t, err)
		leaf, err := v.ca.IssueLeaf(csr.Names, csr.PublicKey, 0)
		require.NoError(t, err)
		chain, err := v.ca.LeafChain(leaf)
		require.NoError(t, err)
		v.says(h.id, fleet.OrderIssued, func(p *fleet.RecordOrder) {
			p.ChainPEM, p.Serial, p.Fingerprint, p.NotAfter = string(pki.EncodeChainPEM(chain)), pki.SerialHex(leaf), pki.Fingerprint(leaf), leaf.NotAfter.UTC()
		})
		pass(2 * patience)
		assert.Equal(t, pki.SerialHex(leaf), h.inService().Serial)
		assert.Empty(t, h.recorded().NeedsAttention+h.recorded().Waiting)
		assert.Equal(t, fleet.StageDelivered, v.theOrder(h.id).Stage())
		assert.Equal(t, id, v.theOrder(h.id).ID)
		row, _ = v.view().Certificate(h.id, "www")
		assert.False(t, row.Columns.Attention)
		assert.Equal(t, wire.StateValid, row.Columns.State)
		var kinds []fleet.Kind
		for _, fact := range v.log.facts {
			if fact.Object == id {
				kinds = append(kinds, fact.Kind)
			}
		}
		assert.Equal(t, []fleet.Kind{
			fleet.KindOrderRequested, fleet.KindOrderClaimed, fleet.KindOrderSubmitted, fleet.KindOrderNeedsPerson,
			fleet.KindOrderReady, fleet.KindOrderIssued, fleet.KindOrderDelivered,
		}, kinds)
	})
}

// An order that is taken back at the coordinator ends at the host, which says why and
// what to do, and orders no other one for a day unless somebody wants it to.
func TestAnOrderThatIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, stopServer := newVirtual(t, 80, 100, 30*time.Minute)
		defer stopServer()
		hosts := []*host{v.host("host000000000001"), v.host("host000000000002")}
		for i, end := range []func(order *fleet.Order){
			func(order *fleet.Order) {
				v.do(fleet.CancelOrder{Actor: "local", Agent: order.Agent, ID: order.ID, Note: "the wrong product"})
			},
			func(order *fleet.Order) {
				v.says(order.Agent, fleet.OrderUnknown, nil)
				v.do(fleet.ResolveOrder{Actor: "local", Agent: order.Agent, ID: order.ID, Action: fleet.ResolveGiveUp, Note: "the wrong product"})
			},
		} {
			h := hosts[i]
			engine, stop := h.slowly()
			pass(30 * time.Second)
			end(v.theOrder(h.id))
			pass(12 * time.Hour)
			assert.True(t, v.theOrder(h.id).Ended(), "nothing is ordered at once")
			record := h.recorded()
			assert.Contains(t, record.NeedsAttention, "the wrong product")
			assert.Contains(t, record.NeedsAttention, "certctl-agent renew www")
			assert.Empty(t, record.Waiting)
			row, ok := v.view().Certificate(h.id, "www")
			require.True(t, ok)
			assert.Contains(t, string(row.Data), "the wrong product")

			require.NoError(t, engine.Renew(t.Context(), "www"))
			pass(5 * time.Minute)
			assert.Len(t, v.orders(h.id), 2, "but when an operator asks for it")
			stop()
		}
	})
}
