package orders_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/internal/fakeca"
)

// Orders in doubt by the dozen, at authorities that keep no reference of ours, of which
// a third of the requests fails: what the account got of late is looked through for all
// of them together, and not once for each.
func TestOrdersInDoubtShareTheirSearches(t *testing.T) {
	const doubts, others = 40, 160
	for _, c := range []struct {
		kind string
		page int // of its list
		// read counts the questions about single certificates, if the list does not show them.
		read int
	}{{"globalsign", 100, doubts + others}, {"entrust", 50, 0}} {
		t.Run(c.kind, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				v := fakes[c.kind](t, fakeca.Config{Seed: 7, Rates: fakeca.Rates{Lost: 0.15, Errors: 0.15, Busy: 0.03, RetryAfter: time.Second}})
				core := v.fake.Core()
				accept := func(p fleet.OrderPlacement) {
					serial := core.NewSerial()
					_, err := core.Accept(fakeca.Placement{ID: strings.ToUpper(serial.Text(16)), Serial: serial, PublicKey: publicKey(t, p), Names: p.Names.DNS})
					require.NoError(t, err)
				}
				for range others {
					accept(placement(t, "other", c.kind, "other.example.com"))
				}
				var placed []fleet.OrderPlacement
				for i := range doubts {
					id := fmt.Sprintf("o%d", i)
					placed = append(placed, placement(t, id, c.kind, id+".example.com"))
				}
				w.sync("a", placed)
				// A leader that stopped after its claims. Half of its orders reached the authority.
				for i, p := range placed {
					w.do(fleet.ClaimOrder{Agent: "a", ID: p.ID, Revision: w.order(p.ID).ModifyIndex, Node: "n1", Term: 1})
					if i%2 == 0 {
						accept(p)
					}
				}
				e := w.engine("n2", issuers(t, v))
				e.lead()
				defer e.lose()
				pass(2 * time.Hour)
				for _, p := range placed {
					w.delivered(p)
				}
				once(t, v, doubts+others)
				searches, questions := core.Count(fakeca.Search), core.Count(fakeca.Status)
				t.Logf("%d orders of which half were there: %d requests for the list, %d for certificates", doubts, searches, questions)
				pages := (doubts + others + c.page - 1) / c.page
				// A third of the requests fails. What is not there is looked for again and again,
				// and what is found is asked about.
				assert.Less(t, searches, pages*40, "one list for each order")
				assert.Less(t, questions, 2*c.read+12*doubts, "one reading for each order")
			})
		})
	}
}

// An enrollment that is issued later is found among many others although a third of the
// requests fails and nobody else looks through them: what was read is gone on with,
// however seldom it is asked for.
func TestALateEnrollmentIsFoundAmongMany(t *testing.T) {
	looked := 0
	for seed := range uint64(8) {
		bubble(t, func(t *testing.T, w *world) {
			_, v := entrustOf(t, fakeca.Config{Seed: seed, Delay: 2 * time.Minute, Rates: fakeca.Rates{Lost: 0.2, Errors: 0.1, Busy: 0.05, RetryAfter: time.Second}})
			core := v.fake.Core()
			for range 400 {
				serial := core.NewSerial()
				_, err := core.Accept(fakeca.Placement{
					ID: strings.ToUpper(serial.Text(16)), Serial: serial, PublicKey: publicKey(t, placement(t, "other", "entrust", "other.example.com")), Names: []string{"other.example.com"},
				})
				require.NoError(t, err)
			}
			e := w.engine("n1", issuers(t, v))
			e.lead()
			defer e.lose()
			p := placement(t, "o1", "entrust", "www.example.com")
			w.sync("a", []fleet.OrderPlacement{p})
			pass(5 * time.Second)
			if w.stage("o1") != fleet.StagePending {
				return // its answer was lost
			}
			looked++
			pass(15 * time.Minute)
			w.delivered(p)
		})
	}
	assert.GreaterOrEqual(t, looked, 3)
}
