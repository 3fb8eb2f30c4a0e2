package sync

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	gosync "sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/coordinatortest"
	"github.com/certctl/certctl/shared/wire"
)

// Whatever goes wrong on the way, and whenever either side stops, the
// coordinator ends with the agent's inventory, and with each fact once and in
// order; each order is issued once.
func TestConvergesWhateverGoesWrong(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { convergence(t, seed) })
		})
	}
}

func convergence(t *testing.T, seed uint64) {
	h := newHost(t)
	h.coord.IdentityLifetime = 40 * time.Minute // so that it is renewed on the way
	h.enrol()
	var mu gosync.Mutex
	faulty := true
	faults := rand.New(rand.NewPCG(seed, 1))
	h.coord.Fault = func(*http.Request) coordinatortest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if !faulty || faults.IntN(2) == 0 {
			return coordinatortest.None
		}
		return coordinatortest.Fault(faults.IntN(int(coordinatortest.Hang) + 1))
	}
	h.start()

	acts := rand.New(rand.NewPCG(seed, 2))
	names := []string{"a", "b", "c", "d", "e"}
	var facts []string
	orders := 0
	for step := range 40 {
		name := names[acts.IntN(len(names))]
		switch acts.IntN(8) {
		case 0, 1, 2:
			h.certificate(name, fmt.Sprint("issuer ", step))
		case 3:
			require.NoError(t, h.store.Retire([]string{name}, time.Now(), func(*store.Certificate) wire.Event {
				return wire.Event{Kind: wire.EventRemoved, Certificate: name}
			}))
		case 4, 5:
			facts = append(facts, fmt.Sprint("fact ", step))
			h.fact(facts[len(facts)-1])
		case 6:
			orders++
			h.order(fmt.Sprintf("order-%04d", orders), name)
		case 7:
			h.restart()
		}
		if acts.IntN(3) == 0 {
			h.client.Kick()
		}
		h.pass(time.Duration(acts.Int64N(int64(2 * time.Minute))))
	}
	require.NoError(t, h.store.Restore(names)) // whose orders waited
	mu.Lock()
	faulty = false
	mu.Unlock()
	h.pass(20 * time.Minute)

	require.NoError(t, h.converged())
	a := h.agent()
	assert.Equal(t, append([]string{}, facts...), details(a))
	assert.Len(t, a.Orders, orders)
	assert.Equal(t, Connected, h.client.State().Standing)
	assert.NotZero(t, a.Promoted, "the identity was renewed on the way")
	assert.Nil(t, h.identity().Pending)
	renewals := 0
	for _, e := range a.Events {
		if e.Kind == wire.EventIdentityRenewed {
			renewals++
		}
	}
	assert.NotZero(t, renewals)
	assert.LessOrEqual(t, renewals, a.Promoted)
}

// A first inventory of several pages, larger than one body may be.
func TestLargeInventoryGoesInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		for i := range 1200 {
			h.certificate(fmt.Sprint("certificate ", i), "issuer")
		}
		for i := range 700 {
			h.fact(fmt.Sprint(i))
		}
		h.start()
		h.pass(time.Second)
		require.NoError(t, h.converged())
		assert.Len(t, details(h.agent()), 700)
		assert.Equal(t, 2, h.coord.Requests(wire.SyncPath))
		assert.Zero(t, h.agent().Resyncs)
	})
}

// A coordinator with a smaller limit is told less at once.
func TestTooLargeRequestsAreSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		h.coord.MaxRows = 130
		for i := range 300 {
			h.certificate(fmt.Sprint("certificate ", i), "issuer")
		}
		h.start()
		h.pass(time.Second)
		require.NoError(t, h.converged())
		assert.Equal(t, 125, h.client.limits.rows)
	})
}

// The coordinator was restored from a backup in which this agent has rows that
// it has no more, and lacks others.
func TestLostRowsComeBackInOneRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		for i := range 20 {
			h.certificate(fmt.Sprint(i), "issuer")
		}
		h.start()
		h.pass(10 * time.Second)
		require.NoError(t, h.converged())
		h.coord.Change(func() {
			a := h.coord.AgentLocked(h.agentID)
			delete(a.Rows, "3")
			a.Rows["ghost"] = wire.Row{Name: "ghost", Revision: 4, Data: []byte(`{"state":"valid"}`)}
		})
		before := h.coord.Requests(wire.SyncPath)
		h.pass(70 * time.Second)
		require.NoError(t, h.converged())
		assert.Equal(t, 1, h.agent().Resyncs)
		assert.Equal(t, before+2, h.coord.Requests(wire.SyncPath), "the sync that finds the difference, and the one that mends it")
	})
}

// A retry is the same request, byte for byte and number for number, so that the
// coordinator knows a duplicate when it sees one.
func TestRetryRepeatsTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		lose := 2
		h.coord.Fault = func(*http.Request) coordinatortest.Fault {
			if lose > 0 {
				lose--
				return coordinatortest.Lose
			}
			return coordinatortest.None
		}
		var bodies []string
		h.coord.Body = func(body []byte) { bodies = append(bodies, string(body)) }
		h.certificate("a", "issuer")
		h.fact("one")
		h.start()
		h.pass(20 * time.Second)
		require.NoError(t, h.converged())
		require.Len(t, bodies, 3)
		assert.Equal(t, bodies[0], bodies[1])
		assert.Equal(t, bodies[0], bodies[2])
	})
}

// What happens between a request that was lost and its retry is told in the same
// round, not after the next pause.
func TestRetryIsFollowedByTheNews(t *testing.T) {
	for name, happens := range map[string]func(*host){
		"row":   func(h *host) { h.certificate("a", "issuer") },
		"event": func(h *host) { h.fact("one") },
		"order": func(h *host) { h.order("order-of-a", "a") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				h.enrol()
				var up atomic.Bool
				h.network.Down = func() bool { return !up.Load() }
				var bodies atomic.Int32
				h.coord.Body = func([]byte) { bodies.Add(1) }
				h.start()
				h.pass(debounce / 2) // one attempt: after several the next may be far
				happens(h)
				up.Store(true)
				for range 1000 {
					if h.client.State().Standing == Connected {
						break
					}
					h.pass(10 * time.Millisecond)
				}
				require.Equal(t, Connected, h.client.State().Standing)
				assert.EqualValues(t, 2, bodies.Load(), "the retry and the news")
				h.pass(2 * time.Minute) // an order's result is collected later
				require.NoError(t, h.converged())
			})
		})
	}
}

// After a minute the request is made anew: its time would look like a wrong
// clock.
func TestOldRequestIsMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		down := time.Now().Add(time.Hour)
		h.coord.Fault = func(*http.Request) coordinatortest.Fault {
			if time.Now().Before(down) {
				return coordinatortest.Drop
			}
			return coordinatortest.None
		}
		h.start()
		h.pass(time.Minute)
		h.fact("while cut off")
		h.pass(70 * time.Minute)
		require.NoError(t, h.converged())
		assert.Equal(t, []string{"while cut off"}, details(h.agent()))
		assert.Less(t, h.agent().Skew.Abs(), time.Second)
	})
}
