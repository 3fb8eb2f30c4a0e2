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
				p := placement(t, "o1", kind, "www.example.com", "api.example.com")
				w.sync("a", []fleet.OrderPlacement{p})
				e.Wake()
				pass(10 * time.Minute)
				w.delivered(p)
				once(t, v, 1)
				assert.Equal(t, 1, w.count(fleet.TypeClaimOrder))
			})
		})
	}
}
