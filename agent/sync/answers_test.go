package sync

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/coordinatortest"
	"github.com/certctl/certctl/shared/wire"
)

func TestBrokenResultsKeepNothingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.start()
		h.pass(time.Second)
		h.order("order-0001", "a")
		h.coord.Change(func() {
			h.coord.AgentLocked(h.agentID).Orders["order-gone"] = &wire.OrderResult{ID: "order-gone", State: wire.OrderIssued, Chain: "x"}
			h.coord.AgentLocked(h.agentID).Orders["order-bad1"] = &wire.OrderResult{ID: "order-bad1", State: wire.OrderIssued}
			h.coord.AgentLocked(h.agentID).Orders["order-bad2"] = &wire.OrderResult{ID: "order-bad2", State: "strange"}
		})
		arrived := h.client.Results()
		h.client.Urge()
		h.pass(2 * time.Second)
		select {
		case <-arrived:
		default:
			assert.Fail(t, "the result was not announced")
		}
		order, known, err := h.store.Order("order-0001")
		require.NoError(t, err)
		require.True(t, known)
		require.NotNil(t, order.Result)
		assert.Equal(t, wire.OrderIssued, order.Result.State)
		h.stop()
		assert.Equal(t, []string{"a"}, h.results)
	})
}

// More open orders than go into one request: each is placed at once, and then
// all are repeated in turn.
func TestManyOpenOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.coord.HoldOrders = true
		for i := range 120 {
			h.order(fmt.Sprintf("order-%04d", i), fmt.Sprint("c", i))
		}
		h.start()
		h.pass(time.Second)
		assert.Len(t, h.agent().Placed, 120)
		assert.Equal(t, 3, h.coord.Requests(wire.SyncPath))
		h.pass(4 * time.Minute)
		for id, times := range h.agent().Placed {
			assert.GreaterOrEqual(t, times, 2, id)
		}
		h.coord.Change(func() { h.coord.HoldOrders = false })
		h.pass(10 * time.Minute)
		require.NoError(t, h.converged())
	})
}

// What an order waits for at an authority is stored and told when it is news, and not
// at each answer; its results are those of any order.
func TestWhatAPendingOrderWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.coord.HoldOrders = true
		h.order("order-0001", "a")
		made := time.Now()
		h.start()
		h.pass(time.Minute)
		assert.Empty(t, h.results, "a coordinator of before says nothing of it")
		waits := wire.OrderProgress{Stage: wire.OrderNeedsPerson, Detail: "waits for approval", Mend: "approve it"}
		h.coord.Change(func() { h.coord.Progress = waits })
		h.pass(10 * time.Minute)
		stored := func() wire.OrderProgress {
			order, known, err := h.store.Order("order-0001")
			require.NoError(t, err)
			require.True(t, known)
			require.Nil(t, order.Result)
			return order.Progress
		}
		assert.Equal(t, waits, stored())
		assert.Equal(t, []string{"a"}, h.results, "its renewal is woken once")
		h.coord.Change(func() { h.coord.Progress = wire.OrderProgress{Stage: "no word", Detail: "x"} })
		h.pass(10 * time.Minute)
		assert.Equal(t, waits, stored(), "what makes no sense is left out")
		h.restart()
		h.pass(time.Minute)
		assert.Equal(t, waits, stored())
		assert.Equal(t, made.UTC(), h.agent().MadeAt["order-0001"].UTC(), "the coordinator can tell when it was made")

		h.coord.Change(func() { h.coord.HoldOrders = false })
		h.pass(10 * time.Minute)
		order, _, err := h.store.Order("order-0001")
		require.NoError(t, err)
		require.NotNil(t, order.Result)
		assert.Equal(t, wire.OrderIssued, order.Result.State)
		assert.Equal(t, []string{"a", "a"}, h.results)
	})
}

// The store was restored from an old copy: what the coordinator knows of later
// days goes, and new facts are not taken for old ones.
func TestStoreThatWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.certificate("a", "issuer")
		h.start()
		h.pass(time.Second)
		identity := h.identity()
		for i := range 30 {
			h.certificate(fmt.Sprint(i), "issuer")
			h.fact(fmt.Sprint("before ", i))
		}
		h.client.Kick()
		h.pass(5 * time.Second)
		h.crash()

		// An older state with the same keys.
		require.NoError(t, os.RemoveAll(filepath.Join(h.dir, "state")))
		h.open()
		require.NoError(t, h.store.SaveIdentity(identity))
		h.certificate("a", "another issuer")
		h.start()
		h.pass(2 * time.Minute)
		h.fact("after")
		h.client.Kick()
		h.pass(2 * time.Second)
		require.NoError(t, h.converged())
		assert.Len(t, h.agent().Rows, 1)
		all := details(h.agent())
		assert.Equal(t, "after", all[len(all)-1])
	})
}

func TestLargeOrEmptyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.coord.Raw = bytes.Repeat([]byte(" "), 9<<20)
		h.start()
		h.pass(time.Second)
		assert.Contains(t, h.client.State().LastError, "larger than")
		h.coord.Change(func() { h.coord.Raw = []byte("[]") })
		h.pass(10 * time.Minute)
		assert.Contains(t, h.client.State().LastError, "cannot be read")
		h.coord.Change(func() { h.coord.Raw = nil })
		h.pass(6 * time.Minute)
		assert.Equal(t, Connected, h.client.State().Standing)
	})
}

func TestNewChecksItsConfig(t *testing.T) {
	h := &host{t: t, dir: t.TempDir(), log: slog.New(slog.DiscardHandler), stop: func() {}}
	h.open()
	t.Cleanup(h.crash)
	for field, cfg := range map[string]Config{
		"Store":   {Keys: h.keys, Log: h.log},
		"Keys":    {Store: h.store, Log: h.log},
		"Log":     {Store: h.store, Keys: h.keys},
		"Timeout": {Store: h.store, Keys: h.keys, Log: h.log, Timeout: -1},
	} {
		_, err := New(cfg)
		assert.ErrorContains(t, err, field)
	}
}

// A store that cannot be trusted any more ends the client.
func TestUnknownStateOfTheStoreEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		client, err := New(Config{Store: h.store, Keys: h.keys, Log: h.log})
		require.NoError(t, err)
		client.dial = h.network.Dial
		client.identities = &faultyIdentities{identities: h.store, read: store.ErrStateUnknown}
		assert.ErrorIs(t, client.Run(context.Background()), store.ErrStateUnknown)
	})
}

// With several servers, one that is out of order is passed over at once.
func TestSecondServerTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		identity := h.identity()
		identity.Servers = []string{"https://127.0.0.1:1", "https://" + coordinatortest.Host}
		require.NoError(t, h.store.SaveIdentity(identity))
		h.coord.Fault = func(r *http.Request) coordinatortest.Fault {
			if strings.HasPrefix(r.Host, "127.") {
				return coordinatortest.Unavailable
			}
			return coordinatortest.None
		}
		h.start()
		h.pass(time.Second)
		assert.Equal(t, Connected, h.client.State().Standing)
		assert.Equal(t, "https://"+coordinatortest.Host, h.client.State().Server)
	})
}
