package syncpair

import (
	"crypto"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// comeback is by how much an agent at most comes back later than it was told,
// and how long it waits at most after its first failure.
const comeback = 2 * time.Second

// ordered gives the host an order and facts that nobody knows yet.
func (h *host) ordered(facts int) crypto.Signer {
	h.t.Helper()
	key, err := pki.GenerateKey(pki.DefaultKeyAlgorithm)
	require.NoError(h.t, err)
	csr, err := pki.CreateCSR(key, pki.MustParseNames(h.id+".example.com"))
	require.NoError(h.t, err)
	require.NoError(h.t, h.store.PutOrder(store.Order{Request: wire.OrderRequest{ID: "order-of-" + h.id, Certificate: "www", CSR: csr}}))
	for i := range facts {
		require.NoError(h.t, h.store.Append(wire.Event{Kind: wire.EventIssued, Detail: fmt.Sprintf("fact %d", i)}))
	}
	return key
}

// A whole fleet with open orders and facts comes back in one moment, as after a
// power failure, and is more than the coordinator has places for. Who finds none
// is told when to come back and does so then; from the first moment on the fleet
// comes at the rate that is set, also those who found a place; and although
// answers get lost, each order has one certificate and each fact is there once.
func TestAHerdReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			hosts, inFlight, facts = 160, 80, 2

			rate   = 2                          // syncs per second
			period = hosts / rate * time.Second // longer than the interval that is set
		)
		v, stop := newVirtual(t, inFlight, rate, time.Minute)
		defer stop()
		unlucky := map[string]bool{} // their first answer gets lost
		v.loses = func(agent string) bool {
			v.mu.Lock()
			defer v.mu.Unlock()
			lost := unlucky[agent]
			delete(unlucky, agent)
			return lost
		}
		keys := map[string]crypto.Signer{}
		var herd []*host
		for i := range hosts {
			h := v.host(fmt.Sprintf("host%012d", i))
			herd, keys[h.id], unlucky[h.id] = append(herd, h), h.ordered(facts), i%8 == 0
		}
		require.Equal(t, period, v.agents.Period())

		v.began = time.Now()
		for _, h := range herd {
			defer h.run()()
		}
		pass(3 * period)
		v.mu.Lock()
		defer v.mu.Unlock()

		// In the first moment all are there, and there are places for so many.
		first := v.arrivals[:0:0]
		var later []time.Duration
		of := map[string][]arrival{}
		for _, one := range v.arrivals {
			if of[one.agent] = append(of[one.agent], one); one.at == 0 {
				first = append(first, one)
			} else {
				later = append(later, one.at)
			}
		}
		require.Len(t, first, hosts)
		refused, lost := 0, 0
		for _, one := range v.arrivals {
			switch one.status {
			case http.StatusOK:
				continue
			case 0:
				lost++
				continue
			}
			refused++
			assert.Zero(t, one.at, "who comes when told finds a place")
			assert.Equal(t, http.StatusServiceUnavailable, one.status)
			assert.Equal(t, wire.CodeOverloaded, one.code)
			assert.GreaterOrEqual(t, one.retryAfter, time.Second)
			assert.LessOrEqual(t, one.retryAfter, period+2*time.Second, "rounded up")
		}
		assert.Equal(t, hosts-inFlight, refused)
		assert.Equal(t, hosts/8, lost, "answers")

		// Each comes back when it was told, and nobody waits long.
		for id, visits := range of {
			for i, one := range visits[:len(visits)-1] {
				if wait := visits[i+1].at - one.at; one.retryAfter > 0 {
					assert.GreaterOrEqual(t, wait, one.retryAfter, id)
					assert.LessOrEqual(t, wait, one.retryAfter+comeback, id)
				}
			}
			answered := 0
			for _, one := range visits {
				if one.status == http.StatusOK {
					answered++
					assert.True(t, answered > 1 || one.at <= period+4*comeback, "%s waited %v for its first answer", id, one.at)
				}
			}
			assert.GreaterOrEqual(t, answered, 2, id)
		}

		// From then on no quarter of a period, wherever it begins, has much more
		// than its share. Chance makes it less than twice that; those who found a
		// place, if they came back as they left, would make it two and a half times.
		slices.Sort(later)
		const share = hosts / 4
		most, end := 0, 0
		for begin := range later {
			for end < len(later) && later[end] < later[begin]+period/4 {
				end++
			}
			most = max(most, end-begin)
		}
		t.Logf("at most %d arrivals in %v, where the rate gives %d", most, period/4, share)
		assert.LessOrEqual(t, most, 9*share/4)

		v.checkHerd(herd, keys, facts)
	})
}

// checkHerd finds one certificate for each order, on both sides, and each fact
// once.
func (v *virtual) checkHerd(herd []*host, keys map[string]crypto.Signer, facts int) {
	v.t.Helper()
	v.log.mu.Lock()
	defer v.log.mu.Unlock()
	placed, issued, told := map[string]int{}, map[string]int{}, map[string]int{}
	for _, fact := range v.log.facts {
		switch fact.Kind {
		case fleet.KindOrderRequested:
			placed[fact.Object]++
		case fleet.KindOrderIssued:
			issued[fact.Object]++
		case fleet.Kind(wire.EventIssued):
			var event wire.Event
			assert.NoError(v.t, json.Unmarshal(fact.Detail, &event))
			told[fact.Agent+" "+event.Detail]++
		}
	}
	assert.Len(v.t, issued, len(herd))
	assert.Len(v.t, told, facts*len(herd))
	assert.Equal(v.t, len(herd), v.view().Rows(fleet.TableOrders))
	serials := map[string]bool{}
	for _, h := range herd {
		id := "order-of-" + h.id
		assert.Equal(v.t, 1, placed[id], id)
		assert.Equal(v.t, 1, issued[id], id)
		for i := range facts {
			assert.Equal(v.t, 1, told[fmt.Sprintf("%s fact %d", h.id, i)], h.id)
		}
		order, _, err := h.store.Order(id)
		require.NoError(v.t, err)
		require.NotNil(v.t, order.Result, id)
		chain, err := pki.ParseChainPEM([]byte(order.Result.Chain))
		require.NoError(v.t, err)
		require.NoError(v.t, pki.MatchKey(chain[0], keys[h.id]))
		stored, ok := v.view().Order(h.id, id)
		require.True(v.t, ok)
		assert.Equal(v.t, stored.Serial, pki.SerialHex(chain[0]))
		serials[stored.Serial] = true
		left, err := h.store.Events(0)
		require.NoError(v.t, err)
		assert.Empty(v.t, left)
	}
	assert.Len(v.t, serials, len(herd))
}
