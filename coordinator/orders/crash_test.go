package orders_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/internal/fakeca"
)

// errCrash is what a node meets that stops at this moment: nothing that it does any
// more gets anywhere.
var errCrash = errors.New("the node has stopped")

// isResult reports whether a command stores what came of a placement.
func isResult(c fleet.Command) bool { return c.Type == fleet.TypeRecordOrder }

// A node that stops at any point around a placement leaves an order that the next
// leader goes on with, and that is there once.
func TestANodeThatStopsLeavesWhatTheNextGoesOnWith(t *testing.T) {
	for name, c := range map[string]struct {
		// what the node's proposals meet, before or after they are stored
		before, after func(c fleet.Command) bool
		// orders there after the crash, and claims in the end
		placed, claims int
	}{
		"before the claim":                 {before: func(c fleet.Command) bool { return c.Type == fleet.TypeClaimOrder }, claims: 1},
		"after the claim, before placing":  {after: func(c fleet.Command) bool { return c.Type == fleet.TypeClaimOrder }, claims: 2},
		"after placing, before its record": {before: isResult, placed: 1, claims: 1},
		"after its record":                 {after: isResult, placed: 1, claims: 1},
	} {
		for kind, start := range fakes {
			t.Run(name+"/"+kind, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					v := start(t, fakeca.Config{Delay: time.Minute})
					first := w.engine("n1", issuers(t, v))
					crashed := false
					met := func(at func(c fleet.Command) bool) func(node string, c fleet.Command) error {
						return func(node string, c fleet.Command) error {
							if node == "n1" && (crashed || at != nil && at(c)) {
								crashed = true
								return errCrash
							}
							return nil
						}
					}
					w.hooks(met(c.before), met(c.after))
					first.lead()
					p := placement(t, "o1", kind, "www.example.com")
					w.sync("a", []fleet.OrderPlacement{p})
					pass(30 * time.Second)
					require.True(t, crashed)
					assert.Len(t, v.fake.Core().Ledger(nil), c.placed)
					first.lose()
					w.hooks(nil, nil)

					second := w.engine("n2", issuers(t, v))
					second.lead()
					defer second.lose()
					pass(time.Hour)
					w.delivered(p)
					once(t, v, 1)
					assert.Equal(t, c.claims, w.count(fleet.TypeClaimOrder))
					assert.Equal(t, 1, v.fake.Core().Count(fakeca.Place), "as many placements as orders")
				})
			})
		}
	}
}
