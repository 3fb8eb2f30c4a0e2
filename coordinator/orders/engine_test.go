package orders_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/internal/fakeca"
)

// Every vendor's order goes from the agent's request to its delivery.
func TestAnOrderIsDelivered(t *testing.T) {
	for kind, start := range fakes {
		t.Run(kind, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				v := start(t, fakeca.Config{Delay: 90 * time.Second})
				e := w.engine("n1", issuers(t, v))
				e.lead()
				defer e.lose()
				pass(time.Minute)
				p := placement(t, "o1", kind, "www.example.com", "api.example.com")
				w.sync("a", []fleet.OrderPlacement{p})
				e.Wake()
				pass(10 * time.Minute)
				w.delivered(p)
				once(t, v, 1)
				assert.Equal(t, 1, w.count(fleet.TypeClaimOrder))
				// Nothing waits for the clock that need not.
				b := w.order("o1").Brokering
				assert.Less(t, b.Claim.At.Sub(w.order("o1").PlacedAt), 100*time.Millisecond, "from the request to the claim")
				assert.Less(t, b.FetchedAt.Sub(b.ReadyAt), 100*time.Millisecond, "from the authority's word to the certificate")
			})
		})
	}
}
